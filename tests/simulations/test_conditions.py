"""Conditions of virtual devices: equal traces give equal plans simulated and deployed; one policy drives both."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slimfleet.client.device import Participant
from slimfleet.compression import BadInput, Budget, PolicyRefusal
from slimfleet.compression.errors import POLICY_REASONS
from slimfleet.compression.messages import text_of
from slimfleet.coordinator import Coordinator, Planned, WallEnvironment
from slimfleet.simulations import InProcess, Scenario, load_scenario, simulate
from slimfleet.simulations.battery import PLUGGED_S
from slimfleet.simulations.fleet import BEGIN, Moment
from slimfleet.simulations.population import build_fleet
from slimfleet.simulations.scenario import build_task_of
from slimfleet.simulations.settings import FleetSettings
from slimfleet.simulations.virtual_devices import VirtualDevices

HERE = Path(__file__).parent
SMALL = {
    "rounds": "3",
    "task.name": "points:Points",
    "task.import_from": json.dumps([str(HERE)]),
    "fleet.devices": "12",
    "fleet.dropout": "0.0",
    "fleet.start_charge": "[0.1, 0.7]",
    "selection.per_round": "6",
    "planner.widths": "[1.0, 0.5]",
    "planner.local_steps": "[4, 1]",
    "planner.batch_sizes": "[8]",
    "planner.nmse": "[0.1]",
}


def scenario_of(**overrides: str) -> Scenario:
    return load_scenario(str(HERE / "plain.toml"), {**SMALL, **overrides})


def shown(planned: Planned) -> object:
    """What a plan gives to which device, and what it says of the others."""
    work = {dispatch.node: text_of(dispatch.assignment) for dispatch in planned.dispatches}
    return work, planned.skipped, [dispatch.payload for dispatch in planned.dispatches]


def test_equal_traces_give_equal_plans_simulated_and_deployed() -> None:
    """The deployed coordinator only hears what devices state; the simulated one knows their world."""
    scenario = scenario_of(
        **{
            "fleet.free_memory": "{phone-low = [0.05, 0.2], phone-mid = [0.01, 0.3]}",
            "fleet.policy.battery_floor": "0.3",
            "selection.policy_pause_s": "100.0",
        }
    )
    simulated = InProcess.of(scenario)
    world = simulated.coordinator.environment
    deployed = Coordinator(build_task_of(scenario), scenario.coordinator, WallEnvironment(world.now_s))
    registry = deployed.state.registry
    for node, device in simulated.devices.items():
        said = device.registration()
        registry.register(node, said.profile, said.examples)
    reasons: set[str] = set()
    for number in range(1, scenario.coordinator.rounds + 1):
        reached = []
        for record in registry:
            condition = world.conditions(registry, np.array([record.node], np.uint64), number)[0]
            if condition is not None:
                refused = record.refused_at_s
                record.hear(condition, world.now_s())
                record.refused_at_s = refused  # a heartbeat is no round
                reached.append(record.node)
        planned = simulated.plan()
        twins = deployed.plan(world.now_s(), scenario.coordinator.selection.per_round, reached)
        assert shown(planned) == shown(twins)
        for dispatch, twin in zip(planned.dispatches, twins.dispatches, strict=True):
            device = simulated.devices[dispatch.node]
            try:
                payload, report = device.do_round(dispatch.assignment, dispatch.payload)
            except PolicyRefusal as refusal:
                reasons.add(refusal.reason)
                for each, plan_id in ((simulated.coordinator, dispatch.plan_id), (deployed, twin.plan_id)):
                    each.fail(plan_id, refusal.reason, str(refusal), refusal.spent)
            else:
                for each, plan_id in ((simulated.coordinator, dispatch.plan_id), (deployed, twin.plan_id)):
                    each.receive(plan_id, payload, text_of(report))
        reasons |= {skip.constraint for skip in planned.skipped.values()}
        deployed.step()
        simulated.step()
    assert reasons >= {"battery_low", "battery", "policy"}


def test_a_fleet_keeps_to_its_policy_in_every_harness(tmp_path: Path) -> None:
    """Reasons are counted, and the answer does not depend on how the devices are reached."""
    scenario = scenario_of(
        **{"fleet.policy.charging_only": "true", "selection.policy_pause_s": "0.0", "rounds": "2"}
    )
    federation = InProcess.of(scenario)
    for _ in range(scenario.coordinator.rounds):
        for dispatch in federation.plan().dispatches:
            answer = federation.work(dispatch)
            virtual = build_fleet(scenario.fleet, 0)[dispatch.node - 1]
            if virtual.battery is not None and answer.verdict == "accepted":
                assert answer.condition is not None
                assert answer.condition.charging
        federation.step()
    totals = federation.coordinator.state.totals
    assert set(totals.failed) == {"not_charging"}
    record, _ = simulate(scenario, tmp_path / "out")
    assert record.failed == totals.failed
    assert [row.energy_j for row in record.rows] == [
        row.energy_j for row in federation.coordinator.state.rows
    ]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["failed"] == totals.failed
    assert "the device&#x27;s own policy" in (tmp_path / "out" / "report.html").read_text()


def test_a_virtual_device_that_is_unplugged_stops_within_a_step() -> None:
    scenario = scenario_of(**{"fleet.policy.charging_only": "true", "fleet.start_charge": "[0.8, 0.9]"})
    fleet, devices = build_fleet(scenario.fleet, 0), VirtualDevices(scenario, None)
    dispatches = InProcess.of(scenario).plan().dispatches
    dispatch, battery = next(
        (each, b) for each in dispatches if (b := fleet[each.node - 1].battery) is not None
    )
    plan = replace(dispatch.assignment.plan, local_steps=100)
    slow = replace(dispatch.assignment, plan=plan, budget=Budget(power_w=0.0001))
    end_s = battery.charger.from_s + PLUGGED_S

    def unplugged_after(seconds: float) -> Participant:
        return devices.device(dispatch.node - 1, lambda: Moment(end_s - seconds, battery.charge_j))

    _, report = unplugged_after(3_600.0).do_round(slow, dispatch.payload)
    assert report.condition.charging
    whole_s = report.spent.time_s
    with pytest.raises(PolicyRefusal) as refused:
        unplugged_after(whole_s / 2).do_round(slow, dispatch.payload)
    assert refused.value.reason == "not_charging"
    spent = refused.value.spent
    assert spent is not None
    assert whole_s / 2 <= spent.cost.time_s <= whole_s * 0.52
    assert spent.condition.charging is False


def test_quiet_hours_are_those_of_the_virtual_day() -> None:
    assert BEGIN.clock_time(0.0).hour == 0
    assert Moment(now_s=86_400.0 * 3 + 3_600.0 * 22).clock_time(3_600.0).hour == 23


def test_senses_that_nobody_describes_are_unknown_and_a_device_on_mains_is_not_asked_for_its_battery() -> (
    None
):
    settings = FleetSettings(devices=60, temperature_c={"phone-low": (20.0, 30.0)}, metered={"sbc-low": 1.0})
    for device in build_fleet(replace(settings, policy=replace(settings.policy, battery_floor=0.5)), seed=1):
        condition = device.condition(1, BEGIN)
        is_low = device.profile.device_class == "phone-low"
        assert (condition.temperature_c is not None) == is_low
        assert condition.metered is (True if device.profile.device_class == "sbc-low" else None)
        assert condition.free_memory_bytes is None
        assert (condition.battery is None) == (device.profile.battery_j is None)
        assert device.policy.battery_floor == (0.0 if device.battery is None else 0.5)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("fleet.metered", "{phone-mad = 0.5}", ["'phone-mad'", "phone-mid"]),
        ("fleet.temperature_c", "{phone-mid = [40, 20]}", ["temperature_c.phone-mid", "must not fall"]),
        ("fleet.free_memory", "{phone-mid = [0.5, 1.5]}", ["1.5"]),
        ("fleet.policy.quiet_hours", '["late"]', ['"late"', '"22:00-07:00"']),
        ("fleet.policy.batery_floor", "0.5", ["fleet.policy.battery_floor"]),
    ],
)
def test_what_is_wrong_with_the_conditions_of_a_fleet_is_named(
    key: str, value: str, words: list[str]
) -> None:
    with pytest.raises(BadInput) as refused:
        scenario_of(**{key: value})
    for word in words:
        assert word in str(refused.value)


def test_a_scenario_with_a_policy_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    for given in ({}, {"fleet.policy.warmest_c": "45.5", "fleet.policy.quiet_hours": '["22:00-07:00"]'}):
        scenario = scenario_of(**given)
        path = tmp_path / "plain.toml"
        path.write_text(scenario.to_toml())
        assert load_scenario(str(path)) == scenario


def test_every_reason_of_a_policy_is_explained() -> None:
    from slimfleet.coordinator.reporting.words import explain

    assert all(explain(reason) for reason in (*POLICY_REASONS, "policy"))
