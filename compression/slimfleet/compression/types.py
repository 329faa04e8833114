"""Core types: what a device is, may spend, is planned to do, and did spend.

Units are in the names; `None` means no limit. Everything here is frozen and free of torch. The bounds beside the types
are enforced by `slimfleet.compression.messages` on everything that arrives from the other end. Bounds of quantities
that a device states are physical: wide enough for a microcontroller and for a GPU server, and so narrow that products,
quotients and sums of such quantities stay finite and above zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import fsum
from typing import TYPE_CHECKING, Annotated, Any, Literal, NewType, get_args

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, Predicate

if TYPE_CHECKING:  # a device that waits for work needs no arrays yet
    import numpy as np
    from numpy.typing import NDArray

Precision = Literal["float32", "bfloat16"]
EnergySource = Literal["measured", "estimated", "simulated"]
Rounding = Literal["deadzone", "stochastic"]
"""How an update is rounded: to the least error for its bytes, or without bias."""

Preset = Literal["small", "fast", "portable"]
"""How an update is coded: in the fewest bytes, at the highest speed (both by the native coder), or by the portable
coder."""

Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Count = Annotated[int, Ge(0), Le(2**53)]
Share = Annotated[float, Ge(0), Le(1)]

LARGEST_JOULES = 1e6
"""A laptop's battery several times over: no round of one device takes more."""

LARGEST_SECONDS = 7 * 86_400.0
"""A week: no round of one device takes longer."""

Joules = Annotated[float, Ge(0), Le(LARGEST_JOULES)]
"""Energy of one round, or of one part of it."""

Seconds = Annotated[float, Ge(1e-6), Le(LARGEST_SECONDS)]
"""Duration of one round."""

JoulesPerByte = Annotated[float, Ge(0), Le(1e3)]
"""Energy that a radio takes for a byte. Satellite modems need some 0.1 J."""

IdleWatts = Annotated[float, Ge(0), Le(1e5)]
Watts = Annotated[float, Ge(1e-6), Le(1e5)]
"""Power of a device at work: from a sensor node to a rack of GPUs."""

FlopsPerSecond = Annotated[float, Ge(1e3), Lt(1e18)]
"""Training speed: from an 8-bit microcontroller to an exaflop machine."""

BytesPerSecond = Annotated[float, Ge(1e-2), Lt(1e12)]
"""Data rate: from a satellite modem to a backbone."""

BatteryJoules = Annotated[float, Ge(1e-3), Lt(1e9)]
"""Capacity of a battery: from a capacitor to a lorry."""

MemoryBytes = Annotated[int, Ge(0), Le(2**50)]
Celsius = Annotated[float, Ge(-60), Le(200)]
"""Temperature inside a device: from a winter outdoors to a chip that has long switched itself off."""

ExampleCount = Annotated[int, Ge(1), Le(2**31)]
Loss = Annotated[float, Gt(-1e30), Lt(1e30)]
"""Mean training loss. A float32 loss can be this large before it overflows, and a sum over any fleet is finite."""

Printable = Predicate(str.isprintable)
"""No line end and no escape sequence: the text is safe in a log, a terminal and a table."""

Label = Annotated[str, MaxLen(64), Printable]

Tensors = dict[str, "NDArray[Any]"]
"""A model, or a change of one: name -> array, in the order of its `ModelSchema`."""

Channels = Mapping[str, "NDArray[np.intp]"]
"""Which channels of each channel group are kept: group name -> sorted channel numbers."""

