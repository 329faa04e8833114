"""A user's own planner and selection policy, `module:object`: what they return is checked before it is used."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from operator import index

import numpy as np
from pydantic import TypeAdapter, ValidationError

from slimfleet.compression.checked_task import BadTask, blamed, cause
from slimfleet.compression.cost import CostModel
from slimfleet.compression.edge.named import found, is_own
from slimfleet.compression.errors import BadInput
from slimfleet.compression.types import Budget, DeviceProfile, Plan, Skip
from slimfleet.compression.validation import first_problem
from slimfleet.coordinator.planning import PLANNERS
from slimfleet.coordinator.planning.candidates import Candidate, Candidates
from slimfleet.coordinator.planning.policy import History, Planner
from slimfleet.coordinator.planning.selection import ORDERS, Order
from slimfleet.coordinator.settings import CoordinatorSettings, PlannerSettings, SelectionSettings


class NoPlan(BadTask):
    """A user's own planner raised, or returned what is no plan."""


@dataclass(frozen=True, slots=True)
class Policies:
    """Who is asked, and to do what: made once, as the settings name them."""

    planner: Planner
    order: Order

    @classmethod
    def of(cls, settings: CoordinatorSettings) -> Policies:
        """Raises BadInput, in one line, where a user's own cannot be imported or made."""
        return cls(_planner(settings.planner), _order(settings.selection))


def _planner(settings: PlannerSettings) -> Planner:
    make = found("planner.policy", settings.policy, PLANNERS)
    if not is_own(settings.policy):
        return make(settings)
    with blamed(settings.policy, "when it is made", "planner"):
        planner = make(settings)
        has_plan = callable(getattr(planner, "plan", None))
    if not has_plan:
        raise BadInput(
            f"planner.policy = {settings.policy!r}: it gives a {type(planner).__name__} without a method plan"
        )
    return _OwnPlanner(planner, settings.policy)


@dataclass(frozen=True, slots=True)
class _OwnPlanner:
    """Calls the planner that a user calls `reference`; raises NoPlan for whatever it does that is no plan."""

    planner: Planner
    reference: str

    def plan(
        self, profile: DeviceProfile, budget: Budget, cost_model: CostModel, history: History
    ) -> Plan | Skip:
        try:
            with blamed(self.reference, "plan", "planner"):
                choice = self.planner.plan(profile, budget, cost_model, history)
        except BadTask as error:
            raise NoPlan(str(error)) from error
        try:
            return _checked(choice, cost_model)
        except (TypeError, ValueError) as error:
            what = first_problem(error) if isinstance(error, ValidationError) else cause(error)
            raise NoPlan(f"planner {self.reference!r}, plan: {what}") from error


_PLAN, _SKIP = TypeAdapter(Plan), TypeAdapter(Skip)


def _checked(choice: object, cost_model: CostModel) -> Plan | Skip:
    """What a planner returned, in Python's own numbers. Raises TypeError or ValueError where it cannot be used."""
    if not isinstance(choice, Plan | Skip):
        raise TypeError(f"it gives a {type(choice).__name__}, must be a Plan or a Skip")
    text = json.dumps(asdict(choice), default=np.generic.item)
    plan = (_PLAN if isinstance(choice, Plan) else _SKIP).validate_json(text, strict=True)
    if isinstance(plan, Plan) and plan.width not in cost_model.works:
        widths = ", ".join(f"{width:g}" for width in sorted(cost_model.works))
        raise ValueError(f"width = {plan.width:g}: must be one of {widths} (planner.widths, and 1)")
    return plan


OwnOrder = Callable[[Sequence[Candidate], SelectionSettings, np.random.Generator], Iterable[int]]
"""A selection policy of a user's own: it sees candidates one by one."""


def _order(settings: SelectionSettings) -> Order:
    if not is_own(settings.policy):
        return ORDERS[settings.policy]
    order: OwnOrder = found("selection.policy", settings.policy, {})

    def checked(
        candidates: Candidates, settings: SelectionSettings, rng: np.random.Generator
    ) -> Iterable[int]:
        with blamed(settings.policy, "when it is called", "selection policy"):
            nodes = [index(node) for node in order(candidates.one_by_one(), settings, rng)]
        known, seen = set(candidates.node.tolist()), set[int]()
        for node in nodes:
            if node not in known:
                raise BadInput(f"selection policy {settings.policy!r} returns node {node}: not a candidate")
            if node in seen:
                raise BadInput(f"selection policy {settings.policy!r} returns node {node} twice")
            seen.add(node)
        return nodes

    return checked
