"""Every key of a scenario reaches something: a run with another value of it is another run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from typing import get_type_hints

import pytest
from driven import HERE, PLAIN, SMALL, driven

from slimfleet.compression import Budget
from slimfleet.compression.messages import text_of
from slimfleet.coordinator import Event, Planned
from slimfleet.coordinator.settings import Budgets
from slimfleet.simulations import Scenario, load_scenario
from slimfleet.simulations.scenario import baseline_settings

BLIND_IN_A_RUN = {
    "task.import_from": "test_own_task.py",
    "run.workers": "test_backends.py",
    "run.ray_address": "test_ray_cluster.py",
    "run.attempts": "test_ray_engine.py",
    "run.engine": "test_cohort.py",
    "run.group_size": "test_cohort.py",
    "run.device_timeout_s": "test_backends.py",
    "selection.condition_max_age_s": "test_conditions.py",
    "selection.min_devices": "test_run.py",
}
"""Keys that only where code is imported from, other processes or wall-clock time tell, and the tests that hold them."""

UNEVEN = {"fleet.speed_noise": "1.0", "budget.power_w": "1e-4", "rounds": "4"}
"""Training takes longer than start-up, and on each device another time."""
BUFFERED = UNEVEN | {"pacing.mode": "asynchronous", "pacing.buffer": "3", "pacing.concurrency": "6"}

CHANGES: dict[str, tuple[str, dict[str, str]]] = {
    "name": ('"other"', {}),
    "rounds": ("3", {}),
    "seed": ("1", {}),
    "evaluate_every": ("2", {}),
    "task.name": ('"points:Points"', {"task.name": "digits", "fleet.devices": "8"}),
    "task.alpha": ("0.05", {}),
    "task.partitions": ("2", {}),
    "task.options": ("{spread = 0.6}", {}),
    "fleet.devices": ("13", {}),
    "fleet.mix": ("{pi_5 = 1}", {}),
    "fleet.availability": ("0.4", {}),
    "fleet.dropout": ("0.5", {}),
    "fleet.speed_noise": ("0.5", {}),
    "fleet.power_noise": ("0.5", {}),
    "fleet.network_spread": ("1.0", {}),
    "fleet.network_noise": ("1.0", {}),
    "fleet.start_charge": ("[0.1, 0.15]", {}),
    "fleet.capacity": ('"fedscale-like"', {}),
    "fleet.presence": ('"fedscale-like"', {}),
    "fleet.dropout_phase": ('"any"', {"fleet.dropout": "0.5"}),
    "fleet.heat_s": ("1e-6", {"fleet.speed_noise": "1.0", "fleet.mix": "{phone_flagship_a18pro = 1}"}),
    "fleet.network_evening": ("0.9", {}),
    "fleet.faults": ("{late = 0.5}", {}),
    "fleet.metered": ("{phone-mid = 0.5}", {"fleet.policy.unmetered_only": "true"}),
    "fleet.temperature_c": ("{phone-mid = [20.0, 45.0]}", {"fleet.policy.warmest_c": "40.0"}),
    "fleet.free_memory": ("{phone-mid = [0.02, 0.5]}", {"client.runtime": "torch"}),
    "fleet.policy.battery_floor": ("0.7", {}),
    "fleet.policy.charging_only": ("true", {}),
    "fleet.policy.unmetered_only": ("true", {}),
    "fleet.policy.warmest_c": ("40.0", {}),
    "fleet.policy.quiet_hours": ('["00:00-00:01"]', {}),
    "fleet.policy.least_free_memory_bytes": ("1_000_000", {}),
    "run.baseline_rounds": ("7", {}),
    "round_timeout_s": ("0.6", UNEVEN),
    "pacing.mode": ('"asynchronous"', {"pacing.buffer": "3", "pacing.concurrency": "6"}),
    "pacing.surplus": ("2", {}),
    "pacing.deadline": (
        '"predicted"',
        UNEVEN | {"pacing.deadline_quantile": "0.2", "pacing.deadline_factor": "1.0"},
    ),
    "pacing.deadline_quantile": ("0.2", UNEVEN | {"pacing.deadline": "predicted"}),
    "pacing.deadline_factor": ("1.0", UNEVEN | {"pacing.deadline": "predicted"}),
    "pacing.least_updates": ("6", {"fleet.dropout": "0.4"}),
    "pacing.buffer": ("2", BUFFERED),
    "pacing.concurrency": ("5", BUFFERED),
    "pacing.staleness": ('"none"', BUFFERED),
    "pacing.staleness_exponent": ("2.0", BUFFERED),
    "pacing.largest_staleness": ("0", BUFFERED),
    "selection.policy": ('"uniform"', {}),
    "selection.pool": ("7", {}),
    "selection.per_round": ("5", {}),
    "selection.energy_exponent": ("3.0", {"rounds": "3"}),
    "selection.utility_exponent": ("8.0", {}),
    "selection.battery_floor": ("0.9", {}),
    "selection.condition_factor": ("1000.0", {"fleet.metered": "{phone-mid = 0.5}"}),
    "selection.policy_pause_s": ("0.0", {"fleet.policy.battery_floor": "0.7"}),
    "selection.reputation": ("false", {"fleet.faults": "{truncated = 0.5}"}),
    "budget.energy_j": ("0.8", {}),
    "budget.power_w": ("0.2", {}),
    "budget.memory_bytes": ("44_900_000", {"client.runtime": "lite"}),
    "budget.deadline_s": ("0.55", {}),
    "budget.uplink_bytes": ("90", {}),
    "budget.downlink_bytes": ("400", {}),
    "planner.policy": ('"fixed"', {}),
    "planner.widths": ("[0.5]", {}),
    "planner.window": ('"rolling"', {"planner.widths": "[0.5]"}),
    "planner.local_steps": ("[2]", {}),
    "planner.max_epochs": ("3.0", {}),
    "planner.batch_sizes": ("[4]", {}),
    "planner.nmse": ("[0.5]", {}),
    "planner.width_exponent": ("0.0", {"planner.energy_exponent": "2.0"}),
    "planner.quality_exponent": ("4.0", {}),
    "planner.energy_exponent": ("6.0", {}),
    "planner.uplink_exponent": ("4.0", {}),
    "planner.margin": ("5.0", {"budget.deadline_s": "1.0"}),
    "planner.safety": ("9.0", {"budget.deadline_s": "1.0"}),
    "client.learning_rate": ("0.2", {}),
    "client.learning_rate_decay": ("0.5", {}),
    "client.momentum": ("0.0", {}),
    "client.proximal": ("1.0", {}),
    "client.runtime": ('"lite"', {"budget.memory_bytes": "100_000_000"}),
    "codec.preset": ('"fast"', {}),
    "codec.rounding": ('"stochastic"', {}),
    "codec.feedback": ("false", {}),
    "codec.feedback_decay": ("0.0", {"selection.per_round": "3", "rounds": "6"}),
    "codec.feedback_max_age": ("0", {}),
    "codec.feedback_max_norm": ("0.01", {"planner.nmse": "[0.5]"}),
    "codec.downlink_bits": ("3", {}),
    "codec.downlink_history": ("0", {}),
    "server.optimizer": ('"fedadam"', {}),
    "server.learning_rate": ("0.5", {}),
    "server.momentum": ("0.5", {}),
    "server.averaging": ("0.9", {}),
    "server.absent_weight": ("1.0", {"budget.class.phone-mid.downlink_bytes": "600"}),
    "server.max_update_norm": ("0.05", {}),
    "server.aggregation": ('"median"', {}),
    "server.trim": ("0.4", {"server.aggregation": '"trimmed"'}),
    "server.fleet_bounds": ("false", {}),
    "server.largest_share": ("0.0", {}),
    "server.clip_quantile": ("0.3", {}),
    "evaluation.on_devices": ("0.3", {}),
    "evaluation.energy_share": ("0.0", {"evaluation.on_devices": "0.3"}),
}
"""Key -> another value, and what a scenario must have for it to matter."""

LIMITS = [field.name for field in fields(Budget)]


def keys_of(kind: type, table: str = "") -> Iterator[str]:
    """The dotted keys of the values that a file may give, as the dataclasses say."""
    for name, hint in get_type_hints(kind).items():
        key = f"{table}{name}"
        if hint is Budgets:
            yield from (f"{key}.{limit}" for limit in LIMITS)
        elif is_dataclass(hint):
            yield from keys_of(hint, "" if name == "coordinator" else f"{key}.")
        else:
            yield key


KEYS = [*keys_of(Scenario), *(f"budget.class.phone-mid.{limit}" for limit in LIMITS)]


@cache
def trace_of(**overrides: str) -> str:
    """All that a run of two rounds shows: what devices were told to do, the rounds, the devices and the model."""
    scenario, told = load_scenario(str(PLAIN), {**SMALL, "rounds": "2", **overrides}), []

    def tell(event: Event) -> None:
        if isinstance(event, Planned):
            told.extend(text_of(dispatch.assignment) for dispatch in event.dispatches)

    coordinator = driven(scenario, observers=[tell])
    state = coordinator.state
    rows = [asdict(replace(row, wall_time_s=0.0)) for row in state.rows]
    devices = [asdict(record) for record in state.registry]
    model = {name: array.tobytes().hex() for name, array in coordinator.published().items()}
    settings = [scenario.coordinator.name, baseline_settings(scenario).rounds]
    return json.dumps([settings, told, rows, devices, model])


@pytest.mark.parametrize("key", [key for key in KEYS if key not in BLIND_IN_A_RUN])
def test_a_change_of_it_changes_the_run(key: str) -> None:
    value, around = CHANGES[key.replace(".class.phone-mid", "")]
    if trace_of(**around) == trace_of(**{**around, key: value}):
        pytest.fail(f"{key} reaches nothing")


def test_nothing_that_stays_the_same_changes_the_run() -> None:
    assert trace_of() == trace_of(**{"fleet.dropout": "0.00"})


def test_keys_that_a_run_does_not_show_are_named_with_their_test() -> None:
    assert set(BLIND_IN_A_RUN) <= set(KEYS)
    tests = {path.name for path in HERE.parent.rglob("test_*.py")}
    assert set(BLIND_IN_A_RUN.values()) <= tests
