"""A fleet of virtual devices: what they nominally are, what they truly are, and how each round finds them.

The planner sees nominal profiles and past reports; the truth is drawn here, so that predicted and spent cost
differ as they would in the field. Every draw comes from a generator seeded by (seed, device, round): the same
on every backend, in any order, and after a resume. All noise is a factor truncated at two standard deviations
of its logarithm, `exp(±2 sigma)`: a guard with that margin can always keep a deadline.

The default mix is mostly phones, a few of them on LTE, and some boards; shares are our choice, not a census:

    phone_entry_2017  20%    phone_high_2019        12%    pi_zero_2w         4%    pi_5                2%
    phone_mid_2019    30%    phone_flagship_a18pro   5%    pi_3b_plus         3%    linux_sbc_qrb2210   2%
    phone_mid_qcs6490 12%    phone_lte_only          6%    pi_4b              4%
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import exp, log
from statistics import NormalDist

import numpy as np

from slimfleet.compression.errors import BadInput
from slimfleet.compression.types import DeviceProfile
from slimfleet.simulations.battery import DAY_S, VirtualBattery
from slimfleet.simulations.profiles import ProfileRow, load_profiles

DEFAULT_MIX: tuple[tuple[str, float], ...] = (
    ("phone_entry_2017", 20),
    ("phone_mid_2019", 30),
    ("phone_mid_qcs6490", 12),
    ("phone_high_2019", 12),
    ("phone_flagship_a18pro", 5),
    ("phone_lte_only", 6),
    ("pi_zero_2w", 4),
    ("pi_3b_plus", 3),
    ("pi_4b", 4),
    ("pi_5", 2),
    ("linux_sbc_qrb2210", 2),
)

TRUNCATION = 2.0
"""Noise stays within this many standard deviations of its logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Who is in the fleet and how it behaves. Noise is the standard deviation of a natural logarithm."""

    devices: int = 100
    mix: tuple[tuple[str, float], ...] = DEFAULT_MIX
    """(profile name, weight); weights need not sum to 1."""
    availability: float = 0.9
    """Mean share of rounds in which a device can be reached; devices differ, evenly spread around it."""
    dropout: float = 0.02
    """Probability that a device vanishes within a round."""
    speed_noise: float = 0.1
    """Of speed, round to round (other load, heat)."""
    power_noise: float = 0.1
    """Of training power, device to device."""
    network_spread: float = 0.4
    """Of network rates, device to device."""
    network_noise: float = 0.25
    """Of network rates, round to round."""
    battery_floor: float = 0.2
    """State of charge below which a device takes no part."""
    start_charge: tuple[float, float] = (0.4, 1.0)
    """Range of the state of charge at the start."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """How one round finds one device."""

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
    settings: FleetSettings = field(repr=False)

    def conditions(self, round_number: int) -> Conditions:
        """How round `round_number` (from 0) finds this device; the same each time it is asked."""
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


def build_fleet(settings: FleetSettings, seed: int) -> tuple[VirtualDevice, ...]:
    """Draw the fleet: the mix as exactly as whole devices allow, who is which shuffled by the seed.

    Raises BadInput for an impossible fleet, naming the field.
    """
    table = {row.name: row for row in load_profiles()}
    _check(settings, table)
    kinds = [table[name] for name, count in _quotas(settings) for _ in range(count)]
    order = np.random.default_rng([seed]).permutation(len(kinds))
    return tuple(_device(number, kinds[kind], settings, seed) for number, kind in enumerate(order))


def _device(number: int, row: ProfileRow, settings: FleetSettings, seed: int) -> VirtualDevice:
    speed, power, network, availability, charge, plugged = _uniforms(seed, number, 0, n=6)
    profile = row.profile
    # lo and hi are taken as two standard deviations apart from the middle, and as hard ends.
    sigma = log(row.train_gflops_hi / row.train_gflops_lo) / (2 * TRUNCATION)
    rate = _noise(network, settings.network_spread)
    low, high = settings.start_charge
    spread = min(settings.availability, 1 - settings.availability)
    return VirtualDevice(
        number=number,
        seed=seed,
        profile=profile,
        true_flops_per_s=1e9
        * _truncated(speed, row.train_gflops, sigma, row.train_gflops_lo, row.train_gflops_hi),
        true_train_w=profile.train_w * _noise(power, settings.power_noise),
        true_uplink_bytes_per_s=profile.uplink_bytes_per_s * rate,
        true_downlink_bytes_per_s=profile.downlink_bytes_per_s * rate,
        availability=settings.availability + spread * (2 * availability - 1),
        battery=None
        if profile.battery_j is None
        else VirtualBattery(
            capacity_j=profile.battery_j,
            plugged_from_s=plugged * DAY_S,
            charge_j=profile.battery_j * (low + (high - low) * charge),
        ),
        settings=settings,
    )


def _uniforms(*seed: int, n: int) -> list[float]:
    values: list[float] = np.random.default_rng(seed).random(n).tolist()
    return values


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


def _quotas(settings: FleetSettings) -> list[tuple[str, int]]:
    """Whole devices per profile, by largest remainder; equal remainders go to the earlier profile."""
    total = sum(weight for _, weight in settings.mix)
    exact = [settings.devices * weight / total for _, weight in settings.mix]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: settings.devices - sum(counts)]:
        counts[i] += 1
    return [(name, count) for (name, _), count in zip(settings.mix, counts, strict=True)]


def _check(settings: FleetSettings, table: dict[str, ProfileRow]) -> None:
    if settings.devices < 1:
        raise BadInput(f"devices is {settings.devices}; a fleet needs at least 1")
    for name, weight in settings.mix:
        if name not in table:
            raise BadInput(
                f"mix names the profile {name!r}, which does not exist; there are {', '.join(table)}"
            )
        if not 0 <= weight < float("inf"):
            raise BadInput(f"mix gives {name!r} the weight {weight}; a weight is a finite number, 0 or more")
    if not sum(weight for _, weight in settings.mix) > 0:
        raise BadInput("mix has no weight above 0; name at least one profile")
    for name in ("availability", "dropout", "battery_floor"):
        if not 0 <= getattr(settings, name) <= 1:
            raise BadInput(f"{name} is {getattr(settings, name)}; it must lie between 0 and 1")
    for name in ("speed_noise", "power_noise", "network_spread", "network_noise"):
        if not 0 <= getattr(settings, name) <= 2:
            raise BadInput(f"{name} is {getattr(settings, name)}; it must lie between 0 and 2")
    low, high = settings.start_charge
    if not 0 <= low <= high <= 1:
        raise BadInput(f"start_charge is {low}..{high}; it must be a range within 0..1")
