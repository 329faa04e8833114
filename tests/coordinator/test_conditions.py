"""What devices state of their condition: it is planned with, and neither believed for ever nor taken for more than
it is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from slimfleet.compression import Condition, Cost
from slimfleet.compression.messages import Spent
from slimfleet.compression.types import UNKNOWN, Startup
from slimfleet.coordinator import WallEnvironment
from slimfleet.coordinator.observing.prometheus.exporter import FleetMetrics
from slimfleet.coordinator.planning.assigning import MEMORY_SHARE
from slimfleet.coordinator.planning.selection import ORDERS
from slimfleet.coordinator.transport.flower import deployed

NOTHING = Cost(energy_j=0.5, radio_j=0.5, time_s=1.0, memory_bytes=0, uplink_bytes=0, downlink_bytes=9)


def refusal_of(condition: Condition) -> Spent:
    return Spent(cost=NOTHING, startup=Startup(), condition=condition)


def test_a_battery_of_unknown_charge_is_not_taken_for_full(federate, phone):
    """It is half-way between the floor and full: paced like one, and not left out."""
    federation = federate(
        profiles={node: replace(phone, battery_j=100.0) for node in (11, 12, 13)},
        selection={"battery_floor": 0.2},
    )
    federation.world.statuses |= {11: UNKNOWN, 12: Condition(battery=0.6), 13: Condition(charging=None)}
    limits = {d.node: d.limits.energy_j for d in federation.plan().dispatches}
    assert limits[11] == limits[12] == limits[13] == pytest.approx(0.4 * 100 / 30)
    assert limits[14] is None  # on mains


def test_selection_weighs_a_battery_of_unknown_charge_like_one_half_way(federate, phone, monkeypatch):
    seen = {}

    def order(candidates, settings, rng):
        seen.update({each.node: each for each in candidates.one_by_one()})
        return ORDERS["uniform"](candidates, settings, rng)

    monkeypatch.setitem(ORDERS, "utility", order)
    federation = federate(
        profiles={node: replace(phone, battery_j=1e6) for node in (11, 12, 13)},
        selection={"battery_floor": 0.5},
    )
    federation.world.statuses |= {12: Condition(battery=0.9, charging=True), 13: Condition(charging=None)}
    federation.world.statuses[14] = Condition(metered=True, temperature_c=71.0)
    federation.plan()
    charges = {node: (each.battery, each.charging) for node, each in seen.items()}
    assert charges == {11: (0.75, False), 12: (0.9, True), 13: (0.75, False), 14: (None, False)}
    assert (seen[14].metered, seen[14].temperature_c) == (True, 71.0)
    assert (seen[11].metered, seen[11].temperature_c) == (None, None)


def test_free_memory_limits_the_plan_where_it_is_known(federate, phone):
    federation = federate()
    free = int(0.05 * phone.ram_bytes)
    federation.world.statuses |= {
        11: Condition(free_memory_bytes=free),
        12: Condition(free_memory_bytes=2**40),
    }
    limits = {d.node: d.limits.memory_bytes for d in federation.plan().dispatches}
    ram = int(MEMORY_SHARE * phone.ram_bytes)
    assert limits == {11: free, 12: ram, 13: ram, 14: ram}


def test_a_device_that_has_no_memory_free_is_skipped_for_it(federate):
    federation = federate()
    federation.world.statuses[11] = Condition(free_memory_bytes=0)
    planned = federation.plan()
    assert planned.skipped[11].constraint == "memory_bytes"
    assert {d.node for d in planned.dispatches} == {12, 13, 14}


def test_a_deployment_plans_with_what_devices_stated_last(federate, phone):
    federation, now = federate(selection={"battery_floor": 0.2}), [1_000.0]
    federation.coordinator.environment = WallEnvironment(lambda: now[0], max_age_s=600.0)
    dispatch = next(d for d in federation.plan().dispatches if d.node == 11)
    payload, text = federation.answer(dispatch)
    report = json.loads(text) | {"condition": {"battery": 0.1, "charging": False}}
    assert federation.receive(dispatch, payload, json.dumps(report)).verdict == "accepted"
    federation.step()
    assert federation.state.registry[11].stated == Condition(battery=0.1, charging=False)
    now[0] += 600.0
    assert federation.plan().skipped[11].reason == "battery: charged to 10%, the floor is 20%"
    federation.step()
    now[0] += 1.0  # too old: unknown
    assert 11 in {d.node for d in federation.plan().dispatches}


@pytest.mark.parametrize(
    "condition",
    [
        {"battery": 1.1},
        {"battery": -0.1},
        {"battery": "full"},
        {"charging": 1},
        {"metered": "no"},
        {"temperature_c": 1e9},
        {"free_memory_bytes": -1},
        {"free_memory_bytes": 1.5},
        {"mood": "fine"},
        "fine",
        None,
    ],
)
def test_an_impossible_condition_is_refused_and_nothing_is_learned(federate, condition):
    federation = federate()
    dispatch = federation.plan().dispatches[0]
    payload, text = federation.answer(dispatch)
    answer = federation.receive(dispatch, payload, json.dumps(json.loads(text) | {"condition": condition}))
    assert (answer.verdict, answer.reason) == ("rejected", "message")
    assert federation.state.registry[dispatch.node].stated == UNKNOWN


def test_the_report_of_an_older_device_states_no_condition(federate):
    federation = federate()
    dispatch = federation.plan().dispatches[0]
    payload, text = federation.answer(dispatch)
    assert "condition" not in json.loads(text)
    assert federation.receive(dispatch, payload, text).verdict == "accepted"


def test_a_refusal_is_counted_by_its_reason_and_the_device_is_left_in_peace_for_a_while(federate):
    metrics = CollectorRegistry()
    federation = federate(
        observers=[FleetMetrics(metrics, "test")], selection={"policy_pause_s": 100.0, "reputation": False}
    )
    dispatches = {d.node: d for d in federation.plan().dispatches}
    stated = Condition(battery=0.9, charging=False)
    federation.coordinator.fail(
        dispatches[11].plan_id, "not_charging", "by its own policy: ...", refusal_of(stated)
    )
    for node in (12, 13, 14):
        federation.work(dispatches[node])
    row = federation.step().row  # a minute later
    assert (row.failed, row.completed) == (1, 3)
    assert federation.state.totals.failed == {"not_charging": 1}
    assert federation.state.registry[11].stated == stated
    labels = {"federation": "test", "reason": "not_charging"}
    assert metrics.get_sample_value("slimfleet_policy_refusals_total", labels) == 1.0
    outcome = {"federation": "test", "device_class": "phone-mid", "outcome": "refused"}
    assert metrics.get_sample_value("slimfleet_client_tasks_total", outcome) == 1.0

    planned = federation.plan()
    assert list(planned.skipped) == [11]
    assert planned.skipped[11].reason == "policy: its own forbade a round 60 s ago, it is asked after 100 s"
    for dispatch in planned.dispatches:
        federation.work(dispatch)
    federation.step()
    assert 11 not in federation.plan().skipped


def test_the_age_limit_of_a_deployment_is_that_of_its_settings(federate, tmp_path, monkeypatch):
    from slimfleet.simulations.grids.flower import context_of

    class Seen(Exception):
        pass

    def look(coordinator, *_):
        record = federate().state.registry[11]
        now_s = coordinator.environment.now_s()
        found = []
        for age_s in (30.0, 60.0):
            record.hear(Condition(metered=True), now_s - age_s)
            conditions = coordinator.environment.conditions({11: record}, np.array([11], np.uint64), 1)
            found.append(conditions[0] == Condition(metered=True))
        raise Seen(*found)

    monkeypatch.setattr(deployed, "drive", look)
    settings = tmp_path / "federation.toml"
    settings.write_text("[selection]\ncondition_max_age_s = 45\n")
    context = context_of(1, {})
    context.run_config = {
        "task.name": "digits",
        "server.settings": str(settings),
        "server.out": str(tmp_path / "out"),
    }
    with pytest.raises(Seen) as seen:
        deployed.deployed_server_app(beside=tmp_path)(grid=None, context=context)
    assert seen.value.args == (True, False)
