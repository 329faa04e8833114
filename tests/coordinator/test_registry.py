import json
from dataclasses import replace

from pydantic import TypeAdapter

from slimfleet.coordinator import Status, WallEnvironment
from slimfleet.coordinator.registry import Registry


def test_a_device_enrols_once_and_may_come_back_changed(phone):
    registry = Registry()
    registry.register(7, phone, 100)
    registry[7].energy_j = 5.0
    registry.register(7, replace(phone, name="repaired"), 120)
    assert (registry[7].profile.name, registry[7].examples, registry[7].energy_j) == ("repaired", 120, 5.0)
    assert registry.missing([6, 7, 8]) == [6, 8]
    assert 7 in registry
    assert len(registry) == 1


def test_devices_come_in_order_of_node(phone):
    registry = Registry()
    for node in (9, 2**63, 1):
        registry.register(node, phone, 10)
    assert [record.node for record in registry] == [1, 9, 2**63]


def test_a_registry_survives_a_checkpoint(phone):
    registry = Registry()
    registry.register(2**63 + 1, phone, 10)
    registry.register(3, replace(phone, battery_j=0.1 + 0.2), 20)
    registry[3].loss, registry[3].acknowledged_round, registry[3].width_sum = 1 / 3, 4, 0.75
    kind = TypeAdapter(Registry)
    assert kind.validate_python(json.loads(json.dumps(kind.dump_python(registry)))) == registry


def test_the_wall_clock_passes_by_itself(phone):
    now = [5.0]
    world = WallEnvironment(lambda: now[0])
    assert world.now_s() == 5.0
    assert world.status(1, 1) == Status(battery=None, charging=False)
    assert not world.advance(5.0, [], 1)
    world.restore(world.to_json())
    assert world.to_json() == {}
