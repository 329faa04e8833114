"""State file: what a device keeps between rounds, as bytes that a disk or a message carries.

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
from typing import TYPE_CHECKING

import numpy as np

from slimfleet.client.state import HELD_AT_MOST, DeviceState, Held, Residual
from slimfleet.compression import ModelSchema, PayloadError, Tensors
from slimfleet.compression.codec import Snapshot
from slimfleet.compression.pruning import unpack_channels
from slimfleet.compression.sealed_file import open_sealed, seal_tensors

if TYPE_CHECKING:
    from slimfleet.compression.pruning.blueprint import Blueprint

FORMAT = "slimfleet device 2"

log = logging.getLogger(__name__)


def seal_state(blueprint: Blueprint, device: int, state: DeviceState) -> bytes:
    """The content of a device's file.

    Raises ValueError where a tensor of the residual is missing or has another shape than the schema says, or where
    there are more than two held models.
    """
    if len(state.held) > HELD_AT_MOST:
        raise ValueError(f"{len(state.held)} models to store, at most {HELD_AT_MOST} are held")
    schema = blueprint.schema
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


def open_state(blueprint: Blueprint, device: int, content: bytes, name: object) -> DeviceState:
    """The state in the content of a device's file.

    Nothing and, with an error in the log that gives the file's `name`, where it is damaged, another device's or of
    another model: the device then starts without a residual, and the coordinator sends it a whole model.
    """
    try:
        return _opened(blueprint, device, content)
    except (PayloadError, KeyError, ValueError) as flaw:
        what = f"it lacks {flaw}" if isinstance(flaw, KeyError) else flaw
        log.error("%s: %s; this device starts again without its residual and held models", name, what)
        return DeviceState()


def _opened(blueprint: Blueprint, device: int, content: bytes) -> DeviceState:
    """The state in a file. Raises PayloadError, KeyError or ValueError where it is not sound."""
    tensors, fields = open_sealed(content)
    if fields.get("format") != FORMAT:
        raise PayloadError("version", f"its format is {fields.get('format')!r}, this is {FORMAT!r}")
    if fields["device"] != str(device):
        raise PayloadError("header", f"it is the file of device {fields['device']}")
    schema = blueprint.schema
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
        residual = Residual(int(fields["round"]), *(_checked(each, schema.moving) for each in generations))
    held = tuple(_held(blueprint, int(version), tensors) for version in fields["held"].split())
    return DeviceState(residual, held)


def _held(blueprint: Blueprint, version: int, tensors: Tensors) -> Held:
    prefix = f"held/{version}"
    channels = tensors[f"{prefix}/channels"].tobytes()
    schema = blueprint.index_map(unpack_channels(blueprint.groups, channels)).schema
    levels = {spec.name: tensors[f"{prefix}/levels/{spec.name}"] for spec in schema.weights}
    plain = {
        spec.name: tensors[key] for spec in schema.plain if (key := f"{prefix}/plain/{spec.name}") in tensors
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
