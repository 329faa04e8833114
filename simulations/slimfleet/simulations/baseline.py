"""The baseline: plain float32 federated averaging on the same devices, data and seed as a scenario."""

from __future__ import annotations

from dataclasses import replace

from slimfleet.coordinator.settings import ServerSettings
from slimfleet.simulations.settings import Scenario

__all__ = ["baseline_of"]


def baseline_of(scenario: Scenario) -> Scenario:
    """The scenario without budgets: random devices train the whole model for one epoch and send it in float32.

    The limits stay in the settings, so that the rounds that break them are counted; the plans ignore them.
    """
    ours = scenario.coordinator
    plain = replace(
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
    return replace(scenario, coordinator=plain)
