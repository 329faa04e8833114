from dataclasses import replace

import numpy as np
import pytest

from slimfleet.compression.cost import RUNTIMES, CostModel, Demand, Figures, Runtime, Work, peak_memory_bytes
from slimfleet.compression.types import DeviceProfile, Plan

DEVICE = DeviceProfile(
    name="phone",
    device_class="phone-mid",
    ram_bytes=4_000_000_000,
    train_flops_per_s=2e9,
    idle_w=0.3,
    train_w=4.0,
    uplink_bytes_per_s=1e6,
    downlink_bytes_per_s=2e6,
    radio_j_per_byte_up=1e-6,
    radio_j_per_byte_down=0.5e-6,
    radio_j_per_burst=0.5,
)
WORK = Work(1e7, activation_bytes_per_example=1e5, parameter_bytes=400_000, parameters=100_000)
PLAN = Plan(width=1.0, local_steps=20, batch_size=10, nmse=0.1)
MODEL = CostModel(
    Runtime("test", base_bytes=50_000_000, fixed_bytes=1_000_000, activation_factor=3.0), startup_s=0.5
)


def test_formulae_in_plain_numbers() -> None:
    cost = MODEL.predict(DEVICE, PLAN, WORK, uplink_bytes=50_000, downlink_bytes=400_000)
    # 20 steps of 10 examples of 10 MFLOP at 2 GFLOP/s: 1 s, at 4 W.
    assert cost.time_s == pytest.approx(0.5 + 1.0 + 0.05 + 0.2)
    assert cost.radio_j == pytest.approx(0.5 + 0.05 + 0.2)
    assert cost.energy_j == pytest.approx(4.0 + 0.75)
    assert cost.memory_bytes == 50_000_000 + 3 * 400_000 + 1_000_000 + 3 * 1_000_000
    assert (cost.uplink_bytes, cost.downlink_bytes) == (50_000, 400_000)


def test_a_power_limit_stretches_time_and_leaves_energy() -> None:
    free = MODEL.predict(DEVICE, PLAN, WORK, 0, 0)
    held = MODEL.predict(DEVICE, PLAN, WORK, 0, 0, power_w=1.0)
    assert held.time_s == pytest.approx(0.5 + 4.0)
    assert held.energy_j == free.energy_j
    assert MODEL.predict(DEVICE, PLAN, WORK, 0, 0, power_w=5.0) == free


def test_arrays_and_single_plans_agree_exactly() -> None:
    plans = [replace(PLAN, local_steps=steps, batch_size=batch) for steps in (1, 7) for batch in (8, 32)]
    demands = [Demand.of(plan, WORK, 1000.0 * i, 5000.0) for i, plan in enumerate(plans)]
    columns = Demand(*(np.array([getattr(d, name) for d in demands]) for name in Demand.__slots__))
    together = MODEL.costs(DEVICE, columns, power_w=1.5)
    for i, plan in enumerate(plans):
        alone = MODEL.predict(DEVICE, plan, WORK, 1000.0 * i, 5000.0, power_w=1.5)
        assert alone.time_s == together.time_s[i]
        assert alone.energy_j == together.energy_j[i]
        assert alone.memory_bytes == together.memory_bytes[i]


def test_peak_memory_is_that_of_the_prediction() -> None:
    for runtime in RUNTIMES.values():
        cost = replace(MODEL, runtime=runtime).predict(DEVICE, PLAN, WORK, 0, 0)
        assert peak_memory_bytes(runtime, WORK, PLAN.batch_size) == cost.memory_bytes


MEASURED = replace(
    DEVICE, runtime_base_bytes=20_000_000, runtime_fixed_bytes=0, runtime_activation_factor=2.0
)


def test_memory_is_that_of_the_runtime_as_the_device_measured_it() -> None:
    cost = MODEL.predict(MEASURED, PLAN, WORK, 0, 0)
    assert cost.memory_bytes == 20_000_000 + 3 * 400_000 + 2 * 1_000_000
    assert peak_memory_bytes(MODEL.runtime.on(MEASURED), WORK, PLAN.batch_size) == cost.memory_bytes
    assert MODEL.runtime.on(DEVICE) == MODEL.runtime
    # What a device does not state is the runtime's own.
    base = replace(DEVICE, runtime_base_bytes=20_000_000)
    assert (
        MODEL.predict(base, PLAN, WORK, 0, 0).memory_bytes == 20_000_000 + 1_000_000 + 1_200_000 + 3_000_000
    )


def test_devices_that_measured_their_runtime_and_those_that_did_not_are_weighed_together() -> None:
    devices = [DEVICE, MEASURED, replace(DEVICE, runtime_activation_factor=1.5)]
    demand = Demand.of(PLAN, WORK, 0, 0)
    together = MODEL.costs(Figures.of(devices), demand)
    alone = [MODEL.predict(each, PLAN, WORK, 0, 0).memory_bytes for each in devices]
    assert together.memory_bytes.ravel().tolist() == alone
    assert MODEL.costs(Figures.of([DEVICE, DEVICE]), demand).memory_bytes.size == 1


def test_the_torch_runtime_covers_measured_peaks() -> None:
    # Measured peaks of the CNN of docs/cost-model.md at full width, batch 32 and 128.
    work = Work(16_837_408, activation_bytes_per_example=135_120, parameter_bytes=406_728, parameters=101_682)
    for batch, peak in ((32, 345_000_000), (128, 378_000_000)):
        assert peak <= peak_memory_bytes(RUNTIMES["torch"], work, batch) <= 1.1 * peak
