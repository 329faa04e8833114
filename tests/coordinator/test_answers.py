"""Bad answers are rejected for the right reason, and the rest of the round is as if they had not been."""

import json
import logging
from dataclasses import replace

import numpy as np
import pytest

from slimfleet.compression import Budget, Cost, ModelSchema
from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.codec.entropy.pack import pack
from slimfleet.compression.codec.quantise.grid import Quantised
from slimfleet.compression.wire import Coder, Envelope, Header, PayloadKind, seal
from slimfleet.coordinator.receiving.checks import LARGEST_EXAMPLES, broken_constraints
from slimfleet.coordinator.reporting import record_of
from slimfleet.coordinator.sending.dispatch import Dispatch


def header_of(dispatch: Dispatch, **changes: object) -> dict[str, object]:
    schema = dispatch.index_map.schema
    return {
        "schema_digest": schema.digest,
        "tensors": len(schema.tensors),
        "elements": schema.elements,
        "base_version": dispatch.assignment.round_number,
        "plan_id": dispatch.assignment.plan_id,
        "kind": PayloadKind.UPDATE,
        "coder": Coder.FLOAT32,
    } | changes


def plain_update(dispatch: Dispatch, value: float, name: str = "5.weight", **changes: object) -> bytes:
    """A payload made by hand, in float32, that holds `value` in one tensor; sound in every other way."""
    schema = dispatch.index_map.schema
    plain = {t.name: np.zeros(t.shape, t.dtype) for t in schema.tensors}
    plain[name][...] = value
    body = pack(Quantised({}, None, plain), schema)
    return seal(Header(**header_of(dispatch, sections=body.sections, **changes)), body.data)


def of_another_schema(dispatch: Dispatch) -> bytes:
    tensors = {"w": np.ones(4, np.float32)}
    schema, asked = ModelSchema.of(tensors, ["w"]), dispatch.assignment
    spec = CodecSpec(bits=8)
    return encode(
        tensors, schema, spec, envelope=Envelope(base_version=asked.round_number, plan_id=asked.plan_id)
    ).payload


def flipped(payload: bytes, position: int) -> bytes:
    return payload[:position] + bytes([payload[position] ^ 4]) + payload[position + 1 :]


