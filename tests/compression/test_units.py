from math import inf, nan

import pytest

from slimfleet.compression.reporting import units


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1234, "1.23 kB"), (999_600, "1 MB"),
     (12_345_678, "12.3 MB"), (123_456_789, "123 MB"), (5e15, "5000 TB"), (None, "–"),
     (nan, "–"), (inf, "–")],
)  # fmt: skip
def test_bytes(value: float | None, said: str) -> None:
    assert units.data(value) == said


@pytest.mark.parametrize(("value", "said"), [(0.05, "0.05 J"), (12.345, "12.3 J"), (1234.5, "1.23 kJ")])
def test_joules(value: float, said: str) -> None:
    assert units.energy(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.5, "0.5 s"), (59.0, "59 s"), (95, "1 min 35 s"), (3599.6, "1 h 0 min"), (7500, "2 h 5 min"),
     (90_000, "1 d 1 h"), (None, "–")],
)  # fmt: skip
def test_durations(value: float | None, said: str) -> None:
    assert units.duration(value) == said


@pytest.mark.parametrize(
    ("value", "said"), [(56.7, "57×"), (1234, "1,234×"), (3.14, "3.1×"), (0.912, "0.91×"), (None, "–")]
)
def test_ratios(value: float | None, said: str) -> None:
    assert units.times(value) == said


def test_shares_and_counts() -> None:
    assert units.percent(0.8351) == "83.5 %"
    assert units.percent(None) == "–"
    assert units.count(1_234_567) == "1,234,567"