Payload = NewType("Payload", bytes)
"""Bytes that go over the wire. A size is always `len(payload)`, never a formula."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one device may spend on one round."""

    energy_j: NotNegative | None = None
    """Energy above idle, radio included."""
    power_w: Positive | None = None
    """Mean power while training."""
    memory_bytes: Count | None = None
    """Peak memory of the process."""
    deadline_s: NotNegative | None = None
    """Time from the download to the end of the upload."""
    uplink_bytes: Count | None = None
    """Length of the update's payload."""
    downlink_bytes: Count | None = None
    """Length of the model's payload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """Nominal figures of a device. Its true speed differs; reports correct the prediction."""

    name: Label
    device_class: Label
    ram_bytes: MemoryBytes
    train_flops_per_s: FlopsPerSecond
    idle_w: IdleWatts
    train_w: Watts
    """Power drawn for training, above idle."""
    uplink_bytes_per_s: BytesPerSecond
    downlink_bytes_per_s: BytesPerSecond
    radio_j_per_byte_up: JoulesPerByte
    radio_j_per_byte_down: JoulesPerByte
    radio_j_per_burst: Joules
    """Fixed energy of waking the radio (and of its tail), once a round."""
    battery_j: BatteryJoules | None = None
    """Capacity of the battery; None on mains."""
    bfloat16: bool = False
    """Whether this device trains faster in bfloat16 than in float32."""
    runtime_base_bytes: MemoryBytes | None = None
    """R0 of the memory model on this device; None where it was not measured, here and below: the runtime's own then."""
    runtime_fixed_bytes: MemoryBytes | None = None
    """c of the memory model."""
    runtime_activation_factor: Annotated[float, Ge(0), Le(1e3)] | None = None
    """k of the memory model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The work of one device in one round."""

    width: Annotated[float, Gt(0), Le(1)]
    """Share of the channels kept, 0 < width <= 1."""
    local_steps: Annotated[int, Ge(1), Le(10**6)]
    batch_size: Annotated[int, Ge(1), Le(10**5)]
    nmse: Annotated[float, Ge(0), Lt(1)]
    """Squared error allowed in the update, as a share of its squared norm; 0 sends plain float32 (the baseline)."""
    precision: Precision = "float32"
    reason: Annotated[str, MaxLen(500), Printable] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A device that fits no plan, and the constraint that binds."""

    constraint: str
    """A field name of `Budget`; `battery`: the charge is below the floor; `policy`: the device has just refused a round
    by its own policy; `profile`: the device's figures make no plan possible; `reputation`: `needed` of its last `limit`
    rounds ended in a rejected update or none; or `planner`: a user's own planner gave none."""
    needed: float
    limit: float

    @property
    def reason(self) -> str:
        """One sentence for people."""
        if self.constraint == "battery":
            return f"battery: charged to {self.limit:.0%}, the floor is {self.needed:.0%}"
        if self.constraint == "policy":
            return f"policy: its own forbade a round {self.limit:.3g} s ago, it is asked after {self.needed:.3g} s"
        if self.constraint == "profile":
            return "profile: no plan can be made from the figures that the device states"
        if self.constraint == "reputation":
            return (
                f"reputation: asked less, {self.needed:.0f} of its last {self.limit:.0f} rejected or silent"
            )
        if self.constraint == "planner":
            return "planner: the planner gave no plan that can be used"
        return f"{self.constraint}: the smallest plan needs {self.needed:.4g}, the limit is {self.limit:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a round costs one device: predicted by the cost model, or spent."""

    energy_j: Joules
    """Total, radio included."""
    radio_j: Joules
    """The part of `energy_j` spent on the radio; 0 where a meter does not separate it."""
    time_s: Seconds
    memory_bytes: MemoryBytes
    uplink_bytes: Count
    downlink_bytes: Count


LONGEST_STARTUP_S = 3_600.0
LARGEST_STARTUP_J = 100_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Startup:
    """What a device spends on a round before its first step, whatever the plan.

    Where each message starts a process, that is mostly Python and its libraries.
    """

    time_s: Annotated[float, Ge(0), Le(LONGEST_STARTUP_S)] = 0.5
    energy_j: Annotated[float, Ge(0), Le(LARGEST_STARTUP_J)] = 0.0
    """Without the radio."""

    @classmethod
    def cut(cls, time_s: float, energy_j: float) -> Startup:
        """Figures of one's own, cut to the bounds."""
        return cls(
            time_s=min(max(time_s, 0.0), LONGEST_STARTUP_S),
            energy_j=min(max(energy_j, 0.0), LARGEST_STARTUP_J),
        )


USUAL_STARTUP = Startup()
"""What counts for a device until it has said more: that of a process which is already there."""


