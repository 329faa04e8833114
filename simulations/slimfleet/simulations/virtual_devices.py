"""Virtual devices: real device logic under the conditions that each round draws."""

from __future__ import annotations

from collections.abc import Callable
from datetime import time
from functools import lru_cache, partial
from pathlib import Path

from slimfleet.client.device import Device, Participant
from slimfleet.client.ledger import Balance, Ledger
from slimfleet.client.store import DeviceStore, FolderStore, MemoryStore
from slimfleet.client.watch import Watch
from slimfleet.client.workbench import Workbench
from slimfleet.compression import Assignment, Condition
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.pruning.blueprint import Blueprint, blueprint
from slimfleet.compression.types import USUAL_STARTUP
from slimfleet.simulations.carried_states import CarriedStates, CarriedStore
from slimfleet.simulations.faults import FaultyDevice, assign_faults
from slimfleet.simulations.fleet import BEGIN, Moment, VirtualDevice
from slimfleet.simulations.ledger import DeviceLost, SimulatedLedger
from slimfleet.simulations.population import build_fleet
from slimfleet.simulations.scenario import build_task_of
from slimfleet.simulations.settings import Scenario

__all__ = ["DeviceLost", "VirtualDevices"]


_DRAWN = 4096
"""Devices that are not drawn anew when they take part again: a few megabytes."""


class VirtualDevices:
    """Every device of a scenario's fleet. One task and one workbench serve them all.

    `state` is where devices keep what must outlast a round: in a folder, or in files that travel with their work; None
    keeps it in memory.
    """

    def __init__(self, scenario: Scenario, state: Path | CarriedStates | None) -> None:
        task, seed = build_task_of(scenario), scenario.coordinator.seed
        architecture = blueprint(task, seed)
        self._partitions = scenario.partitions
        self._virtual = lru_cache(maxsize=_DRAWN)(build_fleet(scenario.fleet, seed).__getitem__)
        self._workbench = Workbench(task, architecture, RUNTIMES[scenario.coordinator.client.runtime])
        self._store = _store(state, architecture)
        self._faults = assign_faults(scenario.fleet.faults, scenario.fleet.devices, seed)

    @property
    def blueprint(self) -> Blueprint:
        """The architecture that all devices share."""
        return self._workbench.blueprint

    def device(self, number: int, moment: Callable[[], Moment] = lambda: BEGIN) -> Participant:
        """Device `number` of the fleet; `moment` tells when its work begins."""
        virtual = self._virtual(number)
        device = Device(
            number,
            virtual.profile,
            self._workbench,
            self._store,
            partial(_open_ledger, virtual, moment),
            share=number % self._partitions,
            watch=Watch(virtual.policy, partial(_sense, virtual, moment)),
        )
        return FaultyDevice(device, self._faults[number]) if number in self._faults else device


def _store(state: Path | CarriedStates | None, architecture: Blueprint) -> DeviceStore:
    if state is None:
        return MemoryStore()
    if isinstance(state, CarriedStates):
        return CarriedStore(state, architecture)
    return FolderStore(state, architecture, durable=False)


def _sense(
    virtual: VirtualDevice, moment: Callable[[], Moment], round_number: int, spent: Balance
) -> tuple[Condition, time]:
    """What a device finds of itself when it has spent so much of its round."""
    began = moment()
    condition = virtual.condition(round_number, began, spent.time_s, spent.energy_j)
    return condition, began.clock_time(spent.time_s)


def _open_ledger(virtual: VirtualDevice, moment: Callable[[], Moment], assignment: Assignment) -> Ledger:
    """The ledger of one round; raises DeviceLost where the round's draw says that the device vanishes."""
    conditions = virtual.conditions(assignment.round_number)
    if conditions.drops_out_at is not None:
        share = f"{conditions.drops_out_at:.0%}"
        raise DeviceLost(f"device {virtual.number} vanished after {share} of round {assignment.round_number}")
    began = moment()
    return SimulatedLedger(
        virtual.truth(conditions, began),
        assignment.budget.power_w,
        USUAL_STARTUP.time_s,
        virtual.case(began),
        began.stays_s,
    )
