"""Virtual world: what time it is, which devices can be reached, and how full their batteries are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from slimfleet.compression import Condition, Cost
from slimfleet.coordinator import Answer, Dispatch
from slimfleet.coordinator.registry import DeviceRecord
from slimfleet.simulations.battery import VirtualBattery
from slimfleet.simulations.fleet import Moment, VirtualDevice

__all__ = ["BETWEEN_ROUNDS_S", "VirtualWorld", "node_of"]

BETWEEN_ROUNDS_S = 60.0
"""Virtual time from the close of a round to the next: selection, aggregation, and devices going idle again."""


def node_of(device_number: int) -> int:
    """The node by which Flower reaches a device; node 0 is no node."""
    return device_number + 1


class VirtualWorld:
    """Virtual time over a fleet.

    A round lasts as long as its slowest device. A lost device holds it up until its deadline, or for as long as it was
    predicted to take where there is none.
    """

    def __init__(self, fleet: Sequence[VirtualDevice]) -> None:
        self._fleet = {node_of(device.number): device for device in fleet}
        self._batteries = {node: d.battery for node, d in self._fleet.items() if d.battery is not None}
        self._now_s = 0.0

    def now_s(self) -> float:
        """Virtual seconds since the run began."""
        return self._now_s

    def status(self, device: DeviceRecord, round_number: int) -> Condition | None:
        """The condition of a device, or None when this round finds it out of reach."""
        virtual = self._fleet[device.node]
        if not virtual.conditions(round_number).available:
            return None
        return virtual.condition(round_number, self.moment(device.node))

    def moment(self, node: int) -> Moment:
        """Now, as the device of a node has it."""
        battery = self._batteries.get(node)
        return Moment(self._now_s, None if battery is None else battery.at(self._now_s).charge_j)

    def charge(self, node: int) -> tuple[float | None, float | None]:
        """State of charge when the run began and now, 0..1; None on mains."""
        start, now = self._fleet[node].battery, self._batteries.get(node)
        return (None, None) if start is None or now is None else (start.level, now.at(self._now_s).level)

    def advance(self, now_s: float, answers: Sequence[Answer], round_number: int) -> Mapping[int, Cost]:
        """Drain batteries and let the round's time pass; returns what the devices spent that were lost under way."""
        silent: dict[int, Cost] = {}
        longest_s = 0.0
        for answer in answers:
            dispatch = answer.dispatch
            if dispatch is None:
                continue
            if answer.report is None:
                said = answer.spent
                spent = self._until_lost(dispatch, round_number) if said is None else said.cost
                silent[dispatch.node] = spent
            else:
                spent = answer.report.spent
            longest_s = max(longest_s, spent.time_s)
            battery = self._batteries.get(dispatch.node)
            if battery is not None:
                self._batteries[dispatch.node] = battery.at(now_s).drained(spent.energy_j)
        self._now_s = now_s + (longest_s + BETWEEN_ROUNDS_S)
        return silent

    def to_json(self) -> dict[str, Any]:
        """Time and charge: all of the world that is not drawn from the seed."""
        return {"now_s": self._now_s, "batteries": {str(n): asdict(b) for n, b in self._batteries.items()}}

    def restore(self, values: dict[str, Any]) -> None:
        """Return to the moment at which `to_json` was called."""
        self._now_s = values["now_s"]
        self._batteries = {
            int(node): VirtualBattery(**battery) for node, battery in values["batteries"].items()
        }

    def _until_lost(self, dispatch: Dispatch, round_number: int) -> Cost:
        """A lost device woke its radio, did a share of the predicted work and sent nothing; the round waits for it."""
        share = self._fleet[dispatch.node].conditions(round_number).drops_out_at
        predicted, deadline_s = dispatch.predicted, dispatch.limits.deadline_s
        compute_j = (predicted.energy_j - predicted.radio_j) * (1.0 if share is None else share)
        return replace(
            predicted,
            energy_j=compute_j + predicted.radio_j,
            time_s=predicted.time_s if deadline_s is None else deadline_s,
            uplink_bytes=0,
        )
