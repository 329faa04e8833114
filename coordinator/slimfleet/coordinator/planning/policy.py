"""Planner policies: the seam, what a policy knows of a device, and the policy that knows no budgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol, runtime_checkable

from slimfleet.compression.cost import CostModel
from slimfleet.compression.types import Budget, DeviceProfile, Plan, Skip
from slimfleet.coordinator.learning.calibration import Correction
from slimfleet.coordinator.settings import PlannerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes of the models that would be sent to one device, by width."""

    exact: Callable[[float], int]
    """Encodes, so a policy calls it only for a width that may win."""
    least: Callable[[float], int]
    """A bound below `exact`, at no cost."""
    known: Callable[[float], int | None] = lambda width: None
    """`exact` where it has been encoded already, at no cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What the coordinator has learned about one device, as far as planning needs it."""

    examples: int
    """Number of local examples."""
    sizes: Sizes
    correction: Correction = field(default_factory=Correction)
    """How its costs differ from the nominal model, and how surely."""


class Planner(Protocol):
    """Decides what one device does in one round."""

    def plan(
        self, profile: DeviceProfile, budget: Budget, cost_model: CostModel, history: History
    ) -> Plan | Skip:
        """A plan that keeps `budget`, or the constraint that no plan can keep.

        `budget` is final: the user's limits, remaining battery and free memory are already merged. `cost_model.works`
        has an entry for every width that the planner may choose.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What `Planner.plan` is asked for one device."""

    profile: DeviceProfile
    budget: Budget
    cost_model: CostModel
    history: History

    @property
    def has_power(self) -> bool:
        """Whether the device may draw any power at all."""
        return self.budget.power_w is None or self.budget.power_w > 0


@runtime_checkable
class BlockPlanner(Protocol):
    """A planner that decides for many devices at once, as it would one by one."""

    def plan_all(self, requests: Sequence[Request]) -> list[Plan | Skip]:
        """What `plan` gives for each; their cost models differ in the start-up only."""
        ...


class FixedPlanner:
    """Federated averaging (McMahan et al. 2017): one local epoch of the whole model, float32 updates."""

    def __init__(self, settings: PlannerSettings) -> None:
        self.settings = settings

    def plan(
        self, profile: DeviceProfile, budget: Budget, cost_model: CostModel, history: History
    ) -> Plan | Skip:
        """Always the same plan; a baseline shows what it costs to ignore budgets."""
        batch_size = self.settings.batch_sizes[0]
        return Plan(
            width=1.0,
            local_steps=max(ceil(self.settings.max_epochs * history.examples / batch_size), 1),
            batch_size=batch_size,
            nmse=0.0,
            reason="fixed: one epoch in float32",
        )
