"""Transfers of deployed devices: what the round trip shows of them."""

import json
from dataclasses import replace

import pytest

from slimfleet.compression import Cost, Report
from slimfleet.compression.types import PhaseCost, Phases
from slimfleet.coordinator.receiving.transfers import WAIT_VARIES_S, RoundTrip, timed
from slimfleet.coordinator.reporting import record_of, summarise

PHASES = Phases.of(
    {
        "startup": PhaseCost(time_s=5.0, energy_j=10.0),
        "download": PhaseCost(time_s=2.0, energy_j=1.5, uncertainty_j=1.5),  # 0.5 J wake the radio
        "train": PhaseCost(time_s=10.0, energy_j=40.0),
        "upload": PhaseCost(time_s=8.0, energy_j=4.0, uncertainty_j=4.0),
    }
)
REPORT = Report(
    spent=Cost(
        energy_j=55.5, radio_j=5.5, time_s=25.0, memory_bytes=1, uplink_bytes=80_000, downlink_bytes=40_000
    ),
    source="estimated",
    loss=1.0,
    examples=10,
    steps=4,
    phases=PHASES,
)


def transfers(report):
    return report.phases.download.time_s, report.phases.upload.time_s


@pytest.mark.parametrize(
    ("round_trip_s", "overhead_s", "factor"),
    [
        (20.0, None, 0.5),  # both in 5 s: the link is at least twice as fast
        (28.0, None, 1.0),  # up to 13 s: nothing speaks against 10
        (60.0, None, 1.0),  # it may have waited
        (60.0, 3.0, 3.8),  # 45 s, of which at most 3 s and the varying wait are no transfer
        (28.0, 3.0, 1.0),
        (20.0, 3.0, 0.5),
    ],
)
def test_the_round_trip_corrects_what_it_contradicts(phone, round_trip_s, overhead_s, factor):
    assert WAIT_VARIES_S == 4.0
    report = timed(REPORT, RoundTrip(phone, round_trip_s, overhead_s))
    assert transfers(report) == pytest.approx((2.0 * factor, 8.0 * factor))
    assert report.spent.time_s == pytest.approx(15.0 + 10.0 * factor) == pytest.approx(report.phases.time_s)
    assert report.spent.radio_j == pytest.approx(0.5 + 5.0 * factor) == pytest.approx(report.phases.radio_j)
    assert report.spent.energy_j == pytest.approx(report.phases.energy_j)
    upload = report.phases.upload
    assert upload.source == "estimated"
    assert upload.uncertainty_j == pytest.approx(4.0 + abs(upload.energy_j - 4.0))


@pytest.mark.parametrize(
    "report",
    [
        replace(REPORT, source="simulated"),
        replace(REPORT, phases=None),
        replace(REPORT, phases=replace(PHASES, download=PhaseCost(), upload=PhaseCost())),
    ],
)
def test_where_nothing_is_known_nothing_is_corrected(phone, report):
    assert timed(report, RoundTrip(phone, 20.0)) == report


def test_a_device_that_claims_more_time_than_the_round_trip_is_left_as_it_is(phone):
    assert timed(REPORT, RoundTrip(phone, 14.0)) == REPORT


def over_a_link(federation, times_nominal, rounds):
    """Rounds of devices that call their joules estimated, over a link that takes so many times the nominal time."""
    now = [0.0]
    federation.coordinator._stopwatch = lambda: now[0]
    for record in federation.state.registry:
        record.overhead_s = 1.0
    for _ in range(rounds):
        planned = federation.plan()
        began = now[0]
        for dispatch in planned.dispatches:
            payload, text = federation.answer(dispatch)
            report = json.loads(text) | {"source": "estimated"}
            radio_s = sum(report["phases"][phase]["time_s"] for phase in ("download", "upload"))
            on_device_s = report["spent"]["time_s"] - radio_s
            now[0] = began + 1.0 + on_device_s + times_nominal * radio_s
            federation.receive(dispatch, payload, json.dumps(report))
        federation.step()
    record = next(iter(federation.state.registry))
    device_class = record.profile.device_class
    return federation.state.calibration.correction(str(record.node), device_class).time.value


def test_calibration_learns_the_link_of_a_deployed_device(federate, phone):
    narrow = replace(phone, uplink_bytes_per_s=50.0)
    profiles = dict.fromkeys((11, 12, 13, 14), narrow)
    as_stated = over_a_link(federate(profiles=profiles, state="nominal"), 1.0, rounds=4)
    slow = over_a_link(federate(profiles=profiles, state="slow"), 8.0, rounds=4)
    fast = over_a_link(federate(profiles=profiles, state="fast"), 0.25, rounds=4)
    assert as_stated == pytest.approx(1.0, abs=0.05)
    assert slow > 3.0
    assert fast < 0.7


def test_phases_of_a_run_sum_to_its_joules(federate):
    federation = federate()
    rows = federation.run(2)
    lost, *others = federation.plan().dispatches
    for dispatch in others:
        federation.work(dispatch)
    rows.append(federation.step().row)
    phases = summarise(record_of(federation.coordinator, "blobs", "local"))["energy_by_phase"]
    assert sum(phase["energy_j"] for phase in phases.values()) == pytest.approx(sum(r.energy_j for r in rows))
    assert phases["unreported"]["energy_j"] == pytest.approx(lost.predicted.energy_j)
    assert {phase["source"] for name, phase in phases.items() if phase.get("time_s")} == {"simulated"}
    compute_j = sum(r.compute_j for r in rows) - (lost.predicted.energy_j - lost.predicted.radio_j)
    assert phases["train"]["energy_j"] == pytest.approx(compute_j)
    assert phases["evaluate"]["energy_j"] == 0.0


def test_phases_that_do_not_sum_are_refused(federate):
    federation = federate()
    first = federation.plan().dispatches[0]
    payload, text = federation.answer(first)
    report = json.loads(text)
    report["phases"]["train"]["energy_j"] += 0.02 * report["spent"]["energy_j"]
    answer = federation.receive(first, payload, json.dumps(report))
    assert (answer.verdict, answer.reason) == ("rejected", "message")
    assert "in all phases reported" in answer.message
