"""Rounds that do not wait: over-selection, deadlines, floors and buffers, in virtual time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from driven import driven, small

from slimfleet.compression import BadInput
from slimfleet.coordinator import Answer, Closed, Coordinator, Event
from slimfleet.coordinator.receiving.answer import OUTCOMES
from slimfleet.coordinator.reporting import record_of
from slimfleet.coordinator.reporting.summary import summarise
from slimfleet.simulations import Scenario

MAINS = "{pi_5 = 1, pi_3b_plus = 1, pi_zero_2w = 1}"
"""Devices without batteries: what they can do does not depend on the time."""
UNEVEN = {
    "fleet__speed_noise": "1.0",
    "fleet__devices": "24",
    "fleet__availability": "1.0",
    "fleet__mix": MAINS,
}
ASYNCHRONOUS = {"pacing__mode": "asynchronous", "pacing__buffer": "4", "pacing__concurrency": "10"}


def model_bytes(coordinator: Coordinator) -> bytes:
    return b"".join(array.tobytes() for _, array in sorted(coordinator.state.server.state().items()))


def time_s(coordinator: Coordinator) -> float:
    return sum(row.virtual_time_s for row in coordinator.state.rows)


def counted_once(coordinator: Coordinator) -> None:
    """Every device's part of a round has come to one end, and the rows and the totals say so alike."""
    state = coordinator.state
    summary = summarise(record_of(coordinator, "t", "local"))
    assert state.in_flight == {}
    assert list(summary["outcomes"]) == list(OUTCOMES)
    by_row = {
        name: sum(getattr(row, {"done": "completed"}.get(name, name)) for row in state.rows)
        for name in OUTCOMES
    }
    assert summary["outcomes"] == by_row
    assert sum(by_row.values()) == sum(row.selected for row in state.rows)


def test_a_buffer_as_large_as_the_cohort_and_the_concurrency_is_a_synchronous_round() -> None:
    changes = UNEVEN | {"rounds": "4"}
    synchronous = driven(small(**changes, selection__per_round="6"))
    buffered = driven(
        small(**changes, pacing__mode="asynchronous", pacing__buffer="6", pacing__concurrency="6")
    )
    assert model_bytes(buffered) == model_bytes(synchronous)
    assert [row.completed for row in buffered.state.rows] == [6, 6, 6, 6]
    assert time_s(buffered) == time_s(synchronous)


def test_a_surplus_closes_a_round_early_and_what_comes_later_is_late() -> None:
    waits, closes = driven(small(**UNEVEN)), driven(small(**UNEVEN, pacing__surplus="4"))
    assert time_s(closes) < time_s(waits)
    assert [row.completed for row in closes.state.rows] == [6, 6, 6]
    assert [row.selected for row in closes.state.rows] == [10, 10, 10]
    assert closes.state.totals.outcomes == {"done": 18, "late": 12}
    counted_once(closes)


def test_a_deadline_leaves_slow_devices_behind() -> None:
    waits = driven(small(**UNEVEN))
    closes = driven(
        small(
            **UNEVEN,
            pacing__deadline="predicted",
            pacing__deadline_quantile="0.5",
            pacing__deadline_factor="1.0",
        )
    )
    assert time_s(closes) < time_s(waits)
    assert 0 < closes.state.totals.outcomes["late"] < 18
    counted_once(closes)


def test_a_late_device_is_not_asked_again_before_it_is_done_and_its_report_teaches() -> None:
    answers: list[Answer] = []

    def keep(event: Event) -> None:
        if isinstance(event, Closed):
            answers.extend(event.answers)

    scenario = small(**UNEVEN, pacing__surplus="6", rounds="4")
    coordinator = driven(scenario, observers=[keep])
    late = [each for each in answers if each.outcome == "late" and each.report is not None]
    assert late
    for each in late:
        assert each.dispatch is not None
        assert each.dispatch.node in {int(device) for device in coordinator.state.calibration.devices}
    for node in {each.dispatch.node for each in answers if each.dispatch is not None}:
        mine = sorted(
            (each.dispatch.sent_s, each.report.spent.time_s)
            for each in answers
            if each.dispatch is not None and each.dispatch.node == node and each.report is not None
        )
        assert all(sent + took <= later for (sent, took), (later, _) in pairwise(mine))


