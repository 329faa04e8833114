"""Units: numbers as people read them. Bytes and joules go in steps of 1,000; "–" stands for an unknown value."""

from __future__ import annotations

from math import isfinite

__all__ = ["UNKNOWN", "count", "data", "duration", "energy", "percent", "plain", "times"]

UNKNOWN = "–"


def _scaled(value: float | None, unit: str, prefixes: str) -> str:
    """Three significant digits, with the largest prefix that keeps the number at 1 or above."""
    if value is None or not isfinite(value):
        return UNKNOWN
    step = 0
    # 999.5 would print as 1000: it belongs to the next prefix.
    while abs(value) >= 999.5 and step < len(prefixes):
        value /= 1000
        step += 1
    prefix = prefixes[step - 1] if step else ""
    return f"{_digits(value)} {prefix}{unit}"


def _digits(value: float) -> str:
    if float(value).is_integer():
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def data(value: float | None) -> str:
    """Bytes: 1234567 is "1.23 MB"."""
    return _scaled(value, "B", "kMGT")


def energy(value: float | None) -> str:
    """Joules: 1234 is "1.23 kJ"."""
    return _scaled(value, "J", "kMG")


def duration(value: float | None) -> str:
    """Seconds: 95 is "1 min 35 s", 7500 is "2 h 5 min"."""
    if value is None or not isfinite(value):
        return UNKNOWN
    if value < 60:
        return f"{value:.3g} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if days else f"{hours} h {minutes} min"


def percent(value: float | None) -> str:
    """A share: 0.8351 is "83.5 %"."""
    return UNKNOWN if value is None or not isfinite(value) else f"{100 * value:.1f} %"


def times(value: float | None) -> str:
    """A ratio: 56.7 is "57×", 3.14 is "3.1×", 0.912 is "0.91×"."""
    if value is None or not isfinite(value):
        return UNKNOWN
    if value >= 10:
        return f"{value:,.0f}×"
    return f"{value:.1f}×" if value >= 1 else f"{value:.2g}×"


def plain(value: float | None) -> str:
    """A number without a unit: 1234567 is "1.23 M"."""
    return _scaled(value, "", "kMGT").rstrip()


def count(value: int) -> str:
    """1234567 is "1,234,567"."""
    return f"{value:,}"
