"""Policy of a device: when it takes part at all. Its owner writes it, and no coordinator can override it.

What a policy asks about and nobody knows counts against the round: unknown is never "fine".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import time
from math import inf
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import AfterValidator

from slimfleet.compression.edge.checked import checked
from slimfleet.compression.edge.input_files import read_toml
from slimfleet.compression.types import Condition, Count, Positive, Share

__all__ = ["Policy", "read_policy", "reason_in_words", "refusal"]

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def _span(text: str) -> str:
    """The text itself. Raises ValueError where it is no span of time."""
    start, _, end = text.partition("-")
    if not _HOURS.fullmatch(text) or start == end:
        raise ValueError('must be a span of time such as "22:00-07:00", from 00:00 to 23:59')
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a device takes part. Every default allows everything."""

    battery_floor: Share = 0.0
    """State of charge below which no work is done, charging or not; 0 sets no floor."""
    charging_only: bool = False
    """Work only while external power feeds the device."""
    unmetered_only: bool = False
    """Work only on a link whose bytes cost nothing."""
    warmest_c: Positive = inf
    """Temperature above which no work is done, in degrees Celsius; inf sets no limit."""
    quiet_hours: tuple[Annotated[str, AfterValidator(_span)], ...] = ()
    """Spans of local time in which no work is done, such as "22:00-07:00"; the last minute is not part of a span."""
    least_free_memory_bytes: Count = 0
    """Memory that must be left for a round; 0 asks for none."""


def refusal(policy: Policy, condition: Condition, clock_time: time) -> str | None:
    """Why `policy` forbids work in this condition at this local time, as a word of `POLICY_REASONS`; None where it
    allows it."""
    if any(_covers(span, clock_time) for span in policy.quiet_hours):
        return "quiet_hours"
    if policy.battery_floor > 0:
        if condition.battery is None:
            return "battery_unknown"
        if condition.battery < policy.battery_floor:
            return "battery_low"
    if policy.charging_only and not condition.charging:
        return "charging_unknown" if condition.charging is None else "not_charging"
    if policy.unmetered_only and condition.metered is not False:
        return "metered_unknown" if condition.metered is None else "metered"
    if policy.warmest_c < inf:
        if condition.temperature_c is None:
            return "temperature_unknown"
        if condition.temperature_c > policy.warmest_c:
            return "too_warm"
    if policy.least_free_memory_bytes > 0:
        if condition.free_memory_bytes is None:
            return "memory_unknown"
        if condition.free_memory_bytes < policy.least_free_memory_bytes:
            return "memory_low"
    return None


_WORDS: Mapping[str, Callable[[Policy, Condition], str]] = MappingProxyType(
    {
        "battery_low": lambda p, c: (
            f"the battery is at {100 * (c.battery or 0):.3g}%, battery_floor is {100 * p.battery_floor:.3g}%"
        ),
        "battery_unknown": lambda p, c: (
            f"the battery's state of charge is unknown, battery_floor is {100 * p.battery_floor:.3g}%"
        ),
        "not_charging": lambda p, c: "the device does not charge, charging_only asks for it",
        "charging_unknown": lambda p, c: "whether the device charges is unknown, charging_only asks for it",
        "metered": lambda p, c: "the link is metered, unmetered_only forbids that",
        "metered_unknown": lambda p, c: (
            "whether the link is metered is unknown, unmetered_only forbids that: the node-config may say it"
        ),
        "too_warm": lambda p, c: (
            f"the device is at {c.temperature_c:.3g} °C, warmest_c is {p.warmest_c:.3g} °C"
        ),
        "temperature_unknown": lambda p, c: f"the temperature is unknown, warmest_c is {p.warmest_c:.3g} °C",
        "memory_low": lambda p, c: (
            f"{c.free_memory_bytes} bytes of memory are free, "
            f"least_free_memory_bytes is {p.least_free_memory_bytes}"
        ),
        "memory_unknown": lambda p, c: (
            f"how much memory is free is unknown, least_free_memory_bytes is {p.least_free_memory_bytes}"
        ),
        "quiet_hours": lambda p, c: f"it is in quiet_hours, {' or '.join(p.quiet_hours)}",
    }
)


def reason_in_words(reason: str, policy: Policy, condition: Condition) -> str:
    """The refusal that `refusal` gave, as one line for people."""
    return _WORDS[reason](policy, condition)


def read_policy(path: Path) -> Policy:
    """The policy in a TOML file. Raises BadInput, in one line that names the file, the key and what is right."""
    source = f"the policy {path}"
    return checked(Policy, read_toml(path, source), source, infinite=("warmest_c",))


def _covers(span: str, clock_time: time) -> bool:
    """Whether a moment of the day is in a span, which may go over midnight."""
    start, end = (time.fromisoformat(each) for each in span.split("-"))
    if start < end:
        return start <= clock_time < end
    return clock_time >= start or clock_time < end
