"""Device stores: where devices keep their state between rounds, in files or in memory.

A file holds the state of one device, sealed (`slimfleet.compression.sealed_file`):

    fields    format, device (its number), schema (digest of the full model), round (of the residual; absent
              without one), held (versions, the newest first, separated by spaces)
    tensors   before/NAME, after/NAME         float32, the residual's generations
              held/VERSION/channels           uint8, packed channel masks, as on the wire
              held/VERSION/units              float32, unit of each weight tensor, in the order of the schema
              held/VERSION/levels/NAME        int16, levels of the kept channels
              held/VERSION/plain/NAME         buffers, frozen tensors and integers, as on the wire
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from slimfleet.client.state import HELD_AT_MOST, DeviceState, Held, Residual
from slimfleet.compression import ModelSchema, PayloadError, Tensors
from slimfleet.compression.codec import Snapshot
from slimfleet.compression.errors import DiskError
from slimfleet.compression.files import naming, read_file, write_atomically
from slimfleet.compression.pruning import unpack_channels
from slimfleet.compression.sealed_file import open_sealed, seal_tensors

if TYPE_CHECKING:
    from slimfleet.compression.pruning.blueprint import Blueprint

FORMAT = "slimfleet device 2"
SUFFIX = ".device"

log = logging.getLogger(__name__)


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
class FolderStore:
    """One file a device under `root`.

    `durable` makes a save survive a power cut; a simulation does without. One process at a time may handle a device.
    """

    root: Path
    blueprint: Blueprint
    durable: bool = True

    def load(self, device: int) -> DeviceState:
        """What is stored for a device.

        Nothing where there is no file and, with an error in the log that names it, where the file is damaged, another
        device's or of another model: the device then starts without a residual, and the coordinator sends it a whole
        model. Raises DiskError where the file cannot be read.
        """
        path = self.path(device)
        try:
            with naming(path, "read"):
                content = read_file(path)
        except DiskError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return DeviceState()
            raise
        try:
            return self._opened(device, content)
        except (PayloadError, KeyError, ValueError) as flaw:
            what = f"it lacks {flaw}" if isinstance(flaw, KeyError) else flaw
            log.error("%s: %s; this device starts again without its residual and held models", path, what)
            return DeviceState()

    def save(self, device: int, state: DeviceState) -> None:
        """Store the state of a device. A kill at any moment leaves the old file or the new one.

        Raises ValueError, and leaves the old file alone, where a tensor of the residual is missing or has another shape
        than the schema says, or where there are more than two held models; DiskError where the disk refuses.
        """
        write_atomically(self.path(device), self._sealed(device, state), durable=self.durable)

    def path(self, device: int) -> Path:
        """The file of a device."""
        return self.root / f"{device}{SUFFIX}"

    def _sealed(self, device: int, state: DeviceState) -> bytes:
        if len(state.held) > HELD_AT_MOST:
            raise ValueError(f"{len(state.held)} models to store, at most {HELD_AT_MOST} are held")
        schema = self.blueprint.schema
        fields = {"format": FORMAT, "device": str(device), "schema": schema.digest.hex()}
        fields["held"] = " ".join(str(held.version) for held in state.held)
        tensors: Tensors = {}
        if state.residual is not None:
            fields["round"] = str(state.residual.round_number)
            for name, kept in (("before", state.residual.before), ("after", state.residual.after)):
                tensors |= {f"{name}/{key}": array for key, array in _checked(kept, schema.moving).items()}
        for held in state.held:
            tensors |= _held_tensors(held)
        return seal_tensors(tensors, fields)

    def _opened(self, device: int, content: bytes) -> DeviceState:
        """The state in a file. Raises PayloadError, KeyError or ValueError where it is not sound."""
        tensors, fields = open_sealed(content)
        if fields.get("format") != FORMAT:
            raise PayloadError("version", f"its format is {fields.get('format')!r}, this is {FORMAT!r}")
        if fields["device"] != str(device):
            raise PayloadError("header", f"it is the file of device {fields['device']}")
        schema = self.blueprint.schema
        if fields["schema"] != schema.digest.hex():
            raise PayloadError(
                "schema",
                f"it was made for another model ({fields['schema']}, this one is {schema.digest.hex()})",
            )
        residual = None
        if "round" in fields:
            generations = (
                {t.name: tensors[f"{g}/{t.name}"] for t in schema.moving.tensors} for g in ("before", "after")
            )
            residual = Residual(
                int(fields["round"]), *(_checked(each, schema.moving) for each in generations)
            )
        held = tuple(self._held(int(version), tensors) for version in fields["held"].split())
        return DeviceState(residual, held)

    def _held(self, version: int, tensors: Tensors) -> Held:
        prefix = f"held/{version}"
        channels = tensors[f"{prefix}/channels"].tobytes()
        schema = self.blueprint.index_map(unpack_channels(self.blueprint.groups, channels)).schema
        levels = {spec.name: tensors[f"{prefix}/levels/{spec.name}"] for spec in schema.weights}
        plain = {
            spec.name: tensors[key]
            for spec in schema.plain
            if (key := f"{prefix}/plain/{spec.name}") in tensors
        }
        shapes = {spec.name: spec.shape for spec in schema.tensors}
        if any(array.shape != shapes[name] for name, array in (levels | plain).items()):
            raise PayloadError("channels", f"the shapes of version {version} are not those of its channels")
        return Held(version, channels, Snapshot(levels, tuple(map(float, tensors[f"{prefix}/units"])), plain))


def _checked(residual: Tensors, schema: ModelSchema) -> Tensors:
    """A generation of the residual in float32. Raises ValueError where a tensor is missing or has another shape."""
    for spec in schema.tensors:
        tensor = residual.get(spec.name)
        if tensor is None or tensor.shape != spec.shape:
            found = "is missing" if tensor is None else f"has shape {list(tensor.shape)}"
            raise ValueError(f"residual {spec.name!r} {found}, the schema says {list(spec.shape)}")
    return {spec.name: residual[spec.name].astype(np.float32, copy=False) for spec in schema.tensors}


def _held_tensors(held: Held) -> Tensors:
    prefix, snapshot = f"held/{held.version}", held.snapshot
    levels = {
        f"{prefix}/levels/{name}": levels.astype(np.int16, copy=False)
        for name, levels in snapshot.levels.items()
    }
    return {
        f"{prefix}/channels": np.frombuffer(held.channels, np.uint8),
        f"{prefix}/units": np.array(snapshot.units, np.float32),
        **levels,
        **{f"{prefix}/plain/{name}": array for name, array in snapshot.plain.items()},
    }
