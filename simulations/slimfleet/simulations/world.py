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

    It moves to the next answer, or to the next deadline. A lost device is silent: that it is lost shows at its own
    deadline, or after as long as it was predicted to take where there is none.
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
        return virtual.condition(round_number, self.moment(device.node, self._now_s))

    def moment(self, node: int, at_s: float) -> Moment:
        """A moment, as the device of a node has it; not before its last dispatch."""
        battery = self._batteries.get(node)
        return Moment(at_s, None if battery is None else battery.at(at_s).charge_j)

    def charge(self, node: int) -> tuple[float | None, float | None]:
        """State of charge when the run began and now, 0..1; None on mains."""
        start, now = self._fleet[node].battery, self._batteries.get(node)
        return (None, None) if start is None or now is None else (start.level, now.at(self._now_s).level)

    def arrival_s(self, dispatch: Dispatch, took_s: float | None) -> float:
        """When its device is done; the loss of one shows when its time is up."""
        return dispatch.sent_s + (self._patience_s(dispatch) if took_s is None else took_s)

    def reach(self, moment_s: float, more_may_come: bool) -> bool:
        """Move on to `moment_s`, unless an answer that is still computed may come before."""
        if more_may_come:
            return False
        self._now_s = max(self._now_s, moment_s)
        return True

    def rest(self) -> None:
        """Let the time between two rounds pass."""
        self._now_s += BETWEEN_ROUNDS_S

    def spent(self, answers: Sequence[Answer]) -> Mapping[int, Cost]:
        """Drain batteries; returns what the devices spent that gave no report."""
        silent: dict[int, Cost] = {}
        for answer in answers:
            dispatch = answer.dispatch
            if dispatch is None:
                continue
            if answer.report is not None:
                spent = answer.report.spent
            else:
                spent = self._until_lost(dispatch) if answer.spent is None else answer.spent.cost
                silent[dispatch.node] = spent
            battery = self._batteries.get(dispatch.node)
            if battery is not None:
                self._batteries[dispatch.node] = battery.at(dispatch.sent_s).drained(spent.energy_j)
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

    def _until_lost(self, dispatch: Dispatch) -> Cost:
        """A lost device woke its radio, did a share of the predicted work and sent nothing."""
        share = self._fleet[dispatch.node].conditions(dispatch.version).drops_out_at
        predicted = dispatch.predicted
        compute_j = (predicted.energy_j - predicted.radio_j) * (1.0 if share is None else share)
        return replace(
            predicted,
            energy_j=compute_j + predicted.radio_j,
            time_s=self._patience_s(dispatch),
            uplink_bytes=0,
        )

    def _patience_s(self, dispatch: Dispatch) -> float:
        """How long a device that is silent is waited for: its deadline, else as long as it was predicted to take."""
        deadline_s = dispatch.limits.deadline_s
        return dispatch.predicted.time_s if deadline_s is None else deadline_s
