"""Calibration: per-device factors of time, energy and memory between reports and the cost model.

The cost model knows nominal devices. Each report gives a ratio spent/predicted; its logarithm is tracked by
scalar recursive least squares with forgetting (Ljung & Söderström 1983, "Theory and Practice of Recursive
Identification"), starting from the median of the device's class. Devices report about themselves, so a ratio
far from its class is rejected and the gain is bounded.

Within a round every device is judged by the class statistics of earlier rounds only (`close_round` refreshes
them), so the outcome does not depend on the order in which reports arrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import exp, inf, isfinite, log, sqrt
from typing import Annotated, Any, Literal

from pydantic import Field

from slimfleet.compression.types import Cost
from slimfleet.coordinator.learning.estimates import Estimates

Quantity = Literal["time", "energy", "memory"]
QUANTITIES: tuple[Quantity, ...] = ("time", "energy", "memory")


@dataclass(frozen=True, slots=True)
class Factor:
    """Spent over predicted: the expected value, and the standard deviation of its logarithm."""

    value: float = 1.0
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Correction:
    """How one device's costs differ from the nominal model."""

    time: Factor = Factor()
    energy: Factor = Factor()
    memory: Factor = Factor()


FORGETTING = 0.97
"""Weight of the past in recursive least squares, 0.95 to 0.98."""
INITIAL_VARIANCE = 10.0
"""Uncertainty of a new device's factor against the noise of one report: high trusts the first report."""
LARGEST_GAIN = 0.8
"""Most of a surprise that one report may carry over, 0 < gain <= 1."""
LARGEST_RATIO = 30.0
"""A ratio spent/predicted outside 1/this..this is not a measurement."""
OUTLIER_MADS = 5.0
"""A ratio further than this many median absolute deviations (scaled) from its class is rejected."""
LEAST_DEVIATION = 0.3
"""Floor of that deviation (of a natural log): a class whose first devices happen to be alike still accepts the spread
of real devices."""
LEAST_SPREAD = 0.1
"""Floor of the spread that a new device takes from its class."""
CLASS_SIZE = 5
"""Devices that a class needs before it rejects ratios or gives new devices its spread."""
PRIOR_SPREAD = 0.3
"""Standard deviation of the log ratio of a device that no report describes yet."""


@dataclass(frozen=True, slots=True)
class Track:
    """Recursive least squares on one log ratio: estimate, its relative variance, variance of residuals."""

    estimate: float
    variance: float
    residual: float

    def update(self, observed: float) -> Track:
        """Take one log ratio into account."""
        gain = min(self.variance / (FORGETTING + self.variance), LARGEST_GAIN)
        surprise = observed - self.estimate
        # The residual that matters for margins is the one left after learning, hence the factor 1 - gain.
        noise = surprise**2 * (1 - gain)
        return Track(
            estimate=self.estimate + gain * surprise,
            variance=(1 - gain) * self.variance / FORGETTING,
            residual=self.residual + max(gain, 1 - FORGETTING) * (noise - self.residual),
        )


@dataclass(frozen=True, slots=True)
class ClassPrior:
    """Prior of a new device from its class: median and deviation of the class's estimates."""

    centre: float = 0.0
    deviation: float = 0.0
    """Median absolute deviation, scaled by 1.4826 to the standard deviation of a normal distribution."""
    devices: int = 0


@dataclass(frozen=True, slots=True)
class DeviceCalibration:
    """One device's tracks."""

    device_class: str
    tracks: Mapping[Quantity, Track]
    reports: int = 0
    """Reports accepted."""


