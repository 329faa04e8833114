"""Cost model: time, energy, memory and bytes of a plan on a device, predicted before it runs.

    time_s   = t0 + F/g + bytes_up/rate_up + bytes_down/rate_down
    energy_j = E0 + P·F/g + e_burst + e_up·bytes_up + e_down·bytes_down
    memory   = R0 + parameters·(weights + gradients + optimiser state) + c + k·A(width, batch)

F and A come from `measure_work` on the shrunk model: only structured pruning lowers them, a mask lowers only
bytes. t0 and E0 are the start-up of a device, which its messages state.
One implementation serves a single plan and arrays of candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import ceil

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.cost.runtime import RUNTIMES, Runtime
from slimfleet.compression.cost.size import UpdateSizeModel
from slimfleet.compression.cost.work import Work
from slimfleet.compression.types import Cost, DeviceProfile, Plan, Startup

Floats = NDArray[np.float64]

PARAMETER_COPIES = 3
"""Weights, gradients and the momentum of SGD, each the size of the parameters."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What rounds require of a device: arrays of one shape, or numbers for a single round."""

    flops: Floats | float
    activation_bytes: Floats | float
    """Activations of one batch."""
    parameter_bytes: Floats | float
    uplink_bytes: Floats | float
    downlink_bytes: Floats | float

    @classmethod
    def of(cls, plan: Plan, work: Work, uplink_bytes: float, downlink_bytes: float) -> Demand:
        """The demand of `plan`; `work` is that of the model at the plan's width."""
        return cls(
            flops=work.flops_per_example * plan.local_steps * plan.batch_size,
            activation_bytes=work.activation_bytes_per_example * plan.batch_size,
            parameter_bytes=work.parameter_bytes,
            uplink_bytes=uplink_bytes,
            downlink_bytes=downlink_bytes,
        )


@dataclass(frozen=True, slots=True)
class Figures:
    """What the cost model needs of the profiles of d devices, (d, 1) each; NaN where a profile says nothing."""

    train_flops_per_s: Floats
    train_w: Floats
    uplink_bytes_per_s: Floats
    downlink_bytes_per_s: Floats
    radio_j_per_byte_up: Floats
    radio_j_per_byte_down: Floats
    radio_j_per_burst: Floats
    runtime_base_bytes: Floats
    runtime_fixed_bytes: Floats
    runtime_activation_factor: Floats

    @classmethod
    def of(cls, profiles: Sequence[DeviceProfile]) -> Figures:
        """The figures of these profiles."""
        return cls(
            **{
                each.name: np.array([getattr(p, each.name) for p in profiles], np.float64).reshape(-1, 1)
                for each in fields(cls)
            }
        )

    def at(self, devices: NDArray[np.intp]) -> Figures:
        """The figures of some of the devices."""
        return Figures(**{each.name: getattr(self, each.name)[devices] for each in fields(self)})


@dataclass(frozen=True, slots=True)
class Costs:
    """Predicted costs of the rounds of a `Demand`, in the units and shapes of `Cost` and of the demand."""

    energy_j: Floats
    radio_j: Floats
    startup_j: Floats | float
    """The part of `energy_j` that no plan changes."""
    time_s: Floats
    memory_bytes: Floats


@dataclass(frozen=True)
class CostModel:
    """Costs of any plan on any device, for one task and one runtime."""

    runtime: Runtime = RUNTIMES["torch"]
    works: Mapping[float, Work] = field(default_factory=dict)
    """The measured work of the model at each width a planner may choose."""
    sizes: UpdateSizeModel = field(default_factory=UpdateSizeModel)
    startup_s: Floats | float = 0.5
    """t0: from the plan's arrival to the first training step, and from the last one to the upload."""
    startup_j: Floats | float = 0.0
    """E0: the energy of that time, radio left out."""

    def on(self, startup: Startup) -> CostModel:
        """This model for a device whose start-up is known."""
        return replace(self, startup_s=startup.time_s, startup_j=startup.energy_j)

    def predict(
        self,
        profile: DeviceProfile,
        plan: Plan,
        work: Work,
        uplink_bytes: float,
        downlink_bytes: float,
        power_w: float | None = None,
    ) -> Cost:
        """The cost of one plan; `power_w` is the mean power above idle that the device must keep to."""
        demand = Demand.of(plan, work, uplink_bytes, downlink_bytes)
        costs = self.costs(profile, demand, power_w)
        return Cost(
            energy_j=float(costs.energy_j),
            radio_j=float(costs.radio_j),
            time_s=float(costs.time_s),
            memory_bytes=ceil(float(costs.memory_bytes)),
            uplink_bytes=ceil(uplink_bytes),
            downlink_bytes=ceil(downlink_bytes),
        )

    def costs(
        self, profile: DeviceProfile | Figures, demand: Demand, power_w: Floats | float | None = None
    ) -> Costs:
        """The cost of every round in `demand`, on one device or, with start-up and power (d, 1), on d of them.

        A device whose training power exceeds `power_w` pauses so that the mean holds: its energy is the same,
        its training takes energy / power_w. In bfloat16 a device keeps at most half the activation bytes, but
        autocast keeps some in float32; the prediction stays on the safe side and does not count on it.
        """
        training_s = np.asarray(demand.flops, np.float64) / profile.train_flops_per_s
        training_j = profile.train_w * training_s
        if power_w is not None:
            training_s = np.where(np.less(power_w, profile.train_w), training_j / power_w, training_s)
        up, down = np.asarray(demand.uplink_bytes), np.asarray(demand.downlink_bytes)
        radio_j = (
            profile.radio_j_per_burst
            + profile.radio_j_per_byte_up * up
            + profile.radio_j_per_byte_down * down
        )
        transfer_s = up / profile.uplink_bytes_per_s + down / profile.downlink_bytes_per_s
        return Costs(
            energy_j=self.startup_j + training_j + radio_j,
            radio_j=radio_j,
            startup_j=self.startup_j,
            time_s=self.startup_s + training_s + transfer_s,
            memory_bytes=self._memory(profile, demand),
        )

    def _memory(self, profile: DeviceProfile | Figures, demand: Demand) -> Floats:
        runtime = self.runtime
        return _memory(
            _stated(profile.runtime_base_bytes, runtime.base_bytes)
            + _stated(profile.runtime_fixed_bytes, runtime.fixed_bytes),
            _stated(profile.runtime_activation_factor, runtime.activation_factor),
            demand.parameter_bytes,
            demand.activation_bytes,
        )


def peak_memory_bytes(runtime: Runtime, work: Work, batch_size: int) -> int:
    """Predicted peak memory of training at one batch size, without margin."""
    activation_bytes = work.activation_bytes_per_example * batch_size
    unchanging_bytes = runtime.base_bytes + runtime.fixed_bytes
    return ceil(_memory(unchanging_bytes, runtime.activation_factor, work.parameter_bytes, activation_bytes))


def _stated(figure: Floats | float | None, usual: float) -> Floats | float:
    """A figure of the runtime as profiles state it, the usual one where they do not."""
    if figure is None:
        return usual
    unknown = np.isnan(figure)
    # One number for all devices, where none states its own, is weighed once instead of once a device.
    return usual if unknown.all() else np.where(unknown, usual, figure)


def _memory(
    unchanging_bytes: Floats | float,
    activation_factor: Floats | float,
    parameter_bytes: Floats | float,
    activation_bytes: Floats | float,
) -> Floats:
    kept = PARAMETER_COPIES * np.asarray(parameter_bytes, np.float64)
    return np.asarray(unchanging_bytes + kept + activation_factor * np.asarray(activation_bytes))
