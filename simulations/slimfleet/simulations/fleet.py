"""Virtual devices: their nominal profiles, their true ones, and the conditions of each round.

The planner sees nominal profiles and past reports; the truth is drawn here, so that predicted and spent cost
differ as they would in the field. Every draw comes from a generator seeded by (seed, device, round): the same
on every backend, in any order, and after a resume. All noise is a factor truncated at two standard deviations
of its logarithm, `exp(±2 sigma)`: a guard with that margin can always keep a deadline.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, time, timedelta
from functools import lru_cache
from math import cos, exp, inf, log, pi
from statistics import NormalDist
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from slimfleet.client.policy import Policy
from slimfleet.compression.profiles import ProfileRow
from slimfleet.compression.types import Condition, DeviceProfile
from slimfleet.simulations.battery import DAY_S, Presence, VirtualBattery
from slimfleet.simulations.fedscale import Capacity
from slimfleet.simulations.heat import Case
from slimfleet.simulations.settings import FleetSettings

__all__ = ["BEGIN", "Conditions", "Moment", "VirtualDevice", "between", "drawn"]

Part = TypeVar("Part", float, NDArray[np.float64])

SENSES = 1
"""Stream of the draws that a device's sensors see, apart from those of its speed and its link."""

EVENING_S = 21 * 3600.0
"""Time of the day at which networks are busiest."""

TRUNCATION = 2.0
"""Noise stays within this many standard deviations of its logarithm."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """Condition of one device in one round."""

    flops_per_s: float
    train_w: float
    uplink_bytes_per_s: float
    downlink_bytes_per_s: float
    available: bool
    drops_out_at: float | None
    """Share of its round, 0..1, after which the device vanishes; None when it stays."""

    def applied(self, profile: DeviceProfile) -> DeviceProfile:
        """The true device of this round: the cost model of it is the spent cost."""
        return replace(
            profile,
            train_flops_per_s=self.flops_per_s,
            train_w=self.train_w,
            uplink_bytes_per_s=self.uplink_bytes_per_s,
            downlink_bytes_per_s=self.downlink_bytes_per_s,
        )


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment of virtual time, and what the battery of one device holds then."""

    now_s: float = 0.0
    charge_j: float | None = None
    """None for a device on mains, and for the charge that a battery has when the run begins."""
    stays_s: float = inf
    """How long from then on the device can be reached."""
    heat_w: float = 0.0
    """Its heat, as the power that would hold it."""

    def clock_time(self, seconds: float) -> time:
        """Time of the virtual day so many seconds later; virtual time begins at midnight."""
        return (datetime.min + timedelta(seconds=(self.now_s + seconds) % DAY_S)).time()


BEGIN = Moment()


@dataclass(frozen=True, slots=True)
class VirtualDevice:
    """One device of the fleet."""

    number: int
    seed: int
    profile: DeviceProfile
    """Nominal: what the planner sees."""
    true_flops_per_s: float
    true_train_w: float
    true_uplink_bytes_per_s: float
    true_downlink_bytes_per_s: float
    availability: float
    """Probability that it can be reached in a round."""
    battery: VirtualBattery | None
    """At virtual time 0; None on mains."""
    sustained_w: float | None
    """Power that its case can shed for long; None where that is no limit."""
    settings: FleetSettings = field(repr=False)

    def truth(self, conditions: Conditions, moment: Moment) -> DeviceProfile:
        """The true device of a round that begins at `moment`."""
        true = conditions.applied(self.profile)
        if not self.settings.network_evening:
            return true
        evening = (1 + cos(2 * pi * (moment.now_s - EVENING_S) / DAY_S)) / 2
        rate = 1 - self.settings.network_evening * evening
        return replace(
            true,
            uplink_bytes_per_s=rate * true.uplink_bytes_per_s,
            downlink_bytes_per_s=rate * true.downlink_bytes_per_s,
        )

    def case(self, moment: Moment) -> Case:
        """How hot the device is when its work begins."""
        if not self.settings.heat_s or self.sustained_w is None:
            return Case(0.0)
        return Case(moment.heat_w, self.sustained_w, self.settings.heat_s)

    def conditions(self, round_number: int) -> Conditions:
        """Condition of this device in round `round_number` (from 0); every call returns the same."""
        speed, up, down, available, dropout, moment = _uniforms(self.seed, self.number, 1 + round_number, n=6)
        settings = self.settings
        return Conditions(
            flops_per_s=self.true_flops_per_s * _noise(speed, settings.speed_noise),
            train_w=self.true_train_w,
            uplink_bytes_per_s=self.true_uplink_bytes_per_s * _noise(up, settings.network_noise),
            downlink_bytes_per_s=self.true_downlink_bytes_per_s * _noise(down, settings.network_noise),
            available=available < self.availability,
            drops_out_at=moment if dropout < settings.dropout else None,
        )

    def condition(
        self, round_number: int, moment: Moment, seconds: float = 0.0, joules: float = 0.0
    ) -> Condition:
        """What this device finds of itself when it has spent so many seconds and joules of a round that began at
        `moment`. One on mains has external power."""
        battery = self._battery(moment, seconds, joules)
        known = Condition(
            battery=None if battery is None else battery.level,
            charging=battery is None or battery.charging,
        )
        settings, name = self.settings, self.profile.device_class
        warmth, memory = settings.temperature_c.get(name), settings.free_memory.get(name)
        share = settings.metered.get(name)
        if share is None and warmth is None and memory is None:
            return known
        metered, warm, free = _uniforms(self.seed, self.number, 1 + round_number, SENSES, n=3)
        return replace(
            known,
            metered=None if share is None else metered < share,
            temperature_c=None if warmth is None else between(warmth, warm),
            free_memory_bytes=None if memory is None else int(between(memory, free) * self.profile.ram_bytes),
        )

    def _battery(self, moment: Moment, seconds: float, joules: float) -> VirtualBattery | None:
        began = self.battery
        if began is None:
            return None
        if moment.charge_j is not None:
            began = replace(began, charge_j=moment.charge_j, at_s=moment.now_s)
        return began.at(moment.now_s + seconds).drained(joules)

    @property
    def policy(self) -> Policy:
        """The fleet's policy. A device on mains has no battery to protect."""
        policy = self.settings.policy
        return replace(policy, battery_floor=0.0) if self.battery is None else policy


