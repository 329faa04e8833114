import json
from dataclasses import replace

import numpy as np
import pytest

from slimfleet.compression.types import UNKNOWN, Condition, Startup
from slimfleet.coordinator import WallEnvironment
from slimfleet.coordinator.receiving.checks import Norms
from slimfleet.coordinator.record import DeviceRecord
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.state_text import RECORDS


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
    other = Registry()
    other.restore(RECORDS.validate_python(json.loads(json.dumps(RECORDS.dump_python(list(registry))))), {})
    assert list(other) == list(registry)
    assert len(other) == 2


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
    assert world.conditions(registry, registry.columns.node, 1)[0] == UNKNOWN
    stated = Condition(battery=0.8, charging=False, free_memory_bytes=10**8)
    registry[7].hear(stated, now[0])
    for age_s, found in ((0.0, stated), (60.0, stated), (60.1, UNKNOWN), (-1.0, UNKNOWN)):
        now[0] = 1_000.0 + age_s
        assert world.conditions(registry, registry.columns.node, 1)[0] == found


def enrolled(phone, devices=6):
    registry = Registry()
    profiles = [phone, replace(phone, name="board", device_class="sbc-low", battery_j=None)]
    registry.enrol(5, profiles, np.arange(devices) % 2, np.arange(devices) + 10)
    return registry


def test_an_enrolled_device_has_no_record_until_it_is_taken(phone):
    registry = enrolled(phone)
    assert (len(registry), list(registry)) == (6, [])
    assert (5 in registry, 4 in registry, 11 in registry) == (True, False, False)
    assert registry.missing([4, 5, 10, 11]) == [4, 11]
    assert registry.missing(range(5, 11)) == []
    assert registry.class_counts() == {"phone-mid": 3, "sbc-low": 3}
    assert registry.profile(6).name == "board"
    assert list(registry) == []
    record = registry[8]
    assert (record.profile.name, record.examples) == ("board", 13)
    record.examples, record.loss = 99, 0.5
    assert [each.node for each in registry] == [8]
    assert registry.columns.examples.tolist() == [10, 11, 12, 99, 14, 15]
    assert registry.columns.loss[3] == 0.5
    with pytest.raises(KeyError):
        registry[11]
    with pytest.raises(ValueError, match="has 6 devices"):
        registry.enrol(1, [phone], np.zeros(1, np.int64), np.ones(1, np.int64))


def test_rounds_that_leave_a_device_out_come_to_its_record_when_there_is_one(phone):
    registry, plain = enrolled(phone), DeviceRecord(node=6, profile=phone, examples=1)
    low = np.array([6, 8], np.uint64)
    for charge in (0.15, 0.125):
        registry.columns.leave_out(registry.columns.row_of(low), np.full(2, charge), 0.2)
        registry.count_skips({}, low)
    kept, other = registry.arrays(), enrolled(phone)
    other.restore(list(registry), {name: array.copy() for name, array in kept.items()})
    for each in (registry, other):
        record = each[6]
        assert (record.skips, record.last_reason) == (2, "battery: charged to 12%, the floor is 20%")
        assert each[6].skips == 2
        assert each[5].skips == 0
    registry[8].learn_startup(Startup(time_s=100.0))
    plain.learn_startup(Startup(time_s=100.0))
    registry.count_skips({}, low)
    plain.forget_startup()
    assert registry[8].startup == plain.startup
    assert registry[8].last_reason.startswith("battery")


def test_a_checkpoint_of_another_fleet_is_told_apart(phone):
    assert enrolled(phone).fingerprint == enrolled(phone).fingerprint != enrolled(phone, 7).fingerprint
    other = enrolled(replace(phone, train_w=1.0))
    assert other.fingerprint != enrolled(phone).fingerprint
    assert Registry().fingerprint == ""
    with pytest.raises(ValueError, match="skips"):
        enrolled(phone).restore([], {"skips": np.zeros(7, np.int32)})


def test_devices_that_come_late_take_their_place_in_the_order(phone):
    registry = Registry()
    for node in (9, 2**63, 4):
        registry.register(node, phone, node % 100)
    assert registry.columns.node.tolist() == [4, 9, 2**63]
    registry.register(6, replace(phone, name="late"), 7)
    assert registry.columns.node.tolist() == [4, 6, 9, 2**63]
    assert registry.columns.examples.tolist() == [4, 7, 9, 2**63 % 100]
    assert registry.registered([9, 6, 5, 6]).tolist() == [6, 9]
