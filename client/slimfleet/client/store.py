"""Device stores: where devices keep their state between rounds, in files or in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from slimfleet.client.state import DeviceState
from slimfleet.client.state_file import open_state, seal_state
from slimfleet.compression.errors import DiskError
from slimfleet.compression.files import naming, read_file, write_atomically

if TYPE_CHECKING:
    from slimfleet.compression.pruning.blueprint import Blueprint

SUFFIX = ".device"


class DeviceStore(Protocol):
    """Keeps the state of devices, by number."""

    def load(self, device: int) -> DeviceState:
        """What was saved last; a `DeviceState` of nothing for a device that saved none."""
        ...

    def save(self, device: int, state: DeviceState) -> None:
        """Keep `state` in place of what was saved before."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryStore:
    """State that ends with the process: for a loop over devices that needs no files."""

    _states: dict[int, DeviceState] = field(default_factory=dict, repr=False)

    def load(self, device: int) -> DeviceState:
        """What was saved last."""
        return self._states.get(device, DeviceState())

    def save(self, device: int, state: DeviceState) -> None:
        """Keep `state`, whose arrays must not change from here on."""
        self._states[device] = state


@dataclass(frozen=True, slots=True)
class StateFiles:
    """Contents of one file a device under `root`; `durable` makes a write survive a power cut."""

    root: Path
    durable: bool = True

    def path(self, device: int) -> Path:
        """The file of a device."""
        return self.root / _name(device)

    def read(self, device: int) -> bytes | None:
        """The content of a device's file; None where there is none. Raises DiskError where it cannot be read."""
        try:
            # First, since most devices of a fleet have none, and paths and errors are slow to make.
            os.lstat(f"{self.root}{os.sep}{_name(device)}")
        except FileNotFoundError:
            return None
        except OSError:
            pass  # said below
        path = self.path(device)
        try:
            with naming(path, "read"):
                return read_file(path)
        except DiskError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def write(self, device: int, content: bytes) -> None:
        """A kill at any moment leaves the old file or the new one. Raises DiskError where the disk refuses."""
        write_atomically(self.path(device), content, durable=self.durable)


def _name(device: int) -> str:
    return f"{device}{SUFFIX}"


@dataclass(frozen=True, slots=True)
class FolderStore:
    """One file a device under `root`.

    `durable` makes a save survive a power cut; a simulation does without. One process at a time may handle a device.
    """

    root: Path
    blueprint: Blueprint
    durable: bool = True

    def load(self, device: int) -> DeviceState:
        """What is stored for a device; nothing where there is no file, or `open_state` finds it damaged.

        Raises DiskError where the file cannot be read.
        """
        content = self._files.read(device)
        return (
            DeviceState()
            if content is None
            else open_state(self.blueprint, device, content, self.path(device))
        )

    def save(self, device: int, state: DeviceState) -> None:
        """Store the state of a device. A kill at any moment leaves the old file or the new one.

        Raises ValueError, and leaves the old file alone, where `seal_state` does; DiskError where the disk refuses.
        """
        self._files.write(device, seal_state(self.blueprint, device, state))

    def path(self, device: int) -> Path:
        """The file of a device."""
        return self._files.path(device)

    @property
    def _files(self) -> StateFiles:
        return StateFiles(self.root, self.durable)
