"""Plain tensors, not quantised: statistics, counters and frozen tensors, and all tensors in the float32 baseline."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.quantise.grid import Quantised
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema, TensorKind, TensorSpec
from slimfleet.compression.types import Tensors

_HALF = np.finfo(np.float16)


def as_float32(tensors: Tensors, schema: ModelSchema) -> Quantised:
    """No quantisation: every float tensor travels as float32."""
    plain = {
        spec.name: tensors[spec.name] if spec.kind == "integer" else tensors[spec.name].astype(np.float32)
        for spec in schema.tensors
    }
    return Quantised({}, None, plain)


def carried(tensors: Tensors, schema: ModelSchema) -> Tensors:
    """Buffers, frozen tensors and integers as the wire carries them, in schema order.

    Integers stay as they are. A float tensor goes as float16 where its largest finite magnitude is a normal float16, so
    that every error is below 2**-11 of that largest; otherwise as float32. NaN and infinity stay what they are.
    """
    return {spec.name: _carried(tensors[spec.name], spec) for spec in schema.plain}


SECTIONS: tuple[tuple[TensorKind, ...], ...] = (("integer",), ("buffer", "frozen"))
"""Kinds of the plain tensors that travel together, in the order of the wire."""


def mask_bytes(schema: ModelSchema) -> int:
    """Bytes of a bit for each plain tensor."""
    return -(-len(schema.plain) // 8)


def without_zeros(plain: Tensors, schema: ModelSchema) -> Tensors:
    """`plain` without the tensors of zeros, where that spares bytes."""
    return without(plain, schema, [spec.name for spec in schema.plain if not plain[spec.name].any()])


def without(plain: Tensors, schema: ModelSchema, names: Collection[str]) -> Tensors:
    """`plain` without these tensors, where that spares more bytes than the bits take that say so."""
    spared = 0
    for kinds in SECTIONS:
        section = {spec.name: plain[spec.name] for spec in schema.of_kind(*kinds)}
        if any(array.any() for array in section.values()):  # a section of zeros takes no bytes
            left_out = [section[name] for name in names if name in section]
            spared += sum(array.size if kinds == ("integer",) else array.nbytes for array in left_out)
    if spared <= mask_bytes(schema):
        return plain
    return {name: array for name, array in plain.items() if name not in names}


def _carried(array: NDArray[np.generic], spec: TensorSpec) -> NDArray[np.generic]:
    if spec.kind == "integer":
        return array
    finite = np.isfinite(array)
    largest = np.abs(array).max(initial=0, where=finite)
    fits = largest == 0 or _HALF.smallest_normal <= largest <= _HALF.max
    with np.errstate(over="ignore"):
        carried = array.astype(np.float16 if fits else np.float32)
    if not np.array_equal(np.isfinite(carried), finite):
        raise PayloadError("nonfinite", f"tensor {spec.name!r} holds values that float32 cannot")
    return carried
