"""Enumerating planner: the feasible candidate of highest value. Exact; it needs no solver.

All candidates of all devices of a block are weighed at once, in arrays of devices x candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.cost import CostModel, Demand, Figures
from slimfleet.compression.types import Budget, DeviceProfile, Plan, Skip
from slimfleet.coordinator.planning.limits import LEAST_LIMIT, Margins, column, feasible, needs, used
from slimfleet.coordinator.planning.policy import History, Request
from slimfleet.coordinator.settings import PlannerSettings

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Index = NDArray[np.intp]

RELAXATION = 1.25
"""A limit binds when relaxing it by this factor would change the plan."""

LIMIT_WORDS: Mapping[str, str] = {
    "energy_j": "energy",
    "memory_bytes": "memory",
    "deadline_s": "deadline",
    "uplink_bytes": "uplink",
    "downlink_bytes": "downlink",
}

_BLOCK = 2**18
"""Candidates weighed together: their columns stay in the processor's cache."""


class EnumeratingPlanner:
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
        [choice] = self.plan_all(
            [Request(profile=profile, budget=budget, cost_model=cost_model, history=history)]
        )
        return choice

    def plan_all(self, requests: Sequence[Request]) -> list[Plan | Skip]:
        """What `plan` gives for each of several devices, whose cost models differ in the start-up only."""
        choices: list[Plan | Skip] = []
        devices = max(_BLOCK // len(self._grid.width), 1)
        for start in range(0, len(requests), devices):
            choices += self._block(requests[start : start + devices])
        return choices

    def _block(self, requests: Sequence[Request]) -> list[Plan | Skip]:
        choices: list[Plan | Skip | None] = [None if each.has_power else _no_power(each) for each in requests]
        asked = [place for place, choice in enumerate(choices) if choice is None]
        if asked:
            found = _Search(self.settings, self._grid, [requests[place] for place in asked]).choices()
            for place, choice in zip(asked, found, strict=True):
                choices[place] = choice
        return [choice for choice in choices if choice is not None]


def _no_power(request: Request) -> Skip:
    limit = request.budget.power_w
    return Skip(constraint="power_w", needed=request.profile.train_w, limit=0.0 if limit is None else limit)


@dataclass(frozen=True, slots=True)
class _Grid:
    """All candidate plans as columns, (n,) each. The indices point into the distinct values of the settings."""

    width: Floats
    local_steps: Ints
    batch_size: Ints
    nmse: Floats
    width_index: Index
    nmse_index: Index

    @classmethod
    def of(cls, settings: PlannerSettings) -> _Grid:
        """The product of the settings' grids: width varies slowest, the error fastest."""
        values = (settings.widths, settings.local_steps, settings.batch_sizes, settings.nmse)
        rows = np.indices([len(each) for each in values]).reshape(len(values), -1)
        width, steps, batch, nmse = rows
        return cls(
            width=np.array(settings.widths)[width],
            local_steps=np.array(settings.local_steps)[steps],
            batch_size=np.array(settings.batch_sizes)[batch],
            nmse=np.array(settings.nmse)[nmse],
            width_index=width,
            nmse_index=nmse,
        )


@dataclass
class _Search:
    """The candidates of d devices; arrays are (d, n), or (d, 1) where candidates of a device are alike.

    The exact size of the model to be sent is known only once it is encoded. Each width therefore starts with a lower
    bound, which makes its candidates look cheaper than they are. When one of them wins, its size is made exact and the
    choice repeated. A winner whose size is exact is the winner among exact sizes too.
    """

    settings: PlannerSettings
    grid: _Grid
    requests: Sequence[Request]
    _figures: Figures = field(init=False)
    _margins: Margins = field(init=False)
    _power_w: Floats = field(init=False)
    _startup: tuple[Floats, Floats] = field(init=False)
    _limits: dict[str, Floats] = field(init=False)
    """Only those that one of the devices has; inf for the others."""
    _steps: Ints = field(init=False)
    _worth: Floats = field(init=False)
    """What no size and no device's speed changes: progress, width and quality."""
    _bytes: Floats = field(init=False)
    """(d, widths): of the model to be sent."""
    _exact: NDArray[np.bool_] = field(init=False)
    """(d, widths)."""
    _value: Floats = field(init=False)
    _needed: dict[str, Floats] = field(init=False)
    _shares: dict[str, Floats] = field(init=False)

    def __post_init__(self) -> None:
        grid, settings, requests = self.grid, self.settings, self.requests
        self._figures = Figures.of([each.profile for each in requests])
        self._margins = Margins.of([each.history.correction for each in requests], settings)
        self._power_w = column([inf if (w := each.budget.power_w) is None else w for each in requests])
        self._startup = (
            column([float(each.cost_model.startup_s) for each in requests]),
            column([float(each.cost_model.startup_j) for each in requests]),
        )
        limits = {name: [getattr(each.budget, name) for each in requests] for name in LIMIT_WORDS}
        self._limits = {
            name: column([inf if limit is None else max(limit, LEAST_LIMIT) for limit in values])
            for name, values in limits.items()
            if any(limit is not None for limit in values)
        }
        examples = column([each.history.examples for each in requests])
        most = np.ceil(settings.max_epochs * examples / grid.batch_size).astype(np.int64)
        self._steps = np.maximum(np.minimum(grid.local_steps, most), 1)
        progress = -np.expm1(-self._steps * grid.batch_size / examples)
        width = np.array(settings.widths)[grid.width_index] ** settings.width_exponent
        self._worth = progress * width * (1 - grid.nmse) ** settings.quality_exponent
        self._begin_sizes()
        shape = len(requests), len(grid.width)
        self._value = np.empty(shape)
        self._needed = {name: np.empty(shape) for name in LIMIT_WORDS}
        self._shares = {name: np.empty(shape) for name in self._limits}
        self._weigh(np.arange(len(requests)))

    def choices(self) -> list[Plan | Skip]:
        """A plan for each device, or the limit that leaves it without."""
        devices = np.arange(len(self.requests))
        rows = self._best(devices)
        fitting = np.flatnonzero(rows >= 0)
        reasons = dict(zip(fitting.tolist(), self._reasons(fitting, rows[fitting]), strict=True))
        skips = self._skips(np.flatnonzero(rows < 0))
        return [
            self._plan(device, row, reasons[device]) if row >= 0 else skips[device]
            for device, row in enumerate(rows.tolist())
        ]

    def _plan(self, device: int, row: int, reason: str) -> Plan:
        grid = self.grid
        return Plan(
            width=float(grid.width[row]),
            local_steps=int(self._steps[device, row]),
            batch_size=int(grid.batch_size[row]),
            nmse=float(grid.nmse[row]),
            precision="bfloat16" if self.requests[device].profile.bfloat16 else "float32",
            reason=reason,
        )

    def _best(self, devices: Index, slack: Mapping[str, float] | None = None) -> Index:
        """For each of these devices the first row of highest value among those that fit, -1 where none does; `slack`
        multiplies some limits."""
        found = np.full(len(devices), -1, np.intp)
        left = np.arange(len(devices))
        while len(left):
            which = devices[left]
            fits = feasible({name: share[which] for name, share in self._shares.items()}, slack)
            if fits is None:
                rows = self._value[which].argmax(axis=1)
            else:
                rows = np.where(fits, self._value[which], -inf).argmax(axis=1)
                rows[~fits.any(axis=1)] = -1
            found[left] = rows
            left = left[self._made_exact(which, rows)]
        return found

    def _skips(self, devices: Index) -> dict[int, Skip]:
        """The limit broken by the candidate that breaks its limits least, for devices that none fits."""
        names, found = list(self._shares), {}
        left = devices
        while len(left):
            table = np.array([self._shares[name][left] for name in names])
            least = table.max(axis=0).argmin(axis=1)
            changed = self._made_exact(left, least)
            for place in np.flatnonzero(~changed).tolist():
                device, row = int(left[place]), int(least[place])
                worst = names[int(np.argmax(table[:, place, row]))]
                limit = float(getattr(self.requests[device].budget, worst))
                found[device] = Skip(
                    constraint=worst, needed=float(self._needed[worst][device, row]), limit=limit
                )
            left = left[changed]
        return found

    def _reasons(self, devices: Index, rows: Index) -> list[str]:
        """Why these plans, in a few words: the limit that binds, else the one closest."""
        names = list(self._shares)
        words = ["full width" if w == 1.0 else f"width {w:g}" for w in self.grid.width[rows].tolist()]
        shares = np.array([self._shares[name][devices, rows] for name in names]).reshape(
            len(names), len(rows)
        )
        ranks = np.argsort(-shares, axis=0, kind="stable")
        binding = np.full(len(devices), -1)
        for rank in ranks:
            for name in range(len(names)):
                asked = np.flatnonzero((binding < 0) & (rank == name) & (shares[name] > 0))
                if len(asked):
                    other = self._best(devices[asked], {names[name]: RELAXATION}) != rows[asked]
                    binding[asked[other]] = name
        found = []
        for place, what in enumerate(words):
            own = [
                n
                for n in ranks[:, place]
                if getattr(self.requests[devices[place]].budget, names[n]) is not None
            ]
            if not own:
                found.append(f"{what}; no limit set")
            elif (bound := int(binding[place])) >= 0:
                found.append(f"{what}; {LIMIT_WORDS[names[bound]]} {shares[bound, place]:.0%} of limit binds")
            else:
                closest = own[0]
                found.append(
                    f"{what}; no limit binds, {LIMIT_WORDS[names[closest]]} closest at {shares[closest, place]:.0%}"
                )
        return found

    def _begin_sizes(self) -> None:
        """Bounds of sizes, and the exact ones that are there already."""
        widths = self.settings.widths
        known = [[each.history.sizes.known(width) for width in widths] for each in self.requests]
        self._exact = np.array([[size is not None for size in sizes] for sizes in known])
        self._bytes = np.array(
            [
                [
                    each.history.sizes.least(w) if size is None else size
                    for w, size in zip(widths, sizes, strict=True)
                ]
                for each, sizes in zip(self.requests, known, strict=True)
            ],
            np.float64,
        )

    def _made_exact(self, devices: Index, rows: Index) -> NDArray[np.bool_]:
        """Make the sizes of these devices' rows exact; whether that changed one. Their values are then computed again.
        A row of -1 is none."""
        changed = np.zeros(len(devices), np.bool_)
        widths = self.grid.width_index[rows]
        for place in np.flatnonzero((rows >= 0) & ~self._exact[devices, widths]).tolist():
            device, width = int(devices[place]), int(widths[place])
            size = self.requests[device].history.sizes.exact(self.settings.widths[width])
            self._exact[device, width] = True
            changed[place] = size != self._bytes[device, width]
            self._bytes[device, width] = size
        if changed.any():
            self._weigh(devices[changed])
        return changed

    def _weigh(self, devices: Index) -> None:
        """Value of every candidate of these devices, and what it needs of every limit."""
        settings, cost_model = self.settings, self.requests[0].cost_model
        demand = self._demand(devices)
        startup_s, startup_j = (each[devices] for each in self._startup)
        costs = replace(cost_model, startup_s=startup_s, startup_j=startup_j).costs(
            self._figures.at(devices), demand, self._power_w[devices]
        )
        needed = needs(costs, demand, self._margins.at(devices), cost_model.sizes, settings)
        limits = {name: limit[devices] for name, limit in self._limits.items()}
        for name, values in needed.items():
            self._needed[name][devices] = values
        for name, values in used(needed, limits).items():
            self._shares[name][devices] = values
        # A round may take no joules at all where a device says so.
        joules = np.maximum(costs.energy_j, LEAST_LIMIT)
        price = joules**settings.energy_exponent * demand.uplink_bytes**settings.uplink_exponent
        self._value[devices] = self._worth[devices] / price

    def _demand(self, devices: Index) -> Demand:
        grid, cost_model = self.grid, self.requests[0].cost_model
        works, sizes = [cost_model.works[width] for width in self.settings.widths], cost_model.sizes
        flops = np.array([w.flops_per_example for w in works])[grid.width_index]
        activations = np.array([w.activation_bytes_per_example for w in works])[grid.width_index]
        parameters = np.array([w.parameters for w in works])[grid.width_index]
        per_parameter = np.array([sizes.bytes_per_parameter(nmse) for nmse in self.settings.nmse])[
            grid.nmse_index
        ]
        return Demand(
            flops=np.asarray(flops * self._steps[devices] * grid.batch_size, np.float64),
            activation_bytes=activations * grid.batch_size,
            parameter_bytes=np.array([w.parameter_bytes for w in works])[grid.width_index],
            uplink_bytes=sizes.overhead_bytes + parameters * per_parameter,
            downlink_bytes=self._bytes[devices][:, grid.width_index],
        )