def drawn(
    number: int,
    row: ProfileRow,
    settings: FleetSettings,
    seed: int,
    charger: Presence,
    capacity: Capacity | None = None,
) -> VirtualDevice:
    """One device of a fleet, of the profile `row`; `capacity` says its true speed and rates, the profile otherwise."""
    speed, power, network, availability, charge, _ = _uniforms(seed, number, 0, n=6)
    profile = row.profile
    # lo and hi are taken as two standard deviations apart from the middle, and as hard ends.
    sigma = log(row.train_gflops_hi / row.train_gflops_lo) / (2 * TRUNCATION)
    rate = _noise(network, settings.network_spread)
    low, high = settings.start_charge
    spread = min(settings.availability, 1 - settings.availability)
    flops_per_s = 1e9 * _truncated(speed, row.train_gflops, sigma, row.train_gflops_lo, row.train_gflops_hi)
    up, down = profile.uplink_bytes_per_s * rate, profile.downlink_bytes_per_s * rate
    if capacity is not None:
        factor, up = capacity.of(number, speed, network)
        flops_per_s, down = factor * profile.train_flops_per_s, up
    return VirtualDevice(
        number=number,
        seed=seed,
        profile=profile,
        true_flops_per_s=flops_per_s,
        true_train_w=profile.train_w * _noise(power, settings.power_noise),
        true_uplink_bytes_per_s=up,
        true_downlink_bytes_per_s=down,
        availability=settings.availability + spread * (2 * availability - 1),
        battery=None
        if profile.battery_j is None
        else VirtualBattery(
            capacity_j=profile.battery_j,
            charger=charger,
            charge_j=profile.battery_j * (low + (high - low) * charge),
        ),
        sustained_w=row.sustained_w,
        settings=settings,
    )


def between(limits: tuple[float, float], share: Part) -> Part:
    """The value at a share, 0..1, of the way from the lower to the upper limit; a number or an array."""
    low, high = limits
    return low + (high - low) * share


@lru_cache(maxsize=1024)
def _uniforms(*seed: int, n: int) -> tuple[float, ...]:
    """Draws of the generator of this seed; a device looks at those of its round more than once."""
    return tuple(np.random.default_rng(seed).random(n).tolist())


def _noise(uniform: float, sigma: float) -> float:
    """A lognormal factor of median 1 within exp(±2 sigma)."""
    return _truncated(uniform, 1.0, sigma, exp(-TRUNCATION * sigma), exp(TRUNCATION * sigma))


def _truncated(uniform: float, middle: float, sigma: float, low: float, high: float) -> float:
    """Quantile `uniform` of a lognormal of median `middle` cut to low..high (inverse transform)."""
    if sigma == 0:
        return middle
    normal = NormalDist(log(middle), sigma)
    below, above = normal.cdf(log(low)), normal.cdf(log(high))
    value = float(exp(normal.inv_cdf(below + uniform * (above - below))))
    return min(max(value, low), high)
