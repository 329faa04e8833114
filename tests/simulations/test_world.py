"""Virtual time and batteries, over rounds small enough to check by head."""

import json
from dataclasses import replace

import numpy as np
import pytest

from slimfleet.compression import (
    Assignment,
    Budget,
    Condition,
    Cost,
    ModelSchema,
    Payload,
    Plan,
    Report,
    Training,
)
from slimfleet.compression.pruning import IndexMap
from slimfleet.coordinator import Answer, Dispatch
from slimfleet.coordinator.registry import Registry
from slimfleet.simulations import FleetSettings, VirtualDevice, build_fleet
from slimfleet.simulations.world import BETWEEN_ROUNDS_S, VirtualWorld, node_of

PREDICTED = Cost(
    energy_j=10.0, radio_j=4.0, time_s=7.0, memory_bytes=1, uplink_bytes=1_000, downlink_bytes=2_000
)
SETTINGS = FleetSettings(devices=60, availability=1.0, dropout=0.5, start_charge=(0.5, 0.5))
FLEET = build_fleet(SETTINGS, seed=1)
ROUND = 1
LOST = [device for device in FLEET if device.conditions(ROUND).drops_out_at is not None]
KEPT = [device for device in FLEET if device.conditions(ROUND).drops_out_at is None]


def dispatched(device: VirtualDevice, deadline_s: float | None = 30.0) -> Dispatch:
    """Work for `device`, sent at time 0."""
    assignment = Assignment(
        round_number=ROUND,
        plan_id=node_of(device.number),
        plan=Plan(width=1.0, local_steps=1, batch_size=1, nmse=0.1),
        budget=Budget(),
        training=Training(learning_rate=0.1),
    )
    schema = ModelSchema(())
    return Dispatch(
        node=node_of(device.number),
        assignment=assignment,
        payload=Payload(b""),
        index_map=IndexMap(schema, schema, {}, {}),
        limits=Budget(deadline_s=deadline_s),
        predicted=PREDICTED,
    )


def answer(device: VirtualDevice, spent: Cost | None, deadline_s: float | None = 30.0) -> Answer:
    """What came of a dispatch to `device`; None where nothing did."""
    dispatch = dispatched(device, deadline_s)
    if spent is None:
        return Answer(dispatch=dispatch, verdict="failed", reason="dropout")
    report = Report(spent=spent, source="simulated", loss=1.0, examples=3, steps=1)
    return Answer(dispatch=dispatch, verdict="accepted", report=report)


def condition(world: VirtualWorld, device: VirtualDevice, round_number: int) -> Condition | None:
    """What the world says of one device."""
    nodes = np.array([node_of(device.number)], np.uint64)
    return world.conditions(Registry(), nodes, round_number)[0]


def test_time_moves_to_what_arrives_next_and_never_back() -> None:
    world = VirtualWorld(FLEET)
    dispatch = replace(dispatched(KEPT[0]), sent_s=100.0)
    assert world.arrival_s(dispatch, 12.0) == 112.0
    assert not world.reach(112.0, more_may_come=True)
    assert world.now_s() == 0.0
    assert world.reach(112.0, more_may_come=False)
    assert world.reach(50.0, more_may_come=False)
    assert world.now_s() == 112.0
    world.rest()
    assert world.now_s() == 112.0 + BETWEEN_ROUNDS_S


@pytest.mark.parametrize(("deadline_s", "waited_s"), [(30.0, 30.0), (None, 7.0)])
def test_a_lost_device_is_waited_for_and_did_a_share_of_its_work(
    deadline_s: float | None, waited_s: float
) -> None:
    world = VirtualWorld(FLEET)
    share = LOST[0].conditions(ROUND).drops_out_at
    assert share is not None
    lost = world.spent([answer(LOST[0], None, deadline_s)])
    assert list(lost) == [node_of(LOST[0].number)]
    spent = lost[node_of(LOST[0].number)]
    assert spent.energy_j == pytest.approx(6.0 * share + 4.0)
    assert (spent.radio_j, spent.uplink_bytes, spent.downlink_bytes) == (4.0, 0, 2_000)
    assert spent.time_s == waited_s
    assert world.arrival_s(dispatched(LOST[0], deadline_s), None) == waited_s


def test_rounds_drain_batteries_and_devices_on_mains_have_none() -> None:
    world = VirtualWorld(FLEET)
    phone = next(d for d in KEPT if d.battery is not None and not d.battery.at(100.0).charging)
    board = next(d for d in KEPT if d.battery is None)
    assert phone.battery is not None
    world.spent([answer(phone, replace(PREDICTED, energy_j=500.0)), answer(board, PREDICTED)])
    start, left = world.charge(node_of(phone.number))
    assert start == 0.5
    assert left == pytest.approx(0.5 - 500.0 / phone.battery.capacity_j)
    assert world.charge(node_of(board.number)) == (None, None)
    status = condition(world, phone, ROUND + 1)
    assert status is not None
    assert (status.battery, status.charging) == (left, False)


def test_a_world_that_is_restored_goes_on_as_it_was() -> None:
    world, other = VirtualWorld(FLEET), VirtualWorld(FLEET)
    world.spent([answer(device, PREDICTED) for device in KEPT])
    world.rest()
    other.restore(json.loads(json.dumps(world.to_json())))
    assert other.now_s() == world.now_s()
    assert [condition(other, each, 2) for each in FLEET] == [condition(world, each, 2) for each in FLEET]
    assert other.to_json() == world.to_json()


def test_a_device_out_of_reach_has_no_status() -> None:
    fleet = build_fleet(replace(SETTINGS, availability=0.5), seed=1)
    world = VirtualWorld(fleet)
    for device in fleet:
        reached = condition(world, device, ROUND) is not None
        assert reached == device.conditions(ROUND).available


@pytest.mark.parametrize(
    ("share", "radio_j", "compute_j"), [(0.01, 0.0, 0.0), (0.5, 4.0, 2.5), (1.0, 4.0, 6.0)]
)
def test_a_device_lost_at_any_moment_has_spent_what_the_phases_took_by_then(
    share: float, radio_j: float, compute_j: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = build_fleet(replace(SETTINGS, dropout_phase="any", mix={"pi_5": 1.0}), seed=1)
    lost = replace(fleet[0].conditions(ROUND), drops_out_at=share)
    monkeypatch.setattr(VirtualDevice, "conditions", lambda self, number: lost)
    world = VirtualWorld(fleet)
    [spent] = world.spent([answer(fleet[0], None)]).values()
    assert spent.uplink_bytes == 0
    assert spent.radio_j <= radio_j
    assert spent.energy_j - spent.radio_j == pytest.approx(compute_j, abs=0.5)


def test_heat_comes_from_rounds_and_goes_at_rest() -> None:
    fleet = build_fleet(replace(SETTINGS, heat_s=100.0), seed=1)
    world, other = VirtualWorld(fleet), VirtualWorld(fleet)
    world.spent([answer(KEPT[0], PREDICTED)])
    other.restore(json.loads(json.dumps(world.to_json())))
    node = node_of(KEPT[0].number)
    hot = world.moment(node, PREDICTED.time_s).heat_w
    assert 0.0 < hot < 6.0 / 7.0
    for each in (world, other):
        assert each.moment(node, PREDICTED.time_s + 100.0).heat_w == pytest.approx(hot / np.e)