PhaseName = Literal["startup", "download", "train", "encode", "upload", "evaluate", "idle"]
PHASES: tuple[PhaseName, ...] = get_args(PhaseName)
"""The phases of a round on a device. `idle` are the pauses that hold the mean power."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCost:
    """What one phase of a round took."""

    time_s: Annotated[float, Ge(0), Le(LARGEST_SECONDS)] = 0.0
    energy_j: Joules = 0.0
    source: EnergySource = "estimated"
    uncertainty_j: Joules = 0.0
    """How far `energy_j` may be off, either way: nominal power against true power, or the error of the meter and the
    samples that straddle two phases."""


NO_COST = PhaseCost()


@dataclass(frozen=True, slots=True, kw_only=True)
class Phases:
    """A round's time and joules by phase."""

    startup: PhaseCost
    """Starting the process, decoding and building the model."""
    download: PhaseCost
    """Waking the radio is a part of it."""
    train: PhaseCost
    encode: PhaseCost
    upload: PhaseCost
    evaluate: PhaseCost
    idle: PhaseCost

    @classmethod
    def of(cls, costs: Mapping[PhaseName, PhaseCost]) -> Phases:
        """The costs of some phases; the others took nothing."""
        return cls(**{phase: costs.get(phase, NO_COST) for phase in PHASES})

    def __iter__(self) -> Iterator[tuple[PhaseName, PhaseCost]]:
        return ((name, getattr(self, name)) for name in PHASES)

    @property
    def energy_j(self) -> float:
        """The sum over the phases."""
        return fsum(cost.energy_j for _, cost in self)

    @property
    def radio_j(self) -> float:
        """The part of it that went into transfers."""
        return self.download.energy_j + self.upload.energy_j

    @property
    def time_s(self) -> float:
        """The sum over the phases."""
        return fsum(cost.time_s for _, cost in self)


PauseReason = Literal["power", "heat"]
"""Why a device pauses between two steps: to hold its mean power, or to cool down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """All pauses of a round for one reason. Their time is that of the phase `idle`."""

    reason: PauseReason
    times: Count
    time_s: Annotated[float, Ge(0), Le(LARGEST_SECONDS)]


UNIT = 2**16
"""Losses and scores are summed as integers, in units of 1/65536."""

LARGEST_LOSS = 2**26 * UNIT
"""A larger loss of an example, or one that is not finite, counts as this much."""

MOST_EVALUATED = 2**20
"""Examples that one device evaluates in a round, at most."""

MOST_CLASSES = 256
"""A task with more classes is not counted class by class."""

ClassCount = tuple[Count, Count]
"""Examples of a class, and how many of them were right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """What a model made of examples, in exact integers: sums over devices do not depend on their order."""

    examples: Annotated[int, Ge(1), Le(MOST_EVALUATED)]
    loss_sum: Annotated[int, Ge(-MOST_EVALUATED * LARGEST_LOSS), Le(MOST_EVALUATED * LARGEST_LOSS)]
    """In units of 1/65536."""
    correct: Count | None = None
    """Right answers, where the model gives logits for class numbers."""
    score_sum: Count | None = None
    """Of a task with a score of its own, in units of 1/65536."""
    by_class: Annotated[tuple[ClassCount, ...], MinLen(1), MaxLen(MOST_CLASSES)] | None = None
    """In order of class number; None where there are no classes, or too many."""

    @property
    def loss(self) -> float:
        """Mean over the examples."""
        return self.loss_sum / (UNIT * self.examples)

    @property
    def accuracy(self) -> float | None:
        """Share of right answers, or the mean score; None for a task without either."""
        if self.score_sum is not None:
            return self.score_sum / (UNIT * self.examples)
        return None if self.correct is None else self.correct / self.examples


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """The state of a device at one moment, as the device itself finds it. None is unknown, which is never "fine"."""

    battery: Share | None = None
    """State of charge, 0..1. Also None where there is no battery."""
    charging: bool | None = None
    """Whether external power feeds the device."""
    metered: bool | None = None
    """Whether its owner pays for the bytes of its link."""
    temperature_c: Celsius | None = None
    """The hottest reading of its sensors."""
    free_memory_bytes: MemoryBytes | None = None
    """Memory that a round can have: what is free, and what the process that does the round already holds."""


UNKNOWN = Condition()
"""The condition of a device that says nothing of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A device's account of a round that it did."""

    spent: Cost
    source: EnergySource
    loss: Loss
    """Mean training loss over the local steps."""
    examples: ExampleCount
    """Number of local examples: the weight of the update."""
    steps: Count
    """Local steps done; fewer than planned when the budget guard stopped the round."""
    stopped_by: Label | None = None
    """The constraint that ended the round early."""
    startup: Startup = USUAL_STARTUP
    """The part of `spent` that went before the first step, transfers left out."""
    accuracy: Share | None = None
    condition: Condition = UNKNOWN
    """At the end of the round."""
    phases: Phases | None = None
    """`spent` by phase; None from a device that does not tell."""
    evaluated: Evaluated | None = None
    """What the received model made of examples that the device holds out; None where it evaluated none."""
    pauses: Annotated[tuple[Pause, ...], MinLen(1), MaxLen(len(get_args(PauseReason)))] | None = None
    """One for each reason that the device paused for; None where it did not pause, or does not tell."""
    gross_j: Joules | None = None
    """Energy of the whole device over the round, idle power included, as its meter read it; None without a reading."""
