"""The enumerating planner as it is for one device, in plain steps: what the one in arrays is held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp

import numpy as np

from slimfleet.compression.cost import CostModel, Costs, Demand, UpdateSizeModel
from slimfleet.compression.types import Budget, DeviceProfile, Plan, Skip
from slimfleet.coordinator.learning.calibration import Correction, Factor
from slimfleet.coordinator.planning.enumerating import LIMIT_WORDS, RELAXATION, Floats, Ints, _Grid
from slimfleet.coordinator.planning.limits import LEAST_LIMIT, LEAST_MEMORY_FACTOR
from slimfleet.coordinator.planning.policy import History
from slimfleet.coordinator.settings import PlannerSettings


class ReferencePlanner:
    """Looks at every candidate of its settings (about 3,000) for every device."""

    def __init__(self, settings: PlannerSettings) -> None:
        self.settings = settings
        self._grid = _Grid.of(settings)

    def plan(
        self, profile: DeviceProfile, budget: Budget, cost_model: CostModel, history: History
    ) -> Plan | Skip:
        """The feasible candidate of highest value, or the limit that even the smallest one breaks.

        A candidate's value is progress · width^a · fidelity^b / (energy^c · uplink^d) with the exponents of the
        settings; progress = 1 - exp(-steps·batch/examples) has diminishing returns, and fidelity = 1 - NMSE is 1/(1 +
        omega), omega the relative variance of the compressor (Stich et al. 2018, "Sparsified SGD with Memory"). The
        value does not depend on the budget: tightening a limit changes only which candidates are feasible.
        """
        if budget.power_w is not None and budget.power_w <= 0:
            return Skip(constraint="power_w", needed=profile.train_w, limit=budget.power_w)
        search = _Search(self.settings, self._grid, profile, budget, cost_model, history)
        chosen = search.best()
        if chosen is None:
            return search.skip()
        grid = self._grid
        return Plan(
            width=float(grid.width[chosen]),
            local_steps=int(search.steps[chosen]),
            batch_size=int(grid.batch_size[chosen]),
            nmse=float(grid.nmse[chosen]),
            precision="bfloat16" if profile.bfloat16 else "float32",
            reason=search.reason(chosen),
        )


@dataclass
class _Search:
    """The candidates of one device.

    The exact size of the model to be sent is known only once it is encoded. Each width therefore starts with a lower
    bound, which makes its candidates look cheaper than they are. When one of them wins, its size is made exact and the
    choice repeated. A winner whose size is exact is the winner among exact sizes too.
    """

    settings: PlannerSettings
    grid: _Grid
    profile: DeviceProfile
    budget: Budget
    cost_model: CostModel
    history: History
    steps: Ints = field(init=False)
    _bytes: dict[float, int] = field(init=False)
    _exact: set[float] = field(init=False, default_factory=set)
    _value: Floats = field(init=False)
    _needed: dict[str, Floats] = field(init=False)
    _shares: dict[str, Floats] = field(init=False)

    def __post_init__(self) -> None:
        grid, examples = self.grid, self.history.examples
        most = np.ceil(self.settings.max_epochs * examples / grid.batch_size).astype(np.int64)
        self.steps = np.maximum(np.minimum(grid.local_steps, most), 1)
        self._bytes = {width: self.history.sizes.least(width) for width in self.settings.widths}
        self._weigh()

    def best(self, slack: Mapping[str, float] | None = None) -> int | None:
        """The first row of highest value among those that fit; `slack` multiplies some limits."""
        while True:
            fits = feasible(self._shares, len(self._value), slack)
            if not fits.any():
                return None
            row = int(np.argmax(np.where(fits, self._value, -np.inf)))
            if self._is_exact(row):
                return row

    def skip(self) -> Skip:
        """The limit broken by the candidate that breaks its limits least, where none fits."""
        while True:
            names = list(self._shares)
            table = np.array([self._shares[name] for name in names])
            least = int(np.argmin(table.max(axis=0)))
            if self._is_exact(least):
                break
        worst = names[int(np.argmax(table[:, least]))]
        needed, limit = float(self._needed[worst][least]), float(getattr(self.budget, worst))
        return Skip(constraint=worst, needed=needed, limit=limit)

    def reason(self, chosen: int) -> str:
        """Why this plan, in a few words: the limit that binds, else the one closest."""
        width = float(self.grid.width[chosen])
        what = "full width" if width == 1.0 else f"width {width:g}"
        if not self._shares:
            return f"{what}; no limit set"
        share = {name: float(values[chosen]) for name, values in self._shares.items()}
        by_share = sorted(share, key=lambda name: -share[name])
        for name in by_share:
            if self.best({name: RELAXATION}) != chosen:
                return f"{what}; {LIMIT_WORDS[name]} {share[name]:.0%} of limit binds"
        closest = by_share[0]
        return f"{what}; no limit binds, {LIMIT_WORDS[closest]} closest at {share[closest]:.0%}"

    def _is_exact(self, row: int) -> bool:
        """Whether the row has its exact size; where it has not, all values are computed again with it."""
        width = float(self.grid.width[row])
        if width in self._exact:
            return True
        self._exact.add(width)
        known, self._bytes[width] = self._bytes[width], self.history.sizes.exact(width)
        if self._bytes[width] == known:
            return True
        self._weigh()
        return False

    def _weigh(self) -> None:
        """Value of every candidate, and what it needs of every limit."""
        demand, settings, grid = self._demand(), self.settings, self.grid
        costs = self.cost_model.costs(self.profile, demand, self.budget.power_w)
        self._needed = needs(costs, demand, self.history.correction, self.cost_model.sizes, settings)
        self._shares = used(self._needed, self.budget)
        progress = -np.expm1(-self.steps * grid.batch_size / self.history.examples)
        width = np.array(settings.widths)[grid.width_index] ** settings.width_exponent
        quality = (1 - grid.nmse) ** settings.quality_exponent
        # A round may take no joules at all where a device says so.
        joules = np.maximum(costs.energy_j, LEAST_LIMIT)
        price = joules**settings.energy_exponent * demand.uplink_bytes**settings.uplink_exponent
        self._value = np.asarray(progress * width * quality / price, np.float64)

    def _demand(self) -> Demand:
        grid, sizes = self.grid, self.cost_model.sizes
        works = [self.cost_model.works[width] for width in self.settings.widths]
        downlink = np.array([self._bytes[width] for width in self.settings.widths], np.float64)
        flops = np.array([w.flops_per_example for w in works])[grid.width_index]
        activations = np.array([w.activation_bytes_per_example for w in works])[grid.width_index]
        parameters = np.array([w.parameters for w in works])[grid.width_index]
        per_parameter = np.array([sizes.bytes_per_parameter(nmse) for nmse in self.settings.nmse])[
            grid.nmse_index
        ]
        return Demand(
            flops=np.asarray(flops * self.steps * grid.batch_size, np.float64),
            activation_bytes=activations * grid.batch_size,
            parameter_bytes=np.array([w.parameter_bytes for w in works])[grid.width_index],
            uplink_bytes=sizes.overhead_bytes + parameters * per_parameter,
            downlink_bytes=downlink[grid.width_index],
        )


def needs(
    costs: Costs, demand: Demand, correction: Correction, sizes: UpdateSizeModel, settings: PlannerSettings
) -> dict[str, Floats]:
    """What each candidate may need of each limit of a `Budget`, margins included, (n,) each.

    Margins are factors: `safety` standard deviations of the logarithm of past errors, at least `margin`. The
    codec cuts an update to its uplink limit, so uplink bytes get only the first; downlink bytes are known, and
    so is the energy of the radio, whose burst outweighs all else.
    """
    z, least = settings.safety, 1 + settings.margin
    training_j = costs.energy_j - costs.radio_j - costs.startup_j

    def raised(predicted: Floats, factor: Factor, least: float = least) -> Floats:
        return predicted * factor.value * max(exp(z * factor.spread), least)

    return {
        "energy_j": costs.radio_j + costs.startup_j * least + raised(training_j, correction.energy),
        "memory_bytes": raised(costs.memory_bytes, correction.memory, max(least, LEAST_MEMORY_FACTOR)),
        "deadline_s": raised(costs.time_s, correction.time),
        "uplink_bytes": np.asarray(demand.uplink_bytes) * exp(z * sizes.error),
        "downlink_bytes": np.asarray(demand.downlink_bytes),
    }


def used(needed: Mapping[str, Floats], budget: Budget) -> dict[str, Floats]:
    """Need over limit of every limit that is set; 1 is exactly at the limit."""
    limits = {name: getattr(budget, name) for name in needed}
    return {
        name: needed[name] / max(limits[name], LEAST_LIMIT) for name in needed if limits[name] is not None
    }


def feasible(shares: Mapping[str, Floats], rows: int, slack: Mapping[str, float] | None = None) -> np.ndarray:
    """Rows that keep every limit; `slack` multiplies some limits (what if memory were 1.25 times larger?)."""
    fits = np.ones(rows, np.bool_)
    for name, share in shares.items():
        fits &= share <= (slack or {}).get(name, 1.0)
    return fits
