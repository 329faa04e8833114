"""Devices that come and go hold exactly what was published, and the change costs less than the model."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimfleet.client.state import Held, held_with
from slimfleet.client.workbench import Workbench
from slimfleet.compression import Condition, Plan
from slimfleet.compression.codec import decode_model
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.tensors import tensors_of
from slimfleet.compression.wire import OVERHEAD_BYTES, PayloadKind, unseal
from slimfleet.coordinator.sending.downlink import Downlink
from slimfleet.coordinator.sending.versions import NOTHING, Holding, Versions
from slimfleet.coordinator.settings import CoordinatorSettings, PlannerSettings

WIDTHS = (1.0, 0.75, 0.5, 0.25)


@pytest.fixture(scope="module")
def architecture(task):
    return blueprint(task, seed=3)


@pytest.fixture(scope="module")
def workbench(task, architecture):
    return Workbench(task, architecture, RUNTIMES["lite"])


def plan_of(width):
    return Plan(width=width, local_steps=1, batch_size=1, nmse=0.2)


def downlink_of(architecture, model, number, versions, window="prefix"):
    settings = CoordinatorSettings(planner=PlannerSettings(window=window))
    return Downlink(architecture, model, number, versions, settings)


def drifted(model, rng, scale):
    return {n: (a + rng.normal(0, scale, a.shape)).astype(a.dtype) for n, a in model.items()}


def opened(workbench, payload, held):
    """The model, or None where the device refuses it as stale."""
    try:
        return workbench.open(payload, held)
    except PayloadError as refusal:
        if refusal.reason != "stale":
            raise
        return None


EVENT = st.sampled_from(["away", "answers", "answers", "answers", "answer lost", "state lost"])
EVENTS = st.lists(st.tuples(EVENT, st.sampled_from(WIDTHS)), min_size=3, max_size=3)
STEP = st.tuples(st.sampled_from([0.0, 0.001, 0.02, 0.3]), EVENTS)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(STEP, min_size=1, max_size=8),
    window=st.sampled_from(["prefix", "rolling", "importance"]),
    history=st.integers(0, 4),
)
def test_a_device_has_exactly_what_was_published_whatever_it_missed(
    architecture, workbench, steps, window, history
):
    """Rounds missed, widths that change, answers and states lost, coordinators resumed: a device either refuses as
    stale or has the very model that a newcomer would be sent."""
    rng, model = np.random.default_rng(0), tensors_of(architecture.model)
    versions = Versions(architecture.schema, 6, history)
    known, held = [NOTHING] * 3, [()] * 3
    for number, (scale, events) in enumerate(steps, 1):
        model = drifted(model, rng, scale)
        downlink = downlink_of(architecture, model, number, versions, window)
        for device, (event, width) in enumerate(events):
            if event == "away":
                continue
            if event == "state lost":
                held[device] = ()
            payload, _, holding_after = downlink.for_plan(plan_of(width), known[device])
            newcomer, index_map, _ = downlink.for_plan(plan_of(width), NOTHING)
            assert downlink.least_size(width) <= len(payload) <= len(newcomer)
            assert len(payload) == downlink.size(width, known[device])
            received = opened(workbench, payload, held[device])
            if received is None:
                assert event == "state lost" or "answer lost" in str(steps), "only then may it be stale"
                known[device] = NOTHING
                continue
            expected = decode_model(newcomer, index_map.schema).tensors
            assert all(np.array_equal(received.tensors[n], expected[n]) for n in expected)
            newest = Held(number, received.channels, received.snapshot)
            held[device] = held_with(newest, held[device], received.base_version)
            if event != "answer lost":
                known[device] = holding_after
        resumed = Versions(architecture.schema, 6, history)
        resumed.restore(dict(versions))
        versions = resumed


@pytest.fixture
def published(architecture):
    """Five versions of a model that moves a little each time."""

    def make(history, rounds=5, scale=0.0005):
        rng, model = np.random.default_rng(1), tensors_of(architecture.model)
        versions = Versions(architecture.schema, 6, history)
        for number in range(1, rounds + 1):
            model = drifted(model, rng, scale)
            versions.publish(number, model)
        return downlink_of(architecture, drifted(model, rng, scale), rounds + 1, versions)

    return make


def held_at(downlink, version, width=1.0):
    holding_after = downlink.for_plan(plan_of(width), NOTHING)[2]
    return replace(holding_after, version=version)


def kind_of(downlink, width, holding):
    return unseal(downlink.for_plan(plan_of(width), holding)[0]).header.kind


def test_a_returning_device_is_sent_much_less_than_a_newcomer(published):
    downlink = published(8)
    whole = {width: downlink.size(width, NOTHING) for width in WIDTHS}
    change = {width: downlink.size(width, held_at(downlink, 5)) for width in WIDTHS}
    # Headers aside: the narrowest of these models has 91 elements.
    assert all(change[w] - OVERHEAD_BYTES < (whole[w] - OVERHEAD_BYTES) / 2 for w in WIDTHS)
    assert list(whole.values()) == sorted(whole.values(), reverse=True)


def test_history_is_bounded_and_what_is_older_is_sent_whole(published):
    downlink = published(3)
    kinds = {version: kind_of(downlink, 1.0, held_at(downlink, version)) for version in range(1, 6)}
    assert kinds == {
        1: PayloadKind.MODEL,
        2: PayloadKind.MODEL,
        **dict.fromkeys((3, 4, 5), PayloadKind.CHANGE),
    }
    assert [number for number, _ in downlink.versions] == [3, 4, 5, 6]


def test_without_history_everything_is_sent_whole(published):
    downlink = published(0)
    assert kind_of(downlink, 1.0, held_at(downlink, 5)) is PayloadKind.MODEL
    assert list(downlink.versions) == []


def test_a_device_is_sent_whole_what_it_holds_in_part(published):
    downlink = published(8)
    half = held_at(downlink, 5, 0.5)
    assert {width: kind_of(downlink, width, half) for width in WIDTHS} == {
        1.0: PayloadKind.MODEL,
        0.75: PayloadKind.MODEL,
        0.5: PayloadKind.CHANGE,
        0.25: PayloadKind.CHANGE,
    }


def test_devices_with_the_same_version_share_one_payload(published):
    downlink = published(8)
    wide, half = held_at(downlink, 5), held_at(downlink, 5, 0.5)
    first = downlink.for_plan(plan_of(0.5), wide)[0]
    assert downlink.for_plan(plan_of(0.5), half)[0] is first
    assert downlink.for_plan(plan_of(0.5), held_at(downlink, 4))[0] is not first


def test_a_plan_in_float32_gets_the_plain_model_and_publishes_nothing(architecture):
    model, versions = tensors_of(architecture.model), Versions(architecture.schema, 6, 8)
    plan = replace(plan_of(1.0), nmse=0.0)
    payload, index_map, holding_after = downlink_of(architecture, model, 1, versions).for_plan(plan, NOTHING)
    tensors = decode_model(payload, index_map.schema).tensors
    assert all(np.array_equal(tensors[name], model[name]) for name in model)
    assert holding_after == NOTHING
    assert list(versions) == []


def test_channels_are_covered_bit_by_bit():
    assert Holding(1, "ff0f").covers(bytes.fromhex("8108"))
    assert not Holding(1, "ff0f").covers(bytes.fromhex("8118"))
    assert NOTHING.covers(b"")


def kinds(planned):
    return {d.node: unseal(d.payload).header.kind for d in planned.dispatches}


def test_in_a_federation_devices_that_answered_are_sent_changes(federate):
    federation = federate(rounds=4)
    rows = federation.run(3)
    assert set(kinds(federation.plan()).values()) == {PayloadKind.CHANGE}
    whole = federate(rounds=4, codec={"downlink_history": 0}, state="whole")
    assert rows[-1].downlink_bytes < whole.run(3)[-1].downlink_bytes
    assert {r.holding.version for r in federation.state.registry} == {3}


def test_a_rejected_or_late_answer_shows_what_is_held_and_silence_does_not(federate):
    federation = federate()
    planned = federation.plan()
    rejected, silent, *_ = planned.dispatches
    payload, text = federation.answer(rejected)
    answer = federation.receive(rejected, payload[:-1] + bytes([payload[-1] ^ 1]), text)
    federation.answer(silent)
    federation.step()
    assert answer.reason == "checksum"
    registry = federation.state.registry
    assert (registry[rejected.node].holding.version, registry[silent.node].holding) == (1, NOTHING)


def test_who_lost_its_state_refuses_once_and_is_sent_the_whole_model_next(federate):
    federation = federate()
    federation.run(2)
    node = next(iter(federation.devices))
    federation.devices[node].store.path(federation.devices[node].number).unlink()
    failed = [a for a in federation.round().answers if a.verdict == "failed"]
    assert [(a.dispatch.node, a.reason) for a in failed] == [(node, "stale")]
    again = federation.plan()
    assert [n for n, kind in kinds(again).items() if kind is PayloadKind.MODEL] == [node]
    assert {federation.work(dispatch).verdict for dispatch in again.dispatches} == {"accepted"}


def test_a_resumed_coordinator_sends_the_same_changes(federate, tmp_path):
    federation = federate()
    for turn in range(4):
        federation.world.statuses = {11: None if turn % 2 else Condition()}
        federation.run()
        federation.save(tmp_path / "checkpoint")
    federation.world.statuses = {}
    resumed = federate()
    resumed.restore(tmp_path / "checkpoint")
    sent, again = federation.plan(), resumed.plan()
    assert [d.payload for d in sent.dispatches] == [d.payload for d in again.dispatches]
    assert set(kinds(again).values()) == {PayloadKind.CHANGE}
