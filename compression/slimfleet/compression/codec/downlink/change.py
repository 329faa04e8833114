"""Changes: a model sent whole, or as the change of one that the device holds.

Where a tensor's unit is that of the model held, a change carries the difference of the levels, mostly zeros; where the
unit is new, the levels themselves. Both ends see which by comparing the units. Buffers, frozen tensors and integers
travel as they are, or not at all where the device holds the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slimfleet.compression.codec.codec import read_quantised, sealed
from slimfleet.compression.codec.downlink.snapshot import Snapshot, snapshot_of
from slimfleet.compression.codec.entropy.pack import left_out
from slimfleet.compression.codec.quantise.grid import LARGEST_TABLE_LEVEL, Grid, Quantised, dequantise
from slimfleet.compression.codec.quantise.plain import carried, without
from slimfleet.compression.codec.spec import Coding
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Payload, Preset, Tensors
from slimfleet.compression.wire import Envelope, Opened, PayloadKind, Sections, unseal


@dataclass(frozen=True, slots=True)
class Received:
    """A decoded model, and its snapshot, which later changes may build on; None where it has none."""

    tensors: Tensors
    snapshot: Snapshot | None


def encode_model(
    snapshot: Snapshot,
    others: Tensors,
    schema: ModelSchema,
    *,
    version: int,
    side: bytes,
    preset: Preset = "small",
) -> Payload:
    """A whole model: the weights of `snapshot`, everything else of `others`, all in the shapes of `schema`.

    Raises PayloadError("nonfinite") for a float tensor of `others` that holds more than float32 can.
    """
    quantised = snapshot.quantised(carried(others, schema))
    envelope = Envelope(kind=PayloadKind.MODEL, base_version=version, side=side)
    return sealed(quantised, schema, envelope, Coding(preset)).payload


def encode_change(
    snapshot: Snapshot,
    base: Snapshot,
    others: Tensors,
    schema: ModelSchema,
    *,
    base_version: int,
    side: bytes,
    preset: Preset = "small",
) -> Payload | None:
    """The model of `encode_model` for a device that holds `base`, in the same shapes, as version `base_version`.

    None where no change can express it and the whole model has to be sent. Raises as `encode_model` does.
    """
    plain = carried(others, schema)
    moved = without(plain, schema, [name for name, array in plain.items() if base.same(name, array)])
    quantised = snapshot.quantised(moved)
    for spec, now, held in zip(schema.weights, snapshot.units, base.units, strict=True):
        if now == held:
            quantised.levels[spec.name] -= base.levels[spec.name]
    top = max((int(np.abs(levels).max(initial=0)) for levels in quantised.levels.values()), default=0)
    # A section of zeros is left out, and new units with it.
    if top > LARGEST_TABLE_LEVEL or (top == 0 and snapshot.units != base.units):
        return None
    envelope = Envelope(
        kind=PayloadKind.CHANGE,
        base_version=base_version,
        plan_id=base.fingerprint_with(name for name in plain if name not in moved),
        side=side,
    )
    return sealed(quantised, schema, envelope, Coding(preset)).payload


def decode_model(payload: bytes | Opened, schema: ModelSchema) -> Received:
    """Read a whole model. Raises PayloadError and nothing else."""
    header, quantised = read_quantised(payload, schema)
    if header.kind is not PayloadKind.MODEL:
        raise PayloadError("header", f"a {header.kind.name.lower()} in place of a whole model")
    if header.sections & Sections.PARTIAL:
        raise PayloadError("header", "a whole model leaves nothing out")
    return Received(dequantise(quantised, schema), snapshot_of(quantised, schema))


def decode_change(payload: bytes | Opened, schema: ModelSchema, base: Snapshot) -> Received:
    """Read a change of `base`, the model held, cut to the channels of `schema`.

    Raises PayloadError and nothing else: stale where `base` is not the model that was changed, grid where a level ends
    up beyond `LARGEST_TABLE_LEVEL`, and what decoding a model raises.
    """
    opened = unseal(payload)
    header = opened.header
    if header.kind is not PayloadKind.CHANGE:
        raise PayloadError("header", f"a {header.kind.name.lower()} in place of a change")
    missing = left_out(opened.body, header.sections, schema)
    kept = {name: base.plain[name] for name in missing if name in base.plain}
    if len(kept) < len(missing) or header.plan_id != base.fingerprint_with(kept):
        raise PayloadError(
            "stale", f"the version {header.base_version} held here is not the one that was changed"
        )
    header, quantised = read_quantised(opened, schema)
    weights, grid = schema.weights, quantised.grid
    if grid is None or grid.offsets:
        raise PayloadError("grid", "a change has to be in whole steps of a grid")
    units = base.units
    if header.sections & Sections.WEIGHTS:
        units = tuple(float(grid.unit(index, spec)) for index, spec in enumerate(weights))
    for spec, now, held in zip(weights, units, base.units, strict=True):
        if now == held:
            quantised.levels[spec.name] += base.levels[spec.name]
    whole = Quantised(quantised.levels, Grid(units, (), 0), quantised.plain | kept)
    snapshot = snapshot_of(whole, schema)  # checks the levels before they are looked up
    return Received(dequantise(whole, schema), snapshot)
