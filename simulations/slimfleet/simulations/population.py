"""Population: every device of a fleet as a row of arrays, drawn from the seed.

What the planner and the clock ask of every device is held in arrays; what only a device at work needs, its true speed
and its rates, is drawn when it takes part (`fleet.VirtualDevice`). Each number is the one that the device draws by
itself, so that a fleet does not depend on how it is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import overload

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import Task
from slimfleet.compression.edge.checked import Source, checked, named, refuse_unlisted
from slimfleet.compression.errors import BadInput
from slimfleet.compression.profiles import load_profiles
from slimfleet.coordinator.registry import Registry
from slimfleet.simulations.battery import DAY_S, Charger, Presence
from slimfleet.simulations.draws import uniforms
from slimfleet.simulations.fedscale import LIKE, read_capacities, read_traces, sessions
from slimfleet.simulations.fleet import SENSES, VirtualDevice, drawn
from slimfleet.simulations.settings import FleetSettings

__all__ = ["FIRST_NODE", "Population", "build_fleet", "check_fleet", "enrol"]

INFINITE = ("fleet.policy.warmest_c",)
"""Keys of a fleet that may be infinite."""

FIRST_NODE = 1
"""The node by which Flower reaches device 0; node 0 is no node."""

_SESSIONS = 2
"""Stream of the draws of sessions on the charger."""

Floats = NDArray[np.float64]
Numbers = NDArray[np.integer]


class Population(Sequence[VirtualDevice]):
    """The devices of a fleet. An item is made when it is asked for; the columns are (n,) each, by number of device."""

    def __init__(self, settings: FleetSettings, seed: int) -> None:
        """Draw the fleet: the mix as exactly as whole devices allow, in an order that the seed shuffles."""
        table = {row.name: row for row in load_profiles()}
        quotas = _quotas(settings)
        self.settings, self.seed = settings, seed
        self._rows = [table[name] for name, _ in quotas]
        self.profiles = [row.profile for row in self._rows]
        kinds = np.repeat(np.arange(len(quotas), dtype=np.uint8), [count for _, count in quotas])
        self.kind: NDArray[np.uint8] = kinds[np.random.default_rng([seed]).permutation(len(kinds))]
        """Place in `profiles`."""
        availability, charge, plugged = uniforms([seed], np.arange(len(kinds)), [0], [3, 4, 5])
        spread = min(settings.availability, 1 - settings.availability)
        low, high = settings.start_charge
        self.availability: Floats = settings.availability + spread * (2 * availability - 1)
        """Probability that it can be reached in a round."""
        self.charger = self._presence(plugged)
        self._capacity = None if settings.capacity == "profiles" else read_capacities(settings.capacity)
        self.capacity_j = np.array(
            [np.nan if profile.battery_j is None else profile.battery_j for profile in self.profiles]
        )
        """By profile; NaN on mains."""
        self.start_j: Floats = self.capacity_j[self.kind] * (low + (high - low) * charge)
        """Charge at virtual time 0; NaN on mains."""

    def _presence(self, plugged: Floats) -> Presence:
        presence = self.settings.presence
        if presence == "share":
            return Charger(plugged * DAY_S)
        if presence == LIKE:
            return sessions(uniforms([self.seed], np.arange(len(self)), [0, _SESSIONS], [0, 1, 2]))
        return read_traces(presence, len(self))

    def available(self, numbers: Numbers, round_number: int) -> NDArray[np.bool_]:
        """Which of these devices can be reached in a round, (m,)."""
        [draw] = uniforms([self.seed], numbers, [1 + round_number], [3])
        return np.asarray(draw < self.availability[numbers])

    def senses(self, numbers: Numbers, round_number: int) -> Floats:
        """Draws of what the sensors of some devices see in a round: link, temperature, free memory; (3, m)."""
        return uniforms([self.seed], numbers, [1 + round_number, SENSES], [0, 1, 2])

    def __len__(self) -> int:
        return len(self.kind)

    @overload
    def __getitem__(self, number: int) -> VirtualDevice: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[VirtualDevice]: ...
    def __getitem__(self, number: int | slice) -> VirtualDevice | Sequence[VirtualDevice]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        number = range(len(self))[number]
        row, charger = self._rows[self.kind[number]], self.charger.at(number)
        return drawn(number, row, self.settings, self.seed, charger, self._capacity)

    def __iter__(self) -> Iterator[VirtualDevice]:
        return (self[number] for number in range(len(self)))


def build_fleet(settings: FleetSettings, seed: int) -> Population:
    """Draw a fleet. Raises BadInput for an impossible one, naming the field."""
    check_fleet(settings, "the fleet")
    return Population(settings, seed)


def enrol(registry: Registry, fleet: Population, task: Task) -> None:
    """Register all devices of a fleet at once; device k holds partition k of the task's data, counted round and round.

    Raises ValueError where a device is registered already.
    """
    partitions = min(task.partitions, len(fleet))
    sizes = np.array([len(task.load(partition)) for partition in range(partitions)], np.int64)
    examples = np.resize(sizes, len(fleet))
    registry.enrol(FIRST_NODE, fleet.profiles, fleet.kind, examples)


def check_fleet(settings: FleetSettings, source: Source) -> None:
    """Raise BadInput for a fleet that cannot be drawn: a value out of bounds, an unknown profile, no weight."""
    checked(FleetSettings, asdict(settings), source, "fleet", infinite=INFINITE)
    refuse_unlisted(settings.mix, {row.name for row in load_profiles()}, source, "fleet.mix")
    if not sum(settings.mix.values()) > 0:
        where = named(source, "fleet.mix")
        raise BadInput(f"{where}: fleet.mix has no weight above 0: no device could be drawn")
    classes = {row.device_class for row in load_profiles()}
    ranges = {"start_charge": settings.start_charge}
    for key in ("metered", "temperature_c", "free_memory"):
        by_class = getattr(settings, key)
        refuse_unlisted(by_class, classes, source, f"fleet.{key}")
        if key != "metered":
            ranges |= {f"{key}.{name}": limits for name, limits in by_class.items()}
    for key, (low, high) in ranges.items():
        if low > high:
            raise BadInput(
                f"{named(source, f'fleet.{key}')}: fleet.{key} = [{low:g}, {high:g}]: must not fall"
            )


def _quotas(settings: FleetSettings) -> list[tuple[str, int]]:
    """Whole devices per profile, by largest remainder; equal remainders go to the earlier profile."""
    total = sum(settings.mix.values())
    exact = [settings.devices * weight / total for weight in settings.mix.values()]
    counts = [int(share) for share in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for i in by_remainder[: settings.devices - sum(counts)]:
        counts[i] += 1
    return list(zip(settings.mix, counts, strict=True))