def test_a_round_below_its_floor_leaves_the_model_alone_and_is_counted() -> None:
    whole = driven(small(rounds="1"))
    below = driven(small(rounds="1", fleet__dropout="0.6", pacing__least_updates="6"))
    fresh = driven(small(rounds="1", fleet__dropout="0.99"))
    row = below.state.rows[0]
    assert (row.applied, row.completed) == (False, 0)
    assert row.dropped == row.selected == 6
    assert model_bytes(below) == model_bytes(fresh) != model_bytes(whole)
    assert summarise(record_of(below, "t", "local"))["rounds_not_applied"] == 1
    assert all(record.acknowledged_round is None for record in below.state.registry)
    counted_once(below)


def test_devices_that_do_not_wait_take_less_time_and_stale_updates_are_told() -> None:
    synchronous = driven(small(**UNEVEN, rounds="4"))
    asynchronous = driven(small(**UNEVEN, **ASYNCHRONOUS, rounds="6"))
    assert time_s(asynchronous) < time_s(synchronous)
    assert [row.completed for row in asynchronous.state.rows] == [4] * 6
    assert max(row.staleness for row in asynchronous.state.rows) > 0
    counted_once(asynchronous)


def test_updates_that_are_too_stale_are_not_used() -> None:
    coordinator = driven(small(**UNEVEN, **ASYNCHRONOUS, rounds="6", pacing__largest_staleness="0"))
    assert coordinator.state.totals.outcomes["stale"] > 0
    assert all(row.staleness == 0 for row in coordinator.state.rows)
    counted_once(coordinator)


@pytest.mark.parametrize("staleness", ["none", "polynomial"])
def test_the_same_seed_gives_the_same_bytes_when_nobody_waits(staleness: str) -> None:
    scenario = small(**UNEVEN, **ASYNCHRONOUS, fleet__dropout="0.2", pacing__staleness=f'"{staleness}"')
    one, other = driven(scenario), driven(scenario)
    assert model_bytes(one) == model_bytes(other)
    counted_once(one)


class Killed(Exception):
    pass


def killed(scenario: Scenario, folder: Path, after: int) -> None:
    """Run until so many answers have come, and stop dead."""
    left = after

    def count(event: Event) -> None:
        nonlocal left
        if isinstance(event, Answer):
            left -= 1
            if left == 0:
                raise Killed

    with pytest.raises(Killed):
        driven(scenario, folder, [count], folder / "devices")


@pytest.mark.parametrize("after", [6, 19])
@pytest.mark.parametrize(
    "mode", [ASYNCHRONOUS, {"pacing__surplus": "4"}], ids=["asynchronous", "synchronous"]
)
def test_a_killed_run_resumes_with_what_was_in_flight(
    mode: dict[str, str], after: int, tmp_path: Path
) -> None:
    scenario = small(**UNEVEN, **mode, fleet__dropout="0.2", rounds="6")
    whole = driven(scenario)
    killed(scenario, tmp_path, after)
    resumed = driven(scenario, tmp_path, devices=tmp_path / "devices")
    assert model_bytes(resumed) == model_bytes(whole)
    bare = [[replace(row, wall_time_s=0.0) for row in each.state.rows] for each in (resumed, whole)]
    assert bare[0] == bare[1]
    assert resumed.state.totals == whole.state.totals
    counted_once(resumed)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pacing__least_updates": "7"}, "no round would ever be applied"),
        (ASYNCHRONOUS | {"pacing__buffer": "11"}, "the buffer would never be full"),
    ],
)
def test_settings_under_which_nothing_would_happen_are_refused(changes: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        small(**changes)
