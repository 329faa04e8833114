"""Baseline: plain float32 federated averaging on the same task, devices and seed as a scenario."""

from __future__ import annotations

from dataclasses import replace

from slimfleet.coordinator.settings import CoordinatorSettings, ServerSettings
from slimfleet.simulations.settings import Scenario

__all__ = ["baseline_settings"]


def baseline_settings(scenario: Scenario) -> CoordinatorSettings:
    """The scenario's settings without budgets: random devices train the whole model for one epoch, sent in float32.

    The limits stay, so that the rounds that break them are counted; the plans ignore them.
    """
    ours = scenario.coordinator
    return replace(
        ours,
        name="baseline",
        rounds=scenario.run.baseline_rounds,
        selection=replace(ours.selection, policy="uniform", battery_floor=0.0),
        planner=replace(
            ours.planner, policy="fixed", widths=(1.0,), batch_sizes=ours.planner.batch_sizes[:1]
        ),
        codec=replace(ours.codec, feedback=False),
        server=ServerSettings(max_update_norm=ours.server.max_update_norm),
    )
