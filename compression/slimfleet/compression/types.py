"""The words of slimfleet: what a device is, may spend, is asked to do, and did spend.

Units stand in the names; `None` means no limit. Everything here is frozen and free of torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NewType

import numpy as np
from numpy.typing import NDArray

Precision = Literal["float32", "bfloat16"]
EnergySource = Literal["measured", "estimated", "simulated"]

Tensors = dict[str, NDArray[Any]]
"""A model, or a change of one: name -> array, in the order of its `ModelSchema`."""

Channels = Mapping[str, NDArray[np.intp]]
"""Which channels of each channel group are kept: group name -> sorted channel numbers."""

Payload = NewType("Payload", bytes)
"""Bytes that go over the wire. A size is always `len(payload)`, never a formula."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What one device may spend on one round."""

    energy_j: float | None = None
    power_w: float | None = None
    """Mean power while training."""
    memory_bytes: int | None = None
    """Peak memory of the process."""
    deadline_s: float | None = None
    uplink_bytes: int | None = None
    downlink_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceProfile:
    """What a device nominally is. Its true speed differs; reports correct the picture."""

    name: str
    device_class: str
    ram_bytes: int
    train_flops_per_s: float
    idle_w: float
    train_w: float
    """Power drawn for training, above idle."""
    uplink_bytes_per_s: float
    downlink_bytes_per_s: float
    radio_j_per_byte_up: float
    radio_j_per_byte_down: float
    radio_j_per_burst: float
    """Fixed energy of waking the radio (and of its tail), once a round."""
    battery_j: float | None = None
    """Capacity of the battery; None on mains."""
    bfloat16: bool = False
    """Whether this device trains faster in bfloat16 than in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a device is asked to do in one round."""

    width: float
    """Share of the channels kept, 0 < width <= 1."""
    local_steps: int
    batch_size: int
    bits: int
    """Bits of a quantised update value, 1..8; 32 sends plain float32 (the baseline)."""
    sparsity: float
    """Share of the update's values that are sent as zero, 0 <= sparsity < 1."""
    precision: Precision = "float32"
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip:
    """A device that fits no plan, and the constraint that binds."""

    constraint: str
    """A field name of `Budget`, or a word of the registry such as `battery`."""
    needed: float
    limit: float

    @property
    def reason(self) -> str:
        """One sentence for people."""
        return f"{self.constraint}: the least plan needs {self.needed:.4g}, the limit is {self.limit:.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a round costs one device: predicted by the cost model, or spent."""

    energy_j: float
    """In all, radio included."""
    radio_j: float
    """The part of `energy_j` spent on the radio; 0 where a meter cannot tell."""
    time_s: float
    memory_bytes: int
    uplink_bytes: int
    downlink_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a device says about a round it did."""

    spent: Cost
    source: EnergySource
    loss: float
    """Mean training loss over the local steps."""
    examples: int
    """Number of local examples: the weight of the update."""
    steps: int
    """Local steps done; fewer than planned when the budget guard stopped the round."""
    stopped_by: str | None = None
    """The constraint that ended the round early."""
    accuracy: float | None = None