BAD = {
    "cut short": ("truncated", lambda d, p: p[:-3]),
    "empty": ("truncated", lambda d, p: b""),
    "a bit flipped": ("checksum", lambda d, p: flipped(p, len(p) // 2)),
    "not ours": ("magic", lambda d, p: b"PK" + p[2:]),
    "too long": ("oversized", lambda d, p: p + bytes(100_000)),
    "another model": ("schema", lambda d, p: of_another_schema(d)),
    "an older round": ("stale", lambda d, p: plain_update(d, 0.1, base_version=0)),
    "an answer to another plan": (
        "replay",
        lambda d, p: plain_update(d, 0.1, plan_id=d.assignment.plan_id ^ 1),
    ),
    "NaN": ("nonfinite", lambda d, p: plain_update(d, np.nan)),
    "infinity": ("nonfinite", lambda d, p: plain_update(d, -np.inf)),
    "NaN in the statistics": ("nonfinite", lambda d, p: plain_update(d, np.nan, "1.running_var")),
    "huge": ("norm", lambda d, p: plain_update(d, 1e6)),
    "a counter beyond the sum": ("norm", lambda d, p: plain_update(d, 2**62, "1.num_batches_tracked")),
    "a whole model": ("header", lambda d, p: plain_update(d, 0.1, kind=PayloadKind.MODEL)),
}
LIES = {
    "no JSON": lambda r: "{",
    "more steps than planned": lambda r: r | {"steps": 10_000},
    "no step": lambda r: r | {"steps": 0},
    "another size": lambda r: r | {"spent": r["spent"] | {"uplink_bytes": 1}},
    "a smaller model": lambda r: r | {"spent": r["spent"] | {"downlink_bytes": 1}},
    "more radio than energy": lambda r: r | {"spent": r["spent"] | {"radio_j": 1e4}},
    "a power station": lambda r: r | {"spent": r["spent"] | {"energy_j": 1e300}},
    "eternity": lambda r: r | {"spent": r["spent"] | {"time_s": 1e300}},
    "no examples": lambda r: r | {"examples": 0},
    "a word too many": lambda r: r | {"root": True},
}


@pytest.fixture
def without_the_first(federate):
    """The state after a round in which the first device fails, and the row."""
    federation = federate(state="without")
    first, *others = federation.plan().dispatches
    federation.coordinator.fail(first.plan_id, "error")
    for dispatch in others:
        federation.work(dispatch)
    federation.step()
    return federation.state_bytes()


def round_with(federation, tamper):
    """One round in which the first device's answer is tampered with: that answer, and the round as it closed."""
    first, *others = federation.plan().dispatches
    answer = federation.receive(first, *tamper(first, *federation.answer(first)))
    for dispatch in others:
        federation.work(dispatch)
    return answer, federation.step()


@pytest.mark.parametrize("name", BAD)
def test_a_bad_payload_is_rejected_for_its_reason_and_harms_no_other_device(
    name, federate, without_the_first, caplog
):
    reason, make = BAD[name]

    def tamper(dispatch, payload, text):
        bad = make(dispatch, payload)
        report = json.loads(text)
        report["spent"]["uplink_bytes"] = len(bad)
        return bad, json.dumps(report)

    federation = federate()
    with caplog.at_level(logging.WARNING):
        answer, closed = round_with(federation, tamper)
    node, row = answer.dispatch.node, closed.row
    assert (answer.verdict, answer.reason) == ("rejected", reason)
    assert f"node {node} rejected ({reason})" in caplog.text
    assert federation.state.totals.rejected == {reason: 1}
    assert (row.completed, row.rejected, row.failed) == (len(federation.devices) - 1, 1, 0)
    assert federation.state_bytes() == without_the_first
    record = federation.state.registry[node]
    assert (record.rejections, record.participations, record.acknowledged_round) == (1, 0, None)


@pytest.mark.parametrize("name", LIES)
def test_a_lying_report_is_rejected_and_not_counted_on(name, federate, without_the_first):
    def tamper(dispatch, payload, text):
        lie = LIES[name](json.loads(text))
        return payload, lie if isinstance(lie, str) else json.dumps(lie)

    federation = federate()
    answer, closed = round_with(federation, tamper)
    node = answer.dispatch.node
    assert (answer.verdict, answer.reason, answer.report) == ("rejected", "message", None)
    assert closed.row.energy_j < 1e4
    # What the world knows of it, and nothing of what it said.
    assert federation.state.registry[node].energy_j == answer.dispatch.predicted.energy_j
    assert federation.state_bytes() == without_the_first


def test_a_second_answer_is_a_replay_and_the_first_stands(federate, caplog):
    federation, twin = federate(), federate(state="twin")
    expected = twin.run()[0]
    answers = [(dispatch, *federation.answer(dispatch)) for dispatch in federation.plan().dispatches]
    for dispatch, payload, text in answers:
        assert federation.receive(dispatch, payload, text).verdict == "accepted"
        assert federation.receive(dispatch, payload[:-1], text).reason == "replay"
    first, payload, text = answers[0]
    federation.coordinator.receive(999, payload, text)
    federation.coordinator.fail(first.plan_id, "error")
    closed = federation.step()
    assert federation.state.totals.rejected == {"replay": len(federation.devices) + 2}
    assert [a.dispatch for a in closed.answers if a.verdict != "accepted"] == [None] * 6
    assert "nothing is in flight under its number" in caplog.text
    assert replace(closed.row, wall_time_s=0) == replace(expected, wall_time_s=0)
    assert federation.state_bytes() == twin.state_bytes()


def test_a_late_answer_is_not_used_but_its_cost_counts(federate):
    federation = federate(budget={"deadline_s": 30})

    def tamper(dispatch, payload, text):
        report = json.loads(text)
        idle = report["phases"]["idle"]
        idle["time_s"] = idle.get("time_s", 0.0) + 31.0 - report["spent"]["time_s"]
        report["spent"]["time_s"] = 31.0
        return payload, json.dumps(report)

    answer, closed = round_with(federation, tamper)
    assert (answer.verdict, answer.reason, answer.broken) == ("failed", "late", ("deadline_s",))
    assert federation.state.registry[answer.dispatch.node].energy_j > 0
    assert (closed.row.violations, closed.row.failed) == (1, 1)


def test_silent_devices_time_out_and_their_energy_is_the_worlds_to_say(federate):
    federation = federate()
    planned = federation.plan()
    first, *silent = planned.dispatches
    spent = federation.work(first).report.spent
    assert list(federation.state.in_flight.values()) == silent
    closed = federation.step()
    assert [a.reason for a in closed.answers if a.verdict == "failed"] == ["timeout"] * len(silent)
    assert federation.state.in_flight == {}
    assert closed.row.energy_j == pytest.approx(spent.energy_j + sum(d.predicted.energy_j for d in silent))
    assert closed.row.virtual_time_s == 60.0


def test_a_round_without_any_answer_leaves_the_model_alone(federate):
    federation = federate()
    before = federation.model_bytes()
    planned = federation.plan()
    row = federation.step().row
    assert federation.model_bytes() == before
    assert (row.completed, row.failed) == (0, len(planned.dispatches))


def test_bytes_are_counted_as_they_came_not_as_reported(federate):
    answer, closed = round_with(federate(), lambda d, p, t: (p + b"more", t))
    sizes = [a.received_bytes for a in closed.answers]
    assert closed.row.uplink_bytes == sum(sizes)
    assert answer.reason == "message"
    assert closed.row.uplink_bytes_float32 == closed.row.downlink_bytes_float32


def test_no_device_weighs_more_than_the_cap(federate):
    def tamper(dispatch, payload, text):
        return payload, json.dumps(json.loads(text) | {"examples": 2**31})

    def capped(dispatch, payload, text):
        return payload, json.dumps(json.loads(text) | {"examples": LARGEST_EXAMPLES})

    claims, at_the_cap = federate(), federate(state="capped")
    assert round_with(claims, tamper)[0].verdict == "accepted"
    round_with(at_the_cap, capped)
    assert claims.model_bytes() == at_the_cap.model_bytes()


COST = Cost(energy_j=10, radio_j=2, time_s=20, memory_bytes=100, uplink_bytes=50, downlink_bytes=60)


@pytest.mark.parametrize(
    ("limits", "broken"),
    [
        ({}, []),
        (
            {"energy_j": 10, "memory_bytes": 100, "deadline_s": 20, "uplink_bytes": 50, "downlink_bytes": 60},
            [],
        ),
        ({"energy_j": 9.9}, ["energy_j"]),
        ({"memory_bytes": 99}, ["memory_bytes"]),
        ({"deadline_s": 19.9}, ["deadline_s"]),
        ({"uplink_bytes": 49}, ["uplink_bytes"]),
        ({"downlink_bytes": 59, "energy_j": 1}, ["energy_j", "downlink_bytes"]),
        ({"power_w": 0.4}, []),
        ({"power_w": 0.39}, ["power_w"]),
    ],
)
def test_broken_constraints(limits, broken):
    assert broken_constraints(COST, Budget(**limits)) == broken


def test_joules_are_named_by_where_the_reports_have_them_from(federate):
    federation = federate()
    assert record_of(federation.coordinator, "t", "deployed").energy_source == "unknown"
    federation.run()
    assert record_of(federation.coordinator, "t", "deployed").energy_source == "simulated"

    def measured(dispatch, payload, text):
        return payload, json.dumps(json.loads(text) | {"source": "measured"})

    round_with(federation, measured)
    assert record_of(federation.coordinator, "t", "deployed").energy_source == "mixed: measured and simulated"


def test_a_device_record_has_what_the_device_spent_in_silence(federate):
    federation = federate()
    lost, *others = federation.plan().dispatches
    federation.coordinator.fail(lost.plan_id, "dropout")
    for dispatch in others:
        federation.work(dispatch)
    row = federation.step().row
    devices = record_of(federation.coordinator, "t", "local", first_node=11).device_rows
    assert devices[lost.node - 11].energy_j == lost.predicted.energy_j > 0
    assert sum(device.energy_j for device in devices) == pytest.approx(row.energy_j)
