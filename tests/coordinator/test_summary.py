"""The numbers of summary.json, from records small enough to check by head."""

import json
from collections.abc import Callable
from dataclasses import replace
from math import nan

import pytest

from slimfleet.coordinator.reporting.outcome import RunRecord
from slimfleet.coordinator.reporting.summary import cost_to_reach, summarise

MakeRecord = Callable[..., RunRecord]

CONTRACT = {
    "scenario", "seed", "backend", "rounds", "devices", "participations", "accuracy", "accuracy_last5",
    "uplink_bytes", "uplink_bytes_float32", "downlink_bytes", "downlink_bytes_float32", "energy_j",
    "energy_source", "virtual_time_s", "wall_time_s", "budget_violations", "skipped", "rejected", "failed",
}  # fmt: skip


def test_sums_run_over_rounds_and_accuracies_over_the_last_five(make_record: MakeRecord) -> None:
    summary = summarise(make_record([0.0, 0.1, 0.2, 0.3, 0.4, 0.5]))
    assert summary.keys() >= CONTRACT
    assert summary["rounds"] == 6
    assert summary["participations"] == 18
    assert summary["accuracy"] == 0.5
    assert summary["accuracy_last5"] == pytest.approx(0.3)
    assert (summary["uplink_bytes"], summary["uplink_bytes_float32"]) == (6_000, 180_000)
    assert (summary["downlink_bytes"], summary["downlink_bytes_float32"]) == (12_000, 240_000)
    assert (summary["energy_j"], summary["compute_j"], summary["radio_j"]) == (24.0, 18.0, 6.0)
    assert summary["energy_source"] == "simulated"
    assert (summary["virtual_time_s"], summary["wall_time_s"]) == (60.0, 3.0)
    assert (summary["skipped"], summary["rejected"], summary["failed"]) == (
        {"memory_bytes": 4},
        {},
        {"dropout": 2},
    )


def test_the_error_of_predicted_sizes_is_the_one_known_at_the_end(make_record: MakeRecord) -> None:
    early, late = make_record([0.1, 0.2]).rows
    record = replace(make_record(), rows=(early, replace(late, size_error=0.05)))
    assert summarise(record)["update_size_error"] == 0.05
    assert summarise(make_record([]))["update_size_error"] is None


def test_violations_are_counted_in_all_and_by_constraint(make_record: MakeRecord) -> None:
    summary = summarise(make_record(violations={"deadline_s": 2, "energy_j": 1}))
    assert summary["budget_violations"] == 3
    assert summary["violations"] == {"deadline_s": 2, "energy_j": 1}


def test_fewer_than_five_rounds_average_over_all(make_record: MakeRecord) -> None:
    assert summarise(make_record([0.2, 0.4]))["accuracy_last5"] == pytest.approx(0.3)


def test_rounds_without_an_evaluation_do_not_count(make_record: MakeRecord) -> None:
    summary = summarise(make_record([0.4, None, 0.6, None]))
    assert summary["accuracy"] == 0.6
    assert summary["accuracy_last5"] == pytest.approx(0.5)


def test_a_run_without_rounds_or_evaluations_has_no_accuracy(make_record: MakeRecord) -> None:
    for record in (make_record([]), make_record([None])):
        summary = summarise(record, record)
        assert summary["accuracy"] is None
        assert summary["to_target"]["rounds"] is None


def test_a_diverged_run_is_still_json(make_record: MakeRecord) -> None:
    summary = summarise(make_record([0.1], rows={"loss": nan, "energy_j": nan}))
    assert (summary["loss"], summary["energy_j"]) == (None, None)
    json.dumps(summary, allow_nan=False)


def test_cost_to_target_is_that_of_the_first_round_that_reaches_it(make_record: MakeRecord) -> None:
    # Trailing means of ours: round 5 0.62, round 6 0.66, round 7 0.7.
    ours = make_record([0.5, 0.6, 0.6, 0.7, 0.7, 0.7, 0.8, 0.9])
    baseline = make_record(
        [0.65] * 6, rows={"uplink_bytes": 50_000, "downlink_bytes": 6_000, "energy_j": 12.0, "compute_j": 8.0}
    )
    summary = summarise(ours, baseline)
    assert summary["to_target"] == {
        "accuracy": pytest.approx(0.65), "rounds": 6, "uplink_bytes": 6_000, "downlink_bytes": 12_000,
        "energy_j": 24.0, "compute_j": 18.0, "radio_j": 6.0, "virtual_time_s": 60.0,
    }  # fmt: skip
    assert summary["baseline"]["accuracy_last5"] == pytest.approx(0.65)
    # The baseline reaches its own final accuracy with its first full window of five.
    assert summary["baseline"]["to_target"]["rounds"] == 5
    assert summary["baseline"]["to_target"]["uplink_bytes"] == 250_000
    assert summary["savings"]["uplink_bytes"] == pytest.approx(250 / 6)
    assert summary["savings"]["downlink_bytes"] == pytest.approx(30 / 12)
    assert summary["savings"]["energy_j"] == pytest.approx(60 / 24)
    assert summary["savings"]["rounds"] == pytest.approx(5 / 6)


def test_one_lucky_round_does_not_reach_the_target(make_record: MakeRecord) -> None:
    rows = make_record([0.9, 0.1, 0.1, 0.1, 0.1, 0.1]).rows
    assert cost_to_reach(rows, 0.8)["rounds"] is None
    assert cost_to_reach(rows, 0.25)["rounds"] == 5


def test_a_target_never_reached_is_null_and_so_are_the_savings(make_record: MakeRecord) -> None:
    summary = summarise(make_record([0.5] * 6), make_record([0.9] * 6))
    assert summary["to_target"]["accuracy"] == pytest.approx(0.9)
    assert {value for key, value in summary["to_target"].items() if key != "accuracy"} == {None}
    assert set(summary["savings"].values()) == {None}


def test_a_cost_of_nothing_gives_no_ratio(make_record: MakeRecord) -> None:
    free = make_record([0.5] * 5, rows={"radio_j": 0.0})
    assert summarise(free, make_record([0.5] * 5))["savings"]["radio_j"] is None
