import json
from dataclasses import replace

from pydantic import TypeAdapter

from slimfleet.compression.types import UNKNOWN, Condition, Startup
from slimfleet.coordinator import WallEnvironment
from slimfleet.coordinator.receiving.checks import Norms
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


def test_a_device_is_called_by_its_name_and_only_where_others_share_it_by_its_number(phone):
    registry = Registry()
    registry.register(12255399971893966412, replace(phone, name="attic"), 10)
    registry.register(702986640184851247, phone, 10)
    assert registry.label(12255399971893966412) == "attic"
    registry.register(12255399971893960001, replace(phone, name="attic"), 10)
    assert registry.label(12255399971893966412) == "attic, node …6412"
    assert registry.label(12255399971893960001) == "attic, node …0001"
    assert registry.label(702986640184851247) == phone.name
    assert "99" in registry.label(99)


def test_a_name_from_outside_stays_in_its_line(phone):
    registry = Registry()
    registry.register(1, replace(phone, name="x\n\x1b[31mround 9 of 9"), 10)
    registry.register(2, replace(phone, name=" \n"), 10)
    assert registry.label(1).isprintable()
    assert registry.label(2).isprintable()
    assert "2" in registry.label(2)


def test_a_startup_rises_at_once_and_falls_by_and_by(phone):
    registry = Registry()
    registry.register(1, phone, 10)
    record = registry[1]
    assert record.startup == Startup(time_s=0.5, energy_j=0.0)
    record.learn_startup(Startup(time_s=8.0, energy_j=20.0))
    assert record.startup == Startup(time_s=8.0, energy_j=20.0)
    record.learn_startup(Startup(time_s=2.0, energy_j=10.0), at_least=True)
    assert record.startup == Startup(time_s=8.0, energy_j=20.0)
    record.learn_startup(Startup(time_s=2.0, energy_j=24.0))
    assert record.startup == Startup(time_s=5.0, energy_j=24.0)
    for _ in range(100):
        record.forget_startup()
    assert record.startup.energy_j < 1.0
    registry.register(1, phone, 10, Startup(time_s=3.0, energy_j=9.0))
    assert record.startup == Startup(time_s=3.0, energy_j=9.0)


def test_a_usual_startup_is_learned_without_a_rounding_error(phone):
    """Simulated devices all have it: their plans must not depend on how often it was confirmed."""
    registry = Registry()
    registry.register(1, phone, 10)
    for _ in range(50):
        registry[1].learn_startup(Startup())
        registry[1].forget_startup()
    assert registry[1].startup == Startup()


def test_a_registry_survives_a_checkpoint(phone):
    registry = Registry()
    registry.register(2**63 + 1, phone, 10)
    registry.register(3, replace(phone, battery_j=0.1 + 0.2), 20)
    registry[3].loss, registry[3].acknowledged_round, registry[3].width_sum = 1 / 3, 4, 0.75
    registry[3].hear(Condition(battery=1 / 3, metered=False), 1e9 + 0.1)
    registry[3].norms, registry[3].norms_round = Norms(weights=1 / 3, statistics=0.0), 4
    kind = TypeAdapter(Registry)
    assert kind.validate_python(json.loads(json.dumps(kind.dump_python(registry)))) == registry


def test_the_wall_clock_passes_by_itself(phone):
    now = [5.0]
    world = WallEnvironment(lambda: now[0])
    assert world.now_s() == 5.0
    assert not world.spent([])
    world.restore(world.to_json())
    assert world.to_json() == {}


def test_a_condition_is_unknown_once_it_is_too_old(phone):
    now = [1_000.0]
    world, registry = WallEnvironment(lambda: now[0], max_age_s=60.0), Registry()
    registry.register(7, phone, 100)
    assert world.status(registry[7], 1) == UNKNOWN
    stated = Condition(battery=0.8, charging=False, free_memory_bytes=10**8)
    registry[7].hear(stated, now[0])
    for age_s, found in ((0.0, stated), (60.0, stated), (60.1, UNKNOWN), (-1.0, UNKNOWN)):
        now[0] = 1_000.0 + age_s
        assert world.status(registry[7], 1) == found
