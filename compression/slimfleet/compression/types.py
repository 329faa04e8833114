"""Core types: what a device is, may spend, is planned to do, and did spend.

Units are in the names; `None` means no limit. Everything here is frozen and free of torch. The bounds beside the types
are enforced by `slimfleet.compression.messages` on everything that arrives from the other end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NewType

import numpy as np
from annotated_types import Ge, Gt, Le, Lt, MaxLen, Predicate
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
Printable = Predicate(str.isprintable)
"""No line end and no escape sequence: the text is safe in a log, a terminal and a table."""

Label = Annotated[str, MaxLen(64), Printable]

Tensors = dict[str, NDArray[Any]]
"""A model, or a change of one: name -> array, in the order of its `ModelSchema`."""

Channels = Mapping[str, NDArray[np.intp]]
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
    ram_bytes: Count
    train_flops_per_s: Positive
    idle_w: NotNegative
    train_w: Positive
    """Power drawn for training, above idle."""
    uplink_bytes_per_s: Positive
    downlink_bytes_per_s: Positive
    radio_j_per_byte_up: NotNegative
    radio_j_per_byte_down: NotNegative
    radio_j_per_burst: NotNegative
    """Fixed energy of waking the radio (and of its tail), once a round."""
    battery_j: Positive | None = None
    """Capacity of the battery; None on mains."""
    bfloat16: bool = False
    """Whether this device trains faster in bfloat16 than in float32."""


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
    """A field name of `Budget`, or `battery`: the charge is below the floor."""
    needed: float
    limit: float

    @property
    def reason(self) -> str:
        """One sentence for people."""
        if self.constraint == "battery":
            return f"battery: charged to {self.limit:.0%}, the floor is {self.needed:.0%}"
        return f"{self.constraint}: the smallest plan needs {self.needed:.4g}, the limit is {self.limit:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a round costs one device: predicted by the cost model, or spent."""

    energy_j: NotNegative
    """Total, radio included."""
    radio_j: NotNegative
    """The part of `energy_j` spent on the radio; 0 where a meter does not separate it."""
    time_s: NotNegative
    memory_bytes: Count
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A device's account of a round that it did."""

    spent: Cost
    source: EnergySource
    loss: float
    """Mean training loss over the local steps."""
    examples: Annotated[int, Ge(1), Le(2**31)]
    """Number of local examples: the weight of the update."""
    steps: Count
    """Local steps done; fewer than planned when the budget guard stopped the round."""
    stopped_by: Label | None = None
    """The constraint that ended the round early."""
    startup: Startup = USUAL_STARTUP
    """The part of `spent` that went before the first step, transfers left out."""
    accuracy: Share | None = None
