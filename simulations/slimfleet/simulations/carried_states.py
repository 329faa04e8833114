"""Carried states: what devices keep between rounds, where it travels with their work.

A worker on another machine does not see the folder of a run. So the driver reads a device's file when it sends the
device's work, and writes the file that comes back with the answer: no shared file system is needed, a worker holds
nothing that its death could lose, and work that is done again begins with the same state.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from slimfleet.client.state import DeviceState
from slimfleet.client.state_file import open_state, seal_state
from slimfleet.client.store import StateFiles

if TYPE_CHECKING:
    from slimfleet.compression.pruning.blueprint import Blueprint

__all__ = ["CarriedStates", "CarriedStore"]


@dataclass(frozen=True, slots=True)
class CarriedStates:
    """Contents of the files of some devices, away from their folder."""

    home: Path
    """The folder where the driver keeps the files."""
    contents: dict[int, bytes] = field(default_factory=dict)
    """Device -> content of its file."""

    def put(self, contents: dict[int, bytes]) -> None:
        """Take the files that come with a piece of work, in place of all others."""
        self.contents.clear()
        self.contents.update(contents)

    def changed(self, since: dict[int, bytes]) -> dict[int, bytes]:
        """The files that have been written since `put`."""
        return {device: now for device, now in self.contents.items() if now is not since.get(device)}


@dataclass(frozen=True, slots=True)
class CarriedStore:
    """A device store over carried states."""

    states: CarriedStates
    blueprint: Blueprint

    def load(self, device: int) -> DeviceState:
        """What came with the work; nothing where nothing came, or `open_state` finds it damaged."""
        content = self.states.contents.get(device)
        if content is None:
            return DeviceState()
        return open_state(self.blueprint, device, content, StateFiles(self.states.home).path(device))

    def save(self, device: int, state: DeviceState) -> None:
        """Keep `state`, to be sent home with the answer."""
        self.states.contents[device] = seal_state(self.blueprint, device, state)
