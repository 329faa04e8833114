"""Virtual world: what time it is, which devices can be reached, and how full their batteries are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import Cost
from slimfleet.compression.types import USUAL_STARTUP
from slimfleet.coordinator import Answer, Dispatch
from slimfleet.coordinator.conditions import FleetConditions
from slimfleet.coordinator.registry import Nodes, Registry
from slimfleet.simulations.battery import charged
from slimfleet.simulations.fleet import Moment, between
from slimfleet.simulations.heat import heat_after
from slimfleet.simulations.population import FIRST_NODE, Population

__all__ = ["BETWEEN_ROUNDS_S", "VirtualWorld", "node_of"]

BETWEEN_ROUNDS_S = 60.0
"""Virtual time from the close of a round to the next: selection, aggregation, and devices going idle again."""

_NOT_DRAWN = -1


def node_of(device_number: int) -> int:
    """The node by which Flower reaches a device; node 0 is no node."""
    return device_number + FIRST_NODE


class VirtualWorld:
    """Virtual time over a fleet.

    It moves to the next answer, or to the next deadline. A lost device is silent: that it is lost shows at its own
    deadline, or after as long as it was predicted to take where there is none.
    """

    def __init__(self, fleet: Population) -> None:
        self._fleet = fleet
        self._capacity_j = fleet.capacity_j[fleet.kind]
        self._charge_j = fleet.start_j.copy()
        """Charge of every device at the moment that it was last drained; NaN on mains."""
        self._plugged_s = fleet.charger.until(0.0)
        """Seconds on the charger by that moment, from an arbitrary origin."""
        self._drained: dict[str, tuple[float, float]] = {}
        """Node -> the charge of its device at that moment, and the moment, for those that were drained."""
        self._now_s = 0.0
        self._by_charger = fleet.settings.presence != "share"
        """Whether devices can be reached while they are on their chargers."""
        self._heat: dict[int, tuple[float, float]] = {}
        """Device -> its heat in watts, and when that was."""
        self._reached_in, self._reached = 0, np.full(len(fleet), _NOT_DRAWN, np.int8)
        """A round, and whether it can reach each device, as far as that was looked at."""

    def now_s(self) -> float:
        """Virtual seconds since the run began."""
        return self._now_s

    def conditions(self, registry: Registry, nodes: Nodes, round_number: int) -> FleetConditions:
        """The conditions of these devices, and which of them the round can reach."""
        numbers = (nodes - np.uint64(FIRST_NODE)).astype(np.intp)
        plugged_s, is_plugged = self._fleet.charger.at(numbers).look(self._now_s)
        plugged_s -= self._plugged_s[numbers]
        capacity_j = self._capacity_j[numbers]
        battery = charged(self._charge_j[numbers], capacity_j, plugged_s) / capacity_j
        found = replace(
            FleetConditions.unknown(len(nodes)),
            reached=is_plugged | np.isnan(battery)
            if self._by_charger
            else self._available(numbers, round_number),
            battery=battery,
            charging=(is_plugged | np.isnan(battery)).astype(np.int8),
        )
        self._sense(found, numbers, round_number)
        return found

    def moment(self, node: int, at_s: float) -> Moment:
        """A moment, as the device of a node has it; not before its last dispatch."""
        number = node - FIRST_NODE
        charge_j = self._charge_at(number, at_s)
        heat_w = self._heat_at(number, at_s)
        return Moment(at_s, None if charge_j != charge_j else charge_j, self._stays_s(number, at_s), heat_w)

    def charge(self, node: int) -> tuple[float | None, float | None]:
        """State of charge when the run began and now, 0..1; None on mains."""
        number = node - FIRST_NODE
        capacity_j = float(self._capacity_j[number])
        if capacity_j != capacity_j:
            return None, None
        return float(self._fleet.start_j[number]) / capacity_j, self._charge_at(
            number, self._now_s
        ) / capacity_j

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
            self._drain(dispatch.node - FIRST_NODE, dispatch.sent_s, spent.energy_j)
            self._warm(dispatch.node - FIRST_NODE, dispatch.sent_s, spent)
        return silent

    def to_json(self) -> dict[str, Any]:
        """Time, and the charge of the devices that were drained: all of the world that is not drawn from the seed."""
        heat = {str(node_of(number)): list(known) for number, known in self._heat.items()}
        return {"now_s": self._now_s, "drained": dict(self._drained), "heat": heat}

    def restore(self, values: dict[str, Any]) -> None:
        """Return to the moment at which `to_json` was called."""
        self._now_s = values["now_s"]
        for node, (charge_j, at_s) in values["drained"].items():
            self._set(int(node) - FIRST_NODE, charge_j, at_s)
        self._heat = {
            int(node) - FIRST_NODE: (heat_w, at_s) for node, (heat_w, at_s) in values["heat"].items()
        }

    def _available(self, numbers: NDArray[np.intp], round_number: int) -> NDArray[np.bool_]:
        if round_number != self._reached_in:
            self._reached_in = round_number
            self._reached.fill(_NOT_DRAWN)
        new = numbers[self._reached[numbers] == _NOT_DRAWN]
        if len(new):
            self._reached[new] = self._fleet.available(new, round_number)
        return np.asarray(self._reached[numbers] == 1)

    def _stays_s(self, number: int, at_s: float) -> float:
        """How long a device can be reached from a moment on."""
        has_battery = not np.isnan(self._capacity_j[number])
        return float(self._fleet.charger.at(number).left_s(at_s)) if self._by_charger and has_battery else inf

    def _heat_at(self, number: int, at_s: float) -> float:
        heat_w, since_s = self._heat.get(number, (0.0, 0.0))
        return heat_after(heat_w, 0.0, at_s - since_s, self._fleet.settings.heat_s) if heat_w else 0.0

    def _warm(self, number: int, at_s: float, spent: Cost) -> None:
        """Heat a device by its round, at the mean power of computing."""
        constant_s = self._fleet.settings.heat_s
        if constant_s and spent.time_s > 0:
            power_w = (spent.energy_j - spent.radio_j) / spent.time_s
            heat_w = heat_after(self._heat_at(number, at_s), power_w, spent.time_s, constant_s)
            self._heat[number] = heat_w, at_s + spent.time_s

    def _charge_at(self, number: int, at_s: float) -> float:
        plugged_s = self._fleet.charger.at(number).until(at_s) - self._plugged_s[number]
        return float(charged(self._charge_j[number], self._capacity_j[number], plugged_s))

    def _drain(self, number: int, at_s: float, joules: float) -> None:
        charge_j = self._charge_at(number, at_s)
        if charge_j == charge_j:
            self._set(number, max(charge_j - joules, 0.0), at_s)

    def _set(self, number: int, charge_j: float, at_s: float) -> None:
        self._charge_j[number], self._drained[str(node_of(number))] = charge_j, (charge_j, at_s)
        self._plugged_s[number] = self._fleet.charger.at(number).until(at_s)

    def _sense(self, found: FleetConditions, numbers: NDArray[np.intp], round_number: int) -> None:
        """Fill in what the sensors of those classes see that the settings name, of the devices that are reached."""
        settings, fleet = self._fleet.settings, self._fleet
        named = settings.metered.keys() | settings.temperature_c.keys() | settings.free_memory.keys()
        for kind, profile in enumerate(fleet.profiles):
            name = profile.device_class
            if name not in named:
                continue
            rows = np.flatnonzero(found.reached & (fleet.kind[numbers] == kind))
            link, warm, free = fleet.senses(numbers[rows], round_number)
            if (share := settings.metered.get(name)) is not None:
                found.metered[rows] = link < share
            if warmth := settings.temperature_c.get(name):
                found.temperature_c[rows] = between(warmth, warm)
            if memory := settings.free_memory.get(name):
                found.free_memory_bytes[rows] = between(memory, free) * profile.ram_bytes

    def _until_lost(self, dispatch: Dispatch) -> Cost:
        """A lost device woke its radio, did a share of the predicted work and sent nothing."""
        number, predicted = dispatch.node - FIRST_NODE, dispatch.predicted
        share = self._fleet[number].conditions(dispatch.version).drops_out_at
        stays_s = self._stays_s(number, dispatch.sent_s)
        if share is None and stays_s < inf:
            return self._by_then(dispatch, stays_s)
        if share is not None and self._fleet.settings.dropout_phase == "any":
            return self._by_then(dispatch, share * predicted.time_s)
        compute_j = (predicted.energy_j - predicted.radio_j) * (1.0 if share is None else share)
        return replace(
            predicted,
            energy_j=compute_j + predicted.radio_j,
            time_s=self._patience_s(dispatch),
            uplink_bytes=0,
        )

    def _by_then(self, dispatch: Dispatch, seconds: float) -> Cost:
        """What the start-up, the download, training and the upload have taken so many seconds after the begin."""
        predicted, profile = (
            dispatch.predicted,
            self._fleet.profiles[self._fleet.kind[dispatch.node - FIRST_NODE]],
        )
        down_s = predicted.downlink_bytes / profile.downlink_bytes_per_s
        up_s = predicted.uplink_bytes / profile.uplink_bytes_per_s
        train_s = max(predicted.time_s - USUAL_STARTUP.time_s - down_s - up_s, 0.0)
        left_s, radio_j, compute_j = seconds - USUAL_STARTUP.time_s, 0.0, 0.0
        if left_s > 0:
            share = min(left_s / down_s, 1.0) if down_s else 1.0
            down_j = profile.radio_j_per_byte_down * predicted.downlink_bytes
            radio_j += min(profile.radio_j_per_burst + share * down_j, predicted.radio_j)
        left_s -= down_s
        if left_s > 0:
            share = min(left_s / train_s, 1.0) if train_s else 1.0
            compute_j += share * (predicted.energy_j - predicted.radio_j)
        left_s -= train_s
        if left_s > 0:
            share = min(left_s / up_s, 1.0) if up_s else 1.0
            radio_j = min(
                radio_j + share * profile.radio_j_per_byte_up * predicted.uplink_bytes, predicted.radio_j
            )
        return replace(
            predicted,
            energy_j=compute_j + radio_j,
            radio_j=radio_j,
            time_s=self._patience_s(dispatch),
            uplink_bytes=0,
        )

    def _patience_s(self, dispatch: Dispatch) -> float:
        """How long a device that is silent is waited for: its deadline, else as long as it was predicted to take."""
        deadline_s = dispatch.limits.deadline_s
        return dispatch.predicted.time_s if deadline_s is None else deadline_s
