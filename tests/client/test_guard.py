from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slimfleet.client.guard import BudgetGuard
from slimfleet.client.ledger import Balance, transfer
from slimfleet.client.round import run_round
from slimfleet.compression import Budget, BudgetExceeded, DeviceProfile
from slimfleet.compression.held_out import LocalData
from slimfleet.simulations import FleetSettings, build_fleet
from slimfleet.simulations.ledger import SimulatedLedger

FLEET = build_fleet(FleetSettings(devices=1_000, dropout=0.0), seed=3)
SLOWEST = sorted(FLEET, key=lambda d: d.true_flops_per_s / d.profile.train_flops_per_s)[:20]
WORST_LINKS = sorted(FLEET, key=lambda d: d.true_uplink_bytes_per_s / d.profile.uplink_bytes_per_s)[:20]
STARTUP_S = 0.5
SLOW = {
    "device": SLOWEST[0], "round_number": 1, "step_s": 1.0, "steps": 3.2, "power_w": None, "uplink_bytes": 400,
    "local_steps": 5, "width": 1.0, "nmse": 0.1,
}  # fmt: skip


def spent(energy_j: float, time_s: float) -> Balance:
    return Balance(energy_j=energy_j, radio_j=0.0, time_s=time_s)


def guard(budget: Budget, profile: DeviceProfile, before: Balance) -> BudgetGuard:
    """A nominal step is 1 s and 4 J, the upload 0.1 s and 0.01 J."""
    return BudgetGuard(budget, profile, 1e6, 1_000, before)


def test_no_limit_binds_where_none_is_set(phone):
    assert guard(Budget(), phone, spent(1e9, 1e9)).binding() is None


def test_the_first_step_needs_room_for_a_slow_and_hungry_device(phone):
    assert guard(Budget(energy_j=24.01), phone, spent(0, 0)).binding() is None
    assert guard(Budget(energy_j=24.00), phone, spent(0, 0)).binding() == "energy_j"
    assert guard(Budget(deadline_s=6.4), phone, spent(0, 0)).binding() is None
    assert guard(Budget(deadline_s=6.39), phone, spent(0, 0)).binding() == "deadline_s"


def test_further_steps_are_judged_by_the_dearest_so_far(phone):
    watched = guard(Budget(energy_j=30), phone, spent(0, 0))
    watched.stepped(spent(4, 1))
    watched.stepped(spent(12, 2))
    watched.stepped(spent(16, 3))
    assert watched.binding() is None  # 16 + 1.25 * 8 + 0.01 < 30
    watched.stepped(spent(20.5, 4))
    assert watched.binding() == "energy_j"


def test_pauses_for_mean_power_count_as_time(phone):
    halved = Budget(deadline_s=12.4, power_w=2.0)
    assert guard(halved, phone, spent(0, 0)).binding() is None
    assert guard(replace(halved, deadline_s=12.39), phone, spent(0, 0)).binding() == "deadline_s"


@settings(max_examples=300, deadline=None)
@given(
    device=st.sampled_from([*SLOWEST, *WORST_LINKS, *FLEET[:20]]),
    round_number=st.integers(0, 500),
    step_s=st.floats(0.005, 2),
    limits=st.sampled_from([("energy_j",), ("deadline_s",), ("energy_j", "deadline_s")]),
    steps=st.floats(0.5, 7),
    power_w=st.none() | st.floats(0.3, 10),
    uplink_bytes=st.none() | st.integers(400, 3_000),
    local_steps=st.integers(1, 12),
    width=st.sampled_from([1.0, 0.5]),
    nmse=st.sampled_from([0.0, 0.01, 0.1, 0.6]),
)
@example(**SLOW, limits=("energy_j",))
@example(**SLOW, limits=("deadline_s",))
def test_a_round_keeps_its_budget_whatever_the_device_really_is(
    device, round_number, step_s, limits, steps, power_w, uplink_bytes, local_steps, width, nmse,
    workbench, task, send, no_residual,
):  # fmt: skip
    """Speed, power and rates are the fleet's own draws, far from the profile that the guard knows. Budgets are
    drawn around what so many nominal steps and the transfers take; a nominal step takes `step_s`."""
    true = device.conditions(round_number).applied(device.profile)
    _, payload = send(width=width, nmse=nmse)
    sub = workbench.open(payload)
    speed = sub.work.flops_per_example * 8 / step_s
    profile = replace(device.profile, train_flops_per_s=speed)
    slowness = device.profile.train_flops_per_s / true.train_flops_per_s
    true = replace(true, train_flops_per_s=speed / slowness)
    moved_s, moved_j = transfer(profile, down=len(payload), up=uplink_bytes or 9_000, burst=True)
    energy_j = moved_j + steps * step_s * profile.train_w if "energy_j" in limits else None
    deadline_s = STARTUP_S + moved_s + steps * step_s if "deadline_s" in limits else None
    budget = Budget(energy_j=energy_j, deadline_s=deadline_s, power_w=power_w, uplink_bytes=uplink_bytes)
    assignment, payload = send(budget=budget, local_steps=local_steps, width=width, nmse=nmse)
    ledger = SimulatedLedger(true, power_w, STARTUP_S)
    try:
        received = workbench.open(payload)
        _, report, _ = run_round(
            workbench, profile, LocalData(task.load(0)), assignment, received, no_residual, ledger
        )
    except BudgetExceeded as refusal:
        if getattr(budget, refusal.constraint) is None:
            raise
        return
    assert energy_j is None or report.spent.energy_j <= energy_j
    assert deadline_s is None or report.spent.time_s <= deadline_s
    assert uplink_bytes is None or report.spent.uplink_bytes <= uplink_bytes
    assert report.steps == local_steps or report.stopped_by in ("energy_j", "deadline_s")


def test_the_property_above_sees_rounds_that_end_early(workbench, task, send, phone, no_residual):
    """Plenty of steps under 40 J at 6 J a step and a bit: the round ends when the next might not fit."""
    assignment, payload = send(budget=Budget(energy_j=40), local_steps=100)
    flops = workbench.open(payload).work.flops_per_example * 8
    profile = replace(phone, train_flops_per_s=flops * phone.train_w / 5)  # 5 J a step
    ledger = SimulatedLedger(replace(profile, train_w=4.8), None, STARTUP_S)  # 6 J in truth
    received = workbench.open(payload)
    _, report, _ = run_round(
        workbench, profile, LocalData(task.load(0)), assignment, received, no_residual, ledger
    )
    assert report.stopped_by == "energy_j"
    assert report.steps == 6  # a seventh might take 36.5 + 1.25 * 6
    assert report.spent.energy_j == pytest.approx(36.5, abs=0.1)
