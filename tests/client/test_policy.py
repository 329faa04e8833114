"""A device's own policy: what it asks about and nobody knows counts against the round."""

from dataclasses import fields
from datetime import time
from pathlib import Path

import pytest

from slimfleet.client.policy import Policy, read_policy, reason_in_words, refusal
from slimfleet.compression import BadInput, Condition
from slimfleet.compression.errors import POLICY_REASONS

NOON = time(12)
FINE = Condition(battery=0.9, charging=True, metered=False, temperature_c=30.0, free_memory_bytes=2 * 10**9)
STRICT = Policy(
    battery_floor=0.3,
    charging_only=True,
    unmetered_only=True,
    warmest_c=45.0,
    quiet_hours=("22:00-07:00",),
    least_free_memory_bytes=10**9,
)


def changed(**values: object) -> Condition:
    return Condition(**{**{f.name: getattr(FINE, f.name) for f in fields(FINE)}, **values})  # type: ignore[arg-type]


CASES = [
    ("battery_low", changed(battery=0.29), NOON),
    ("battery_unknown", changed(battery=None), NOON),
    ("not_charging", changed(charging=False), NOON),
    ("charging_unknown", changed(charging=None), NOON),
    ("metered", changed(metered=True), NOON),
    ("metered_unknown", changed(metered=None), NOON),
    ("too_warm", changed(temperature_c=45.1), NOON),
    ("temperature_unknown", changed(temperature_c=None), NOON),
    ("memory_low", changed(free_memory_bytes=10**9 - 1), NOON),
    ("memory_unknown", changed(free_memory_bytes=None), NOON),
    ("quiet_hours", FINE, time(23)),
]


@pytest.mark.parametrize(("reason", "condition", "clock_time"), CASES)
def test_a_policy_forbids_and_says_why(reason: str, condition: Condition, clock_time: time) -> None:
    assert refusal(STRICT, condition, clock_time) == reason
    words = reason_in_words(reason, STRICT, condition)
    assert "\n" not in words
    assert ("unknown" in words) == reason.endswith("unknown")


def test_every_reason_has_its_case() -> None:
    assert {reason for reason, _, _ in CASES} == set(POLICY_REASONS)


def test_a_policy_allows_what_keeps_it_and_an_empty_one_everything() -> None:
    at_the_limits = changed(battery=0.3, temperature_c=45.0, free_memory_bytes=10**9)
    assert refusal(STRICT, at_the_limits, NOON) is None
    assert refusal(Policy(), Condition(), time(3)) is None


def test_a_battery_below_the_floor_does_no_work_even_while_it_charges() -> None:
    assert refusal(Policy(battery_floor=0.3), Condition(battery=0.2, charging=True), NOON) == "battery_low"


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [
        ("22:00-07:00", [time(22), time(0), time(6, 59, 59)], [time(7), time(12), time(21, 59, 59)]),
        ("12:30-13:00", [time(12, 30), time(12, 59)], [time(13), time(12, 29), time(0)]),
    ],
)
def test_quiet_hours_may_go_over_midnight(span: str, inside: list[time], outside: list[time]) -> None:
    policy = Policy(quiet_hours=("03:00-03:01", span))
    assert [refusal(policy, FINE, each) for each in inside] == len(inside) * ["quiet_hours"]
    assert [refusal(policy, FINE, each) for each in outside] == len(outside) * [None]


def test_a_file_says_a_policy(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(
        "battery_floor = 0.3\ncharging_only = true\nunmetered_only = true\nwarmest_c = 45\n"
        'quiet_hours = ["22:00-07:00"]\nleast_free_memory_bytes = 1_000_000_000\n'
    )
    assert read_policy(path) == STRICT
    path.write_text("")
    assert read_policy(path) == Policy()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("batery_floor = 0.3", ["'batery_floor'", "did you mean 'battery_floor'"]),
        ("battery_floor = 30", ["battery_floor = 30", "less than or equal to 1"]),
        ("battery_floor = nan", ["battery_floor"]),
        ("charging_only = 1", ["charging_only = 1", "boolean"]),
        ('quiet_hours = "22:00-07:00"', ["quiet_hours", "must be a list"]),
        ('quiet_hours = ["22-7"]', ['"22-7"', '"22:00-07:00"']),
        ('quiet_hours = ["22:00-24:00"]', ['"22:00-24:00"']),
        ('quiet_hours = ["08:00-08:00"]', ['"08:00-08:00"']),
        ("least_free_memory_bytes = -1", ["least_free_memory_bytes = -1"]),
        ("warmest_c = -1", ["warmest_c = -1"]),
        ("[", ["not TOML"]),
    ],
)
def test_what_is_wrong_with_a_file_is_named_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(BadInput) as refused:
        read_policy(path)
    said = str(refused.value)
    assert "\n" not in said
    assert str(path) in said
    for word in words:
        assert word in said