@dataclass(slots=True)
class Calibration:
    """What reports have taught about a whole fleet; one per coordinator."""

    devices: dict[str, DeviceCalibration] = field(default_factory=dict)
    priors: dict[str, dict[Quantity, ClassPrior]] = field(default_factory=dict)
    rejected: int = 0
    """Reports rejected as implausible."""
    by_class: Annotated[Any, Field(exclude=True)] = field(default=None, init=False, repr=False, compare=False)
    """Class -> `Estimates` of its `devices`, once a round was closed; what is written down does without."""

    def update(self, device: str, device_class: str, predicted: Cost, spent: Cost) -> bool:
        """Learn from one report; False when it is rejected as implausible.

        `predicted` is the uncorrected cost model's, for the steps done and the bytes sent: a round that ended early is
        then as predicted.
        """
        logs = _log_ratios(predicted, spent)
        if logs is None or not self._believable(device_class, logs):
            self.rejected += 1
            return False
        known = self.devices.get(device) or self._newcomer(device_class)
        learned = {quantity: known.tracks[quantity].update(value) for quantity, value in logs.items()}
        now = replace(known, tracks={**known.tracks, **learned}, reports=known.reports + 1)
        self.devices[device] = now
        if self.by_class is not None:
            _put(self.by_class, device, now)
        return True

    def close_round(self) -> None:
        """Refresh the class priors from all devices known; once a round, after its reports."""
        if self.by_class is None:
            self.by_class = {}
            for device, known in self.devices.items():
                _put(self.by_class, device, known)
        self.priors = {name: _priors(estimates) for name, estimates in sorted(self.by_class.items())}

    def correction(self, device: str, device_class: str) -> Correction:
        """The factors to plan with; those of its class for a device that has not reported."""
        known = self.devices.get(device) or self._newcomer(device_class)
        factors = {
            quantity: Factor(exp(track.estimate), sqrt(track.residual))
            for quantity, track in known.tracks.items()
        }
        return Correction(time=factors["time"], energy=factors["energy"], memory=factors["memory"])

    def _prior(self, device_class: str, quantity: Quantity) -> ClassPrior:
        return self.priors.get(device_class, {}).get(quantity, ClassPrior())

    def _newcomer(self, device_class: str) -> DeviceCalibration:
        tracks: dict[Quantity, Track] = {}
        for quantity in QUANTITIES:
            prior, spread = self._prior(device_class, quantity), PRIOR_SPREAD
            if prior.devices >= CLASS_SIZE:
                spread = max(prior.deviation, LEAST_SPREAD)
            # Memory is a property of the runtime, not of the chip: no spread until one is seen.
            residual = 0.0 if quantity == "memory" else spread**2
            tracks[quantity] = Track(prior.centre, INITIAL_VARIANCE, residual)
        return DeviceCalibration(device_class, tracks)

    def _believable(self, device_class: str, logs: Mapping[Quantity, float]) -> bool:
        for quantity, value in logs.items():
            if abs(value) > log(LARGEST_RATIO):
                return False
            prior = self._prior(device_class, quantity)
            reach = OUTLIER_MADS * max(prior.deviation, LEAST_DEVIATION)
            if prior.devices >= CLASS_SIZE and abs(value - prior.centre) > reach:
                return False
        return True


def _log_ratios(predicted: Cost, spent: Cost) -> dict[Quantity, float] | None:
    """Log of spent over predicted; None where a figure is not a positive number.

    A quantity of which nothing was predicted has none: the energy of a model that takes no FLOPs.
    """
    pairs: dict[Quantity, tuple[float, float]] = {
        "time": (predicted.time_s, spent.time_s),
        # Computing alone: radio energy depends on the kind of radio, and would hide a slow chip.
        "energy": (predicted.energy_j - predicted.radio_j, spent.energy_j - spent.radio_j),
        "memory": (predicted.memory_bytes, spent.memory_bytes),
    }
    pairs = {quantity: pair for quantity, pair in pairs.items() if pair[0] != 0}
    if not all(isfinite(value) and value > 0 for pair in pairs.values() for value in pair):
        return None
    ratios = {quantity: actual / expected for quantity, (expected, actual) in pairs.items()}
    # A quotient of positive numbers may still round to zero, or to infinity.
    if not all(0 < ratio < inf for ratio in ratios.values()):
        return None
    return {quantity: log(ratio) for quantity, ratio in ratios.items()}


def _put(by_class: dict[str, Estimates], device: str, known: DeviceCalibration) -> None:
    estimates = by_class.setdefault(known.device_class, Estimates(len(QUANTITIES)))
    estimates.put(device, [known.tracks[quantity].estimate for quantity in QUANTITIES])


def _priors(estimates: Estimates) -> dict[Quantity, ClassPrior]:
    return {
        quantity: ClassPrior(centre, 1.4826 * distance, len(estimates))
        for quantity, (centre, distance) in zip(QUANTITIES, estimates.centres(), strict=True)
    }
