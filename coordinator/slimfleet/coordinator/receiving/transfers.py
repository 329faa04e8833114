"""Transfers of a deployed device, timed from both ends.

A model and an update travel outside the device's process: it knows no more of them than their sizes, and reports the
nominal rates of its profile. The coordinator knows when work went out and when the answer came. Clocks are not shared,
durations are: the round trip less the time on the device is the most that the two transfers can have taken. It holds
waiting too, for the device to ask for work and for its process to be launched; how much, the round trip of the
registration has shown, a message of a few bytes. Where the nominal time lies outside this range, it is corrected to the
nearer end of it. What calibration learns from is then measured, and a slow link is met by shorter plans.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from slimfleet.compression import DeviceProfile, Report
from slimfleet.compression.types import LARGEST_JOULES, LARGEST_SECONDS, PhaseCost

__all__ = ["WAIT_VARIES_S", "RoundTrip", "timed"]

WAIT_VARIES_S = 4.0
"""How much longer a round may wait for its device than the registration did: a SuperNode asks for work every three
seconds."""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """What the coordinator knows of the way to a device and back."""

    profile: DeviceProfile
    seconds: float
    """From the plan to the answer."""
    overhead_s: float | None = None
    """Of a message that carries nothing; None where it is not known."""


def timed(report: Report, trip: RoundTrip) -> Report:
    """The report with its transfers as the round trip shows them to be; unchanged where it shows nothing.

    The radio is charged its power, the joules per byte times the bytes per second of the profile, for the corrected
    time; waking it costs what it did. The uncertainty grows by the correction. Of a simulated device nothing is known:
    it does not live in the coordinator's time.
    """
    phases = report.phases
    if phases is None or report.source == "simulated":
        return report
    down, up = phases.download, phases.upload
    nominal_s = down.time_s + up.time_s
    most_s = trip.seconds - (phases.time_s - nominal_s)
    if nominal_s <= 0 or most_s <= 0:
        return report
    least_s = 0.0 if trip.overhead_s is None else max(0.0, most_s - trip.overhead_s - WAIT_VARIES_S)
    factor = min(max(nominal_s, least_s), most_s) / nominal_s
    if factor == 1.0:
        return report
    changed = replace(
        phases,
        download=_stretched(down, factor, min(trip.profile.radio_j_per_burst, down.energy_j)),
        upload=_stretched(up, factor, 0.0),
    )
    spent = replace(
        report.spent,
        energy_j=min(report.spent.energy_j + changed.radio_j - phases.radio_j, LARGEST_JOULES),
        radio_j=min(report.spent.radio_j + changed.radio_j - phases.radio_j, LARGEST_JOULES),
        time_s=min(report.spent.time_s + (factor - 1.0) * nominal_s, LARGEST_SECONDS),
    )
    return replace(report, spent=spent, phases=changed)


def _stretched(cost: PhaseCost, factor: float, fixed_j: float) -> PhaseCost:
    """A transfer that took `factor` times as long, of whose energy `fixed_j` does not depend on the time."""
    energy_j = min(fixed_j + factor * (cost.energy_j - fixed_j), LARGEST_JOULES)
    return replace(
        cost,
        time_s=min(factor * cost.time_s, LARGEST_SECONDS),
        energy_j=energy_j,
        uncertainty_j=min(cost.uncertainty_j + abs(energy_j - cost.energy_j), LARGEST_JOULES),
    )
