"""Planning by enumeration: the feasible candidate of highest value. Exact; it needs no solver."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.cost import CostModel, Costs, Demand
from slimfleet.compression.types import Budget, DeviceProfile, Plan, Skip
from slimfleet.coordinator.planning.candidates import candidates
from slimfleet.coordinator.planning.history import History
from slimfleet.coordinator.planning.limits import feasible, needs, used
from slimfleet.coordinator.planning.settings import PlannerSettings

Floats = NDArray[np.float64]

RELAXATION = 1.25
"""A limit binds when relaxing it by this factor would change the plan."""

LIMIT_WORDS: Mapping[str, str] = {
    "energy_j": "energy",
    "memory_bytes": "memory",
    "deadline_s": "deadline",
    "uplink_bytes": "uplink",
    "downlink_bytes": "downlink",
}


class EnumeratingPlanner:
    """Looks at every candidate of its settings (about 3,000) for every device."""

    def __init__(self, settings: PlannerSettings) -> None:
        self.settings = settings
        self._candidates = candidates(settings)
        self._quality = (1 - self._candidates.nmse) ** settings.quality_exponent

    def plan(
        self, profile: DeviceProfile, budget: Budget, cost_model: CostModel, history: History
    ) -> Plan | Skip:
        """The feasible candidate of highest value, or the limit that even the least one breaks.

        A candidate's value is progress · width^a · fidelity^b / (energy^c · uplink^d) with the exponents of
        the settings; progress = 1 - exp(-steps·batch/examples) has diminishing returns, and fidelity = 1 -
        NMSE is 1/(1 + omega), omega the relative variance of the compressor (Stich et al. 2018, "Sparsified
        SGD with Memory"). The value does not look at the budget: tightening a limit moves only the choice.
        """
        if budget.power_w is not None and budget.power_w <= 0:
            return Skip(constraint="power_w", needed=profile.train_w, limit=budget.power_w)
        examples = history.examples or self.settings.unknown_examples
        steps = self._candidates.steps(examples, self.settings.max_epochs)
        demand = self._demand(cost_model, steps, history.downlink_bytes)
        costs = cost_model.costs(profile, demand, budget.power_w)
        needed = needs(costs, demand, history.correction, cost_model.sizes, self.settings)
        shares = used(needed, budget)
        value = self._value(costs, demand, steps, examples)
        chosen = _best(value, feasible(shares, len(value)))
        if chosen is None:
            return _skip(needed, shares, budget)
        grid = self._candidates
        return Plan(
            width=float(grid.width[chosen]),
            local_steps=int(steps[chosen]),
            batch_size=int(grid.batch_size[chosen]),
            nmse=float(grid.nmse[chosen]),
            precision="bfloat16" if profile.bfloat16 else "float32",
            reason=_reason(float(grid.width[chosen]), chosen, value, shares),
        )

    def _demand(
        self, cost_model: CostModel, steps: NDArray[np.int64], downlink_bytes: Mapping[float, int]
    ) -> Demand:
        grid, sizes = self._candidates, cost_model.sizes
        works = [cost_model.works[width] for width in grid.widths]
        sent = [downlink_bytes.get(w, cost_model.works[w].parameter_bytes) for w in grid.widths]
        downlink = np.array(sent, np.float64)
        flops = np.array([w.flops_per_example for w in works])[grid.width_index]
        activations = np.array([w.activation_bytes_per_example for w in works])[grid.width_index]
        parameters = np.array([w.parameters for w in works])[grid.width_index]
        per_parameter = np.array([sizes.bytes_per_parameter(nmse) for nmse in grid.nmses])[grid.nmse_index]
        return Demand(
            flops=np.asarray(flops * steps * grid.batch_size, np.float64),
            activation_bytes=activations * grid.batch_size,
            parameter_bytes=np.array([w.parameter_bytes for w in works])[grid.width_index],
            uplink_bytes=sizes.overhead_bytes + parameters * per_parameter,
            downlink_bytes=downlink[grid.width_index],
        )

    def _value(self, costs: Costs, demand: Demand, steps: NDArray[np.int64], examples: int) -> Floats:
        grid, settings = self._candidates, self.settings
        progress = -np.expm1(-steps * grid.batch_size / examples)
        width = np.array(grid.widths)[grid.width_index] ** settings.width_exponent
        price = costs.energy_j**settings.energy_exponent * demand.uplink_bytes**settings.uplink_exponent
        return np.asarray(progress * width * self._quality / price, np.float64)


def _best(value: Floats, fits: NDArray[np.bool_]) -> int | None:
    """The first row of highest value among those that fit."""
    return int(np.argmax(np.where(fits, value, -np.inf))) if fits.any() else None


def _skip(needed: Mapping[str, Floats], shares: Mapping[str, Floats], budget: Budget) -> Skip:
    """The limit broken by the candidate that breaks its limits least."""
    names = list(shares)
    table = np.array([shares[name] for name in names])
    least = int(np.argmin(table.max(axis=0)))
    worst = names[int(np.argmax(table[:, least]))]
    return Skip(constraint=worst, needed=float(needed[worst][least]), limit=float(getattr(budget, worst)))


def _reason(width: float, chosen: int, value: Floats, shares: Mapping[str, Floats]) -> str:
    """Why this plan, in a few words: the limit that binds, else the one closest."""
    what = "full width" if width == 1.0 else f"width {width:g}"
    if not shares:
        return f"{what}; no limit set"
    by_share = sorted(shares, key=lambda name: -float(shares[name][chosen]))
    for name in by_share:
        if _best(value, feasible(shares, len(value), {name: RELAXATION})) != chosen:
            return f"{what}; {LIMIT_WORDS[name]} {float(shares[name][chosen]):.0%} of limit binds"
    closest = by_share[0]
    return f"{what}; no limit binds, {LIMIT_WORDS[closest]} closest at {float(shares[closest][chosen]):.0%}"
