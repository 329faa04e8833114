"""From a scenario to the settings of each part: the only place that knows both."""

from __future__ import annotations

from slimfleet.client.tasks import TASKS
from slimfleet.compression import Task, Training
from slimfleet.compression.edge.import_path import make_importable
from slimfleet.compression.edge.task_loader import load_task
from slimfleet.coordinator.learning.server_optimizer import ServerSettings
from slimfleet.coordinator.planning import PlannerSettings
from slimfleet.coordinator.planning.selection import SelectionSettings
from slimfleet.coordinator.settings import CoordinatorSettings
from slimfleet.simulations.fleet import DEFAULT_MIX, FleetSettings
from slimfleet.simulations.settings import Scenario

LARGEST_NORM = 1e3
"""Bound on an update's norm where the scenario sets none: no honest update of a normalised model comes near."""


def task_of(scenario: Scenario) -> Task:
    """The task, its examples spread over the fleet; called in every process that trains."""
    section = scenario.task
    make_importable(section.import_from)
    return load_task(
        section.name,
        TASKS,
        partitions=scenario.fleet.devices,
        seed=scenario.seed,
        options={"alpha": section.alpha, **section.options},
    )


def fleet_settings(scenario: Scenario) -> FleetSettings:
    """Who is in the fleet and how it behaves."""
    section = scenario.fleet
    return FleetSettings(
        devices=section.devices,
        mix=tuple(section.mix.items()) or DEFAULT_MIX,
        availability=section.availability,
        dropout=section.dropout,
        speed_noise=section.speed_noise,
        network_noise=section.network_noise,
    )


def coordinator_settings(scenario: Scenario) -> CoordinatorSettings:
    """How the federation is run."""
    client, codec, server, selection = scenario.client, scenario.codec, scenario.server, scenario.selection
    return CoordinatorSettings(
        rounds=scenario.rounds,
        seed=scenario.seed,
        training=Training(
            learning_rate=client.learning_rate,
            momentum=client.momentum,
            proximal=client.proximal,
            rounding=codec.rounding,
            feedback=codec.feedback,
            feedback_decay=codec.feedback_decay,
            feedback_max_age=codec.feedback_max_age,
            seed=scenario.seed,
        ),
        learning_rate_decay=client.learning_rate_decay,
        budget=scenario.budget.of(""),
        class_budgets={name: scenario.budget.of(name) for name in scenario.budget.by_class},
        selection=SelectionSettings(
            policy=selection.policy,
            per_round=selection.per_round,
            energy_exponent=selection.energy_exponent,
            utility_exponent=selection.utility_exponent,
            battery_floor=selection.battery_floor,
        ),
        planner=scenario.planner.policy,
        planner_settings=planner_settings(scenario),
        window=scenario.planner.window,
        codec_preset=codec.profile,
        downlink_bits=codec.downlink_bits,
        downlink_history=codec.downlink_history,
        server=ServerSettings(
            optimizer=server.optimizer,
            learning_rate=server.learning_rate,
            momentum=server.momentum,
            averaging=server.averaging,
            absent_weight=server.absent_weight,
            max_update_norm=LARGEST_NORM if server.max_update_norm is None else server.max_update_norm,
        ),
        runtime=scenario.run.runtime,
        evaluate_every=scenario.run.evaluate_every,
        round_timeout_s=scenario.run.round_timeout_s,
    )


def planner_settings(scenario: Scenario) -> PlannerSettings:
    """What the planner may choose from, and what it values."""
    section = scenario.planner
    return PlannerSettings(
        widths=section.widths,
        local_steps=section.local_steps,
        max_epochs=section.max_epochs,
        batch_sizes=section.batch_sizes,
        nmse=section.nmse,
        width_exponent=section.width_exponent,
        quality_exponent=section.quality_exponent,
        energy_exponent=section.energy_exponent,
        uplink_exponent=section.uplink_exponent,
        margin=section.margin,
        safety=section.safety,
    )


def without_budgets(scenario: Scenario) -> Scenario:
    """The same devices, data and seed under plain float32 federated averaging: the baseline.

    Budgets stay in the scenario, so that what they would have forbidden is counted; nobody is told to keep them.
    """
    return scenario.model_copy(
        update={
            "rounds": scenario.run.baseline_rounds,
            "selection": scenario.selection.model_copy(update={"policy": "uniform", "battery_floor": 0.0}),
            "planner": scenario.planner.model_copy(
                update={"policy": "fixed", "widths": (1.0,), "batch_sizes": scenario.planner.batch_sizes[:1]}
            ),
            "codec": scenario.codec.model_copy(update={"feedback": False}),
            "server": type(scenario.server)(max_update_norm=scenario.server.max_update_norm),
        }
    )
