"""Everything a scenario may say: names, types, ranges and defaults, checked by pydantic, frozen.

Only the edge reads these models; each part gets its own small settings object made from them.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

from slimfleet.compression.types import Budget, Preset
from slimfleet.coordinator.planning.settings import NMSE

NO_LIMIT = "none"
"""How a scenario lifts a limit, as TOML has no null: `energy_j = "none"`."""


def _lift(value: Any) -> Any:
    return None if value == NO_LIMIT else value


FLAT_LIST = re.compile(r"\[\n((?: {4}[^\[\]{}\n]+,\n)+)\]")
"""A list of plain values as tomli-w lays it out, a value a line."""

Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Noise = Annotated[float, Field(ge=0, le=2)]
Count = Annotated[int, Field(ge=1)]
LimitFloat = Annotated[Positive | None, BeforeValidator(_lift)]
LimitInt = Annotated[Count | None, BeforeValidator(_lift)]
Bits = Literal[1, 2, 3, 4, 5, 6, 7, 8, 32]
"""Bits of a quantised value of the model that is sent; 32 sends plain float32."""


def _one_or_more(default: tuple[float, ...]) -> Any:
    """A list of at least one value; TOML lists become tuples, their items are still not converted."""
    return Field(default=default, min_length=1, strict=False)


class Section(BaseModel):
    """One table of a scenario: frozen, no unknown keys, no conversion of types, no NaN or infinity."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True
    )


class TaskSection(Section):
    """What is learned, and how its examples are spread over the devices."""

    name: str = Field(default="digits", min_length=1)
    """`digits`, `fashion-mnist`, or the `module:object` of a task of your own."""
    import_from: tuple[str, ...] = Field(default=(), strict=False)
    """Folders that hold the module of a task of your own, relative to the scenario's file; left out, it is looked for
    beside that file and in the current folder."""
    alpha: Positive = 0.5
    """Concentration of the Dirichlet distribution over labels: the smaller, the more devices differ."""
    options: dict[str, JsonValue] = Field(default_factory=dict)
    """Handed to the task as keyword arguments."""


class FleetSection(Section):
    """Which devices there are, and how far they stray from their nominal selves.

    Noise and spread are standard deviations of a natural logarithm.
    """

    devices: int = Field(default=200, ge=1, le=10_000_000)
    mix: dict[str, NotNegative] = Field(default_factory=dict)
    """Device profile -> relative weight; empty takes the default mix of `simulations.fleet`."""
    availability: float = Field(default=0.9, gt=0, le=1)
    """Mean share of rounds in which a device can be reached."""
    dropout: BelowOne = 0.02
    """Chance that a device at work vanishes within the round."""
    speed_noise: Noise = 0.1
    """Of compute speed, round to round."""
    power_noise: Noise = 0.1
    """Of training power, device to device."""
    network_spread: Noise = 0.4
    """Of network rates, device to device."""
    network_noise: Noise = 0.25
    """Of network rates, round to round."""
    faults: dict[str, Share] = Field(default_factory=dict)
    """PayloadKind of misbehaviour -> share of the devices that show it; `simulations.faults` has the kinds."""

    @model_validator(mode="after")
    def _some_weight(self) -> Self:
        if self.mix and sum(self.mix.values()) <= 0:
            raise ValueError("every weight of fleet.mix is zero: no device could be drawn")
        return self


class SelectionSection(Section):
    """Who takes part in a round."""

    policy: Literal["uniform", "utility"] = "utility"
    per_round: int = Field(default=20, ge=1)
    energy_exponent: NotNegative = 0.5
    """How much a device's joules per floating-point operation count against it; 0 ignores them."""
    utility_exponent: NotNegative = 0.0
    """How much its training loss counts for it; 0 ignores it."""
    battery_floor: Share = 0.2
    """Devices below this state of charge are left alone unless they charge."""


class Limits(Section):
    """What one device may spend on one round; absent or "none" is no limit. Units stand in the names."""

    energy_j: LimitFloat = None
    power_w: LimitFloat = None
    memory_bytes: LimitInt = None
    deadline_s: LimitFloat = None
    uplink_bytes: LimitInt = None
    downlink_bytes: LimitInt = None


class BudgetSection(Limits):
    """Limits of every device, and per device class the ones that differ."""

    by_class: dict[str, Limits] = Field(default_factory=dict, alias="class")

    def of(self, device_class: str) -> Budget:
        """The budget of a device of this class: its class's limits where set, else the common ones."""
        common = {name: getattr(self, name) for name in Limits.model_fields}
        special = self.by_class.get(device_class, Limits())
        return Budget(**common | {name: getattr(special, name) for name in special.model_fields_set})


