"""Settings tree: all that a federation is run by, apart from its task and its devices.

Scenarios and deployments read the same tables and keys, through `settings_of`: the coordinator's part of a scenario
moves to production by copying it into `federation.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen

from slimfleet.compression.edge.checked import Source, checked, named, refuse_renamed
from slimfleet.compression.edge.input_files import read_toml
from slimfleet.compression.edge.named import Named
from slimfleet.compression.errors import BadInput
from slimfleet.compression.messages import Training
from slimfleet.compression.types import (
    Budget,
    Count,
    NotNegative,
    Positive,
    Preset,
    Printable,
    Rounding,
    Share,
)

NO_LIMIT = "none"
"""How a file lifts a limit, as TOML has no null: `energy_j = "none"`."""

CONDITION_MAX_AGE_S = 3_600.0

AtLeastOne = Annotated[int, Ge(1)]
BelowOne = Annotated[float, Ge(0), Lt(1)]
Decay = Annotated[float, Gt(0), Le(1)]

NMSE = (
    *(0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18),
    *(0.22, 0.26, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
)
"""Errors about a sixth of the bytes apart, from what 8 bits reach up to the few largest weights alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSettings:
    """`[selection]`: which devices take part in a round."""

    policy: Annotated[str, Named(("uniform", "utility"))] = "utility"
    """`utility` samples by training loss, energy, battery, link and temperature; `uniform` is plain federated
    averaging. For one of your own see docs/own-server-policy.md."""
    per_round: AtLeastOne = 20
    """Devices that a round plans for, at most."""
    pool: AtLeastOne = 10_000
    """Devices among which a round chooses first, drawn at random from a larger fleet: planning does not cost more the
    larger the fleet is (power-of-choice, Cho et al. 2020, arXiv 2010.01243). The others are looked at where too few of
    these can take work."""
    min_devices: AtLeastOne = 1
    """Devices that must be connected before a round is opened."""
    energy_exponent: NotNegative = 0.5
    """Weight of the joules of a full-width round against a device; 0 ignores them."""
    utility_exponent: NotNegative = 0.0
    """Weight of a device's training loss in its favour; 0 ignores it."""
    battery_floor: Share = 0.2
    """State of charge below which a device is skipped unless it charges. A battery of unknown charge counts as half-way
    between this and full."""
    condition_factor: Annotated[float, Ge(1), Le(1_000)] = 2.0
    """Factor in favour of a device with an unmetered link, and of a cool one (40 °C or less), and against one with a
    metered link, and a hot one (80 °C or more). Unknown counts as half-way. 1 ignores both."""
    policy_pause_s: NotNegative = 300.0
    """Time for which a device that refused a round by its own policy is not asked again: every question costs it the
    start of a process and a download."""
    condition_max_age_s: Positive = CONDITION_MAX_AGE_S
    """Age at which what a device stated of its condition (battery, charging, link, temperature, free memory) becomes
    unknown again, in wall-clock time."""
    reputation: bool = True
    """Whether a device is asked half as often for each of its last four rounds in which its update was rejected, or in
    which it was silent for `round_timeout_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacingSettings:
    """`[pacing]`: when a round closes, and whether devices wait for each other."""

    mode: Literal["synchronous", "asynchronous"] = "synchronous"
    """`synchronous` closes a round before the next begins. `asynchronous` steps when a buffer of updates is full,
    and the other devices train on (FedBuff, Nguyen et al. 2022, arXiv 2106.06639)."""
    surplus: Count = 0
    """Synchronous: devices that a round asks beyond `selection.per_round`; it closes once so many updates are in."""
    deadline: Literal["none", "predicted"] = "none"
    """Synchronous: `predicted` closes a round after the time that its devices are predicted to take; `none` waits for
    every device, and for a silent one until it is given up."""
    deadline_quantile: Share = 0.9
    """Quantile of the predictions of a round's devices that its deadline is made of."""
    deadline_factor: Annotated[float, Gt(0), Le(1_000)] = 1.5
    """Factor on that quantile."""
    least_updates: AtLeastOne = 1
    """A round, or a buffer, that closes with fewer updates than this is not applied."""
    buffer: AtLeastOne = 10
    """Asynchronous: updates that a step waits for."""
    concurrency: AtLeastOne = 40
    """Asynchronous: devices at work, and updates in the buffer, together at most."""
    staleness: Literal["none", "polynomial"] = "polynomial"
    """Asynchronous: `polynomial` multiplies an update by (1 + s)**-`staleness_exponent`, where s is the number of steps
    since its device was given the model; `none` takes it as it is."""
    staleness_exponent: Annotated[float, Ge(0), Le(10)] = 0.5
    """See `staleness`."""
    largest_staleness: Count = 10
    """Asynchronous: an update that is more steps old than this is not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """`[budget]`: what one device may spend on one round; `[budget.class.NAME]` overlays it for a device class."""

    common: Budget = field(default_factory=Budget)
    by_class: Mapping[str, Budget] = field(default_factory=dict)
    """Device class -> its whole budget, the common limits that it does not set included."""

    def of(self, device_class: str) -> Budget:
        """The budget of a device of this class."""
        return self.by_class.get(device_class, self.common)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    """`[planner]`: the grid of candidate plans (their product), the weights of their value, and safety margins.

    Among candidates of equal value the first wins: values stand in order of preference.
    """

    policy: Annotated[str, Named(("enumerate", "fixed"))] = "enumerate"
    """`fixed` is plain federated averaging, which knows no budgets: the baseline. For one of your own see
    docs/own-server-policy.md."""
    widths: Annotated[tuple[Annotated[float, Gt(0), Le(1)], ...], MinLen(1)] = (1.0, 0.75, 0.5, 0.375, 0.25)
    """Shares of the channels that a sub-model keeps."""
    window: Literal["prefix", "rolling", "importance"] = "prefix"
    """Channels that a sub-model keeps: the first, a window that moves from round to round, or the largest."""
    local_steps: Annotated[tuple[AtLeastOne, ...], MinLen(1)] = (128, 64, 32, 16, 8, 4, 2, 1)
    """Mini-batches of training in a round."""
    max_epochs: Positive = 1.0
    """Most passes over the local examples: longer candidates are cut to it."""
    batch_sizes: Annotated[tuple[AtLeastOne, ...], MinLen(1)] = (32, 16, 8)
    """Examples in a mini-batch."""
    nmse: Annotated[tuple[BelowOne, ...], MinLen(1)] = NMSE
    """Squared errors allowed in an update, as shares of its squared norm; 0 sends plain float32."""

    width_exponent: NotNegative = 0.3
    """Progress of a round at width w is w to this power. 0.3 fits a measurement: a fleet of widths 1, 0.5 and
    0.25 in equal shares needed 37 rounds for what full width reached in 30 (Fashion-MNIST CNN)."""
    quality_exponent: NotNegative = 0.25
    """Weight of the update's fidelity: far below 1, since error feedback sends later what is lost now."""
    energy_exponent: NotNegative = 0.15
    """Price of energy: 0 spends whatever the budget allows, 1 maximises progress per joule."""
    uplink_exponent: NotNegative = 0.05
    """Price of uplink bytes, likewise."""

    margin: Annotated[float, Ge(0), Le(10)] = 0.15
    """Least share by which predicted time, energy and memory are raised before they are held to a limit; at
    least 0.1 on memory, whose held-out predictions fell short by up to 8%."""
    safety: Annotated[float, Ge(0), Le(100)] = 2.0
    """Standard deviations of past prediction errors kept free below a limit, where that is more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """`[client]`: how a device trains."""

    learning_rate: Annotated[float, Gt(0), Le(1e6)] = 0.05
    """Of local SGD, in the first round."""
    learning_rate_decay: Decay = 1.0
    """Factor on the learning rate from round to round."""
    momentum: BelowOne = 0.9
    """Of local SGD; it starts at zero in every round."""
    proximal: Annotated[float, Ge(0), Le(1e6)] = 0.0
    """Weight of the pull towards the global model (FedProx's mu)."""
    runtime: Literal["torch", "lite"] = "torch"
    """Training runtime of the devices, whose memory model the planner follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSettings:
    """`[codec]`: how updates and models travel."""

    preset: Preset = "small"
    """Of updates and models: `small` takes the fewest bytes, `fast` the least time, `portable` needs no native coder. A
    device without the native coder answers in `portable`."""
    rounding: Rounding = "deadzone"
    """`deadzone` rounds towards zero near it (fewer bytes); `stochastic` is unbiased."""
    feedback: bool = True
    """Whether a device keeps what compression dropped and adds it to its next update."""
    feedback_decay: Share = 1.0
    """Factor on the kept residual for each round since it was written."""
    feedback_max_age: Count = 1_000
    """Rounds after which a residual is dropped."""
    feedback_max_norm: Positive = 4.0
    """Largest norm of the residual, in norms of the update that it is added to."""
    downlink_bits: Literal[1, 2, 3, 4, 5, 6, 7, 8, 32] = 6
    """Bits of a quantised value of the model that is sent; 32 sends plain float32."""
    downlink_history: Count = 32
    """Published models that the coordinator keeps: a device that holds one of them is sent the change since, any other
    the whole model; 0 always sends the whole model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """`[server]`: how updates become the next global model."""

    optimizer: Annotated[str, Named(("fedavg", "fedadam"))] = "fedavg"
    """Takes the mean update as a pseudo-gradient: SGD, or Adam. For one of your own see docs/own-server-policy.md."""
    learning_rate: Annotated[float, Gt(0), Le(1_000)] = 1.0
    """Of the server optimiser."""
    momentum: BelowOne = 0.0
    """Of `fedavg`; `fedadam` has betas of its own."""
    averaging: BelowOne = 0.0
    """Decay of the exponential average of global models that is evaluated and published; 0 publishes the last."""
    absent_weight: Share = 0.0
    """Weight in an element's mean of a device that did not train it, counted as an update of zero."""
    aggregation: Literal["mean", "trimmed", "median"] = "mean"
    """`mean` weighs a device by its examples. `trimmed` and `median` count devices alike, and leave out the largest and
    smallest values of each coordinate: they hold where several devices send what they like."""
    trim: Annotated[float, Ge(0), Le(0.5)] = 0.1
    """Share of the devices that `trimmed` leaves out at each end: at least that of hostile ones in a round."""
    max_update_norm: Positive = 100.0
    """Updates with a larger L2 norm are rejected."""
    fleet_bounds: bool = True
    """Also bound what one device claims and moves by what its fleet does."""
    largest_share: Share = 0.1
    """Largest share of a round's weight that one device may have beside devices of the median number of examples, whose
    weight it always may have. Of `mean` with `fleet_bounds`; a round counts as one of at least 20 and at most 100
    devices."""
    clip_quantile: Annotated[float, Gt(0), Le(1)] = 1.0
    """Quantile of the norms of the fleet's last updates: a longer update is scaled down to it; 1 scales none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """`[evaluation]`: evaluation on devices, of the model that each receives, in the rounds of `evaluate_every`.

    Only devices that train the whole model evaluate it: a narrower one is another model.
    """

    on_devices: BelowOne = 0.0
    """Share of its examples that each device holds out, at least one of three or more; 0 evaluates none on devices."""
    energy_share: Share = 0.05
    """Largest share of a round's joules that a device spends on evaluating. One that reports more counts as a broken
    budget, `evaluation_j`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """The keys of the file itself, and its tables."""

    name: Annotated[str, MinLen(1), MaxLen(100), Printable] = "federation"
    """Name of the federation in reports and metrics. A scenario is named after its file by default."""
    rounds: Annotated[int, Ge(1), Le(10**6)] = 20
    """Rounds in all, those of a resumed run included."""
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0
    """Seed of every random draw: the same seed gives the same model bytes."""
    evaluate_every: AtLeastOne = 1
    """Rounds from one evaluation of the global model to the next; the last round is always evaluated."""
    round_timeout_s: Positive = 600.0
    """Longest wait for the answer of one device: virtual time in a simulation, wall-clock time in a deployment."""
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    pacing: PacingSettings = field(default_factory=PacingSettings)
    budget: Budgets = field(default_factory=Budgets)
    planner: PlannerSettings = field(default_factory=PlannerSettings)
    client: ClientSettings = field(default_factory=ClientSettings)
    codec: CodecSettings = field(default_factory=CodecSettings)
    server: ServerSettings = field(default_factory=ServerSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def is_evaluated(self, round_number: int) -> bool:
        """Whether the global model is evaluated in this round (from 1)."""
        return round_number % self.evaluate_every == 0 or round_number == self.rounds

    @property
    def quota(self) -> int:
        """Updates that a step of the server waits for."""
        synchronous = self.pacing.mode == "synchronous"
        return self.selection.per_round if synchronous else self.pacing.buffer

    def training(self, round_number: int) -> Training:
        """How devices train and encode in this round (from 1)."""
        client, codec = self.client, self.codec
        return Training(
            learning_rate=client.learning_rate * client.learning_rate_decay ** (round_number - 1),
            momentum=client.momentum,
            proximal=client.proximal,
            rounding=codec.rounding,
            feedback=codec.feedback,
            feedback_decay=codec.feedback_decay,
            feedback_max_age=codec.feedback_max_age,
            feedback_max_norm=codec.feedback_max_norm,
            seed=self.seed,
            held_out=self.evaluation.on_devices,
        )


RENAMED: Mapping[str, str] = MappingProxyType(
    {
        "run.runtime": "client.runtime",
        "run.evaluate_every": "evaluate_every",
        "run.round_timeout_s": "round_timeout_s",
        "runtime": "client.runtime",
        "codec.profile": "codec.preset",
        "codec_profile": "codec.preset",
        "downlink_bits": "codec.downlink_bits",
        "downlink_history": "codec.downlink_history",
        "window": "planner.window",
        "learning_rate_decay": "client.learning_rate_decay",
        "class_budgets": "budget.class",
        "planner_settings": "planner",
        "training.learning_rate": "client.learning_rate",
        "training.momentum": "client.momentum",
        "training.proximal": "client.proximal",
        "training.seed": "seed",
        "training.": "codec.",
    }
)
"""Keys of older scenarios and deployments -> their names today; `a.` stands for every other key of a table."""


def settings_of(
    tables: Mapping[str, Any], source: Source, others: Mapping[str, Any] = MappingProxyType({})
) -> CoordinatorSettings:
    """The settings that the tables of a file say. Raises BadInput, in one line that names what is wrong and where.

    `others` are known tables of the same file that are not the coordinator's; a message may suggest their keys.
    """
    refuse_renamed(tables, RENAMED, source)
    budget = tables.get("budget", {})
    if not isinstance(budget, Mapping):
        checked(Budget, budget, source, "budget")
    resolved = {**tables, "budget": _resolved(budget, source)}
    root = {**tables_of(CoordinatorSettings()), **others}
    settings: CoordinatorSettings = checked(CoordinatorSettings, resolved, source, root=root)
    _check_pacing(settings, source)
    return settings


def _check_pacing(settings: CoordinatorSettings, source: Source) -> None:
    """Refuse rounds that could never be applied, and a buffer that could never be full."""
    pacing = settings.pacing
    if pacing.least_updates > settings.quota:
        raise BadInput(
            f"{named(source, 'pacing.least_updates')}: pacing.least_updates = {pacing.least_updates} is more than the "
            f"{settings.quota} updates that a step waits for: no round would ever be applied"
        )
    if pacing.mode == "asynchronous" and pacing.buffer > pacing.concurrency:
        raise BadInput(
            f"{named(source, 'pacing.buffer')}: pacing.buffer = {pacing.buffer} is more than pacing.concurrency = "
            f"{pacing.concurrency}: the buffer would never be full"
        )


def tables_of(settings: CoordinatorSettings) -> dict[str, Any]:
    """The tables of a file that says these settings, every default written out: `settings_of` backwards."""
    budget = settings.budget
    classes = {name: _spelled(limits) for name, limits in budget.by_class.items()}
    return {
        **asdict(settings),
        "budget": {**_spelled(budget.common), **({"class": classes} if classes else {})},
    }


def _resolved(budget: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """`[budget]` with its classes as `Budgets` has them: each class's limits over the common ones."""
    common = _limits({key: value for key, value in budget.items() if key != "class"}, source, "budget")
    classes = budget.get("class", {})
    if not isinstance(classes, Mapping):
        checked(dict, classes, source, "budget.class")
    by_class = {}
    for name, own in classes.items():
        table = f"budget.class.{name}"
        own_limits = _limits(own, source, table)
        by_class[name] = asdict(common) | {key: getattr(own_limits, key) for key in own}
    return {"common": asdict(common), "by_class": by_class}


def _limits(table: Any, source: Source, name: str) -> Budget:
    if isinstance(table, Mapping):
        table = {key: None if value == NO_LIMIT else value for key, value in table.items()}
    return checked(Budget, table, source, name)


def _spelled(limits: Budget) -> dict[str, Any]:
    values = {each.name: getattr(limits, each.name) for each in fields(limits)}
    return {name: NO_LIMIT if value is None else value for name, value in values.items()}


def read_settings(path: Path) -> CoordinatorSettings:
    """The settings in a TOML file. Raises BadInput, in one line that names the file, the key and what is right."""
    source = f"the settings {path}"
    return settings_of(read_toml(path, source), source)