class PlannerSection(Section):
    """What the planner may choose from, and what it values; see `coordinator.planner` for the formulas.

    Among plans of equal value the first wins: lists stand in order of preference.
    """

    policy: Literal["enumerate", "fixed"] = "enumerate"
    widths: tuple[Annotated[float, Field(gt=0, le=1)], ...] = _one_or_more((1.0, 0.75, 0.5, 0.375, 0.25))
    local_steps: tuple[Count, ...] = _one_or_more((128, 64, 32, 16, 8, 4, 2, 1))
    max_epochs: Positive = 1.0
    """Most passes over a device's examples in one round."""
    batch_sizes: tuple[Count, ...] = _one_or_more((32, 16, 8))
    nmse: tuple[BelowOne, ...] = _one_or_more(NMSE)
    """Squared errors allowed in an update, as shares of its squared norm; 0 sends plain float32."""
    width_exponent: NotNegative = 0.3
    quality_exponent: NotNegative = 0.25
    energy_exponent: NotNegative = 0.15
    uplink_exponent: NotNegative = 0.05
    margin: float = Field(default=0.15, ge=0, le=10)
    """Least share by which predicted costs are raised before they are held to a limit."""
    safety: NotNegative = 2.0
    """Standard deviations of past prediction errors kept free below a limit, where that is more."""
    window: Literal["prefix", "rolling", "importance"] = "prefix"
    """Which channels a narrow plan keeps."""


class ClientSection(Section):
    """How a device trains."""

    learning_rate: Positive = 0.05
    momentum: BelowOne = 0.9
    proximal: NotNegative = 0.0
    """Weight of the pull towards the global model (FedProx's mu)."""
    learning_rate_decay: float = Field(default=1.0, gt=0, le=1)
    """Factor on the learning rate from round to round."""


class CodecSection(Section):
    """How updates and models travel."""

    feedback: bool = True
    """Whether a device keeps what compression dropped and adds it to its next update."""
    feedback_decay: Share = 1.0
    """Factor on the kept residual for each round since it was written."""
    feedback_max_age: int = Field(default=1_000, ge=0)
    """Rounds after which a residual is dropped."""
    rounding: Literal["deadzone", "stochastic"] = "deadzone"
    """`deadzone` rounds towards zero near it (fewer bytes); `stochastic` is unbiased."""
    profile: Preset = "small"
    """Of updates and models: `small` takes the fewest bytes, `fast` the least time, `portable` does without the native
    coder. Who cannot code so codes in the portable profile."""
    downlink_bits: Bits = 6
    downlink_history: int = Field(default=32, ge=0)
    """Published models that the coordinator keeps: a device that holds one of them is sent the change since, any other
    the whole model; 0 always sends the whole model."""


class ServerSection(Section):
    """How updates become the next global model."""

    optimizer: Literal["fedavg", "fedadam"] = "fedavg"
    learning_rate: Positive = 1.0
    momentum: BelowOne = 0.0
    absent_weight: Share = 0.0
    """How much a device too narrow for an element counts in its mean as one that left it as it was."""
    averaging: BelowOne = 0.0
    """Decay of the exponential average of models that is published; 0 publishes the last model."""
    max_update_norm: Positive = 100.0
    """Updates with a larger L2 norm are rejected."""


class RunSection(Section):
    """How the simulation itself is run."""

    evaluate_every: Count = 1
    workers: int = Field(default=0, ge=0)
    """Processes that train devices; 0 is one per processor core."""
    runtime: Literal["torch", "lite"] = "torch"
    """Whose memory model the devices follow."""
    baseline_rounds: Count = 30
    """Rounds of plain float32 federated averaging that `--baseline` runs for comparison."""
    round_timeout_s: Positive = 600.0
    """Longest wait for the answers of one round, in wall-clock time."""
    device_timeout_s: Positive = 120.0
    """Longest real time one device may work on the Ray backend before it is given up."""


class Scenario(Section):
    """A fleet, a task and the rules of the game: all that a simulation needs."""

    name: str = Field(default="scenario", min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**63)
    rounds: int = Field(default=20, ge=1, le=1_000_000)
    task: TaskSection = Field(default_factory=TaskSection)
    fleet: FleetSection = Field(default_factory=FleetSection)
    selection: SelectionSection = Field(default_factory=SelectionSection)
    budget: BudgetSection = Field(default_factory=BudgetSection)
    planner: PlannerSection = Field(default_factory=PlannerSection)
    client: ClientSection = Field(default_factory=ClientSection)
    codec: CodecSection = Field(default_factory=CodecSection)
    server: ServerSection = Field(default_factory=ServerSection)
    run: RunSection = Field(default_factory=RunSection)

    @model_validator(mode="after")
    def _enough_devices(self) -> Self:
        if self.selection.per_round > self.fleet.devices:
            raise ValueError(
                f"selection.per_round = {self.selection.per_round} is more than "
                f"fleet.devices = {self.fleet.devices}: lower the one or raise the other"
            )
        return self

    def to_toml(self) -> str:
        """The scenario as resolved, defaults written out; `load_scenario` reads the same scenario back."""
        tables = self.model_dump(mode="python", by_alias=True)
        tables["budget"]["class"] = {
            name: limits.model_dump(exclude_unset=True) for name, limits in self.budget.by_class.items()
        }
        return FLAT_LIST.sub(_on_one_line, tomli_w.dumps(_without_null(tables)))


def _on_one_line(found: re.Match[str]) -> str:
    return f"[{' '.join(line.strip() for line in found[1].splitlines()).removesuffix(',')}]"


def _without_null(value: Any) -> Any:
    """The same tables with `None` spelled as `NO_LIMIT` and tuples as lists."""
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_null(item) for item in value]
    return NO_LIMIT if value is None else value
