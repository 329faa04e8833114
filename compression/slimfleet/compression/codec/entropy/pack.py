"""Payload bodies: quantised tensors to bytes, and strictly back.

A body holds up to three sections, in this order, each present only when it is not all zeros: integers, buffers with
frozen tensors, weights. Before them stands what the first two leave out, if anything. Sizes follow from the schema; the
few numbers that a body declares are bounded before use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.entropy import contexts_section, tables_section
from slimfleet.compression.codec.entropy.ans import installed
from slimfleet.compression.codec.entropy.contexts_section import Guess, guess_of
from slimfleet.compression.codec.entropy.fields import Reader
from slimfleet.compression.codec.native.bindings import largest_magnitude
from slimfleet.compression.codec.native.library import load
from slimfleet.compression.codec.quantise.grid import LARGEST_TABLE_LEVEL, Grid, Quantised
from slimfleet.compression.codec.quantise.plain import SECTIONS
from slimfleet.compression.codec.spec import Coding
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.types import Preset, Tensors
from slimfleet.compression.wire import Coder, Sections

_WIDTHS = (1, 2, 4, 8)
LARGE_LEVEL, LARGE_BITS = 32, 2
"""Levels and bits a weight from which on both coders are tried: contexts learn a large alphabet slowly."""


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes of the tensors, and what the header must say for reading them."""

    coder: Coder
    sections: Sections
    data: bytes


def pack(
    quantised: Quantised,
    schema: ModelSchema,
    coding: Coding = Coding(),
    *,
    tables: bool = True,
) -> Body:
    """Write quantised tensors as bytes.

    `tables`: whether large alphabets may go by the portable coder, where that is smaller, to a decoder that reads it
    slowly unless it has constriction.
    """
    sections = Sections(0)
    parts: list[bytes] = []
    plain = quantised.plain
    if any(spec.name not in plain for spec in schema.plain):
        sections |= Sections.PARTIAL
        parts.append(_write_mask([spec.name in plain for spec in schema.plain]))
    integers, buffers = (
        [plain[spec.name] for spec in schema.of_kind(*kinds) if spec.name in plain] for kinds in SECTIONS
    )
    if any(array.any() for array in integers):
        sections |= Sections.INTEGERS
        parts.append(_write_integers(integers))
    if any(array.any() for array in buffers):
        sections |= Sections.BUFFERS
        parts.append(_write_floats(buffers))
    coder = _coder_of(quantised, coding.preset)
    weights = quantised.levels if quantised.grid is not None else plain
    arrays = [weights[spec.name] for spec in schema.weights]
    if any(array.any() for array in arrays):
        sections |= Sections.WEIGHTS
        if quantised.grid is None:
            parts.append(b"".join(array.astype("<f4").tobytes() for array in arrays))
        elif coder is Coder.TABLES:
            parts.append(tables_section.write(arrays, quantised.grid))
        else:
            guess = reference_guess(coding.reference, quantised.grid, schema)
            coded = quantised.coded or contexts_section.code(
                arrays, small=coding.preset == "small", guess=guess
            )
            section = contexts_section.write(coded, quantised.grid, guess)
            if tables and _large_alphabet(arrays, len(section)):
                rival = tables_section.write(arrays, quantised.grid)
                if len(rival) < len(section):
                    coder, section = Coder.TABLES, rival
            parts.append(section)
    return Body(coder, sections, b"".join(parts))


def _large_alphabet(arrays: list[NDArray[np.int32]], section_bytes: int) -> bool:
    """Whether tables are worth a try, and can hold the levels."""
    if 8 * section_bytes < LARGE_BITS * sum(array.size for array in arrays):
        return False
    top = max((largest_magnitude(array) for array in arrays), default=0)
    return LARGE_LEVEL <= top <= LARGEST_TABLE_LEVEL and installed()


def _coder_of(quantised: Quantised, preset: Preset) -> Coder:
    if quantised.grid is None:
        return Coder.FLOAT32
    return Coder.TABLES if preset == "portable" or load() is None else Coder.CONTEXTS


def reference_guess(reference: Tensors | None, grid: Grid, schema: ModelSchema) -> Guess | None:
    """What `reference` lets both ends expect of the levels; None without a reference."""
    if reference is None:
        return None
    return guess_of([reference[spec.name] for spec in schema.weights], grid, schema.weights)


def unpack(
    body: memoryview, coder: Coder, sections: Sections, schema: ModelSchema, reference: Tensors | None = None
) -> Quantised:
    """Read a quantised update back.

    Raises PayloadError: counts, grid, entropy, nonfinite, or stale for another reference than it was written with.
    """
    reader = Reader(body)
    missing = _read_missing(reader, sections, schema)
    integers, floats = ([s for s in schema.of_kind(*kinds) if s.name not in missing] for kinds in SECTIONS)
    plain = {
        **_read_integers(reader if sections & Sections.INTEGERS else None, integers),
        **_read_floats(reader if sections & Sections.BUFFERS else None, floats),
    }
    weights = schema.weights
    present = reader if sections & Sections.WEIGHTS else None
    if coder is Coder.FLOAT32:
        plain |= {s.name: _array(present, "<f4", s) for s in weights}
        reader.finish()
        return Quantised({}, None, plain)
    if coder is Coder.TABLES:
        levels, grid = tables_section.read(present, weights)
    else:
        known = None if reference is None else [reference[spec.name] for spec in weights]
        levels, grid = contexts_section.read(present, weights, known)
    reader.finish()
    return Quantised(levels, grid, plain)


def left_out(body: memoryview, sections: Sections, schema: ModelSchema) -> list[str]:
    """The plain tensors that a body says it leaves out, in schema order. Raises PayloadError("counts")."""
    return _read_missing(Reader(body), sections, schema)


def _read_missing(reader: Reader, sections: Sections, schema: ModelSchema) -> list[str]:
    if not sections & Sections.PARTIAL:
        return []
    there = _read_mask(reader, len(schema.plain))
    return [spec.name for spec, bit in zip(schema.plain, there, strict=True) if not bit]


def _write_integers(arrays: list[NDArray[np.generic]]) -> bytes:
    """The width in bytes of the narrowest signed integer that holds all, then all, little-endian."""
    wide = [array.astype(np.int64) for array in arrays]
    width = next(w for w in _WIDTHS if all((a == a.astype(f"i{w}")).all() for a in wide))
    return bytes([width]) + b"".join(array.astype(f"<i{width}").tobytes() for array in wide)


def _read_integers(reader: Reader | None, specs: Sequence[TensorSpec]) -> Tensors:
    if reader is None:
        return {spec.name: np.zeros(spec.shape, spec.dtype) for spec in specs}
    width = reader.byte()
    if width not in _WIDTHS:
        raise PayloadError("counts", f"integers of {width} bytes")
    tensors: Tensors = {}
    for spec in specs:
        array = _array(reader, f"<i{width}", spec)
        # Casting wraps uint64 back into its range; for the other dtypes it must change nothing.
        tensors[spec.name] = array.astype(spec.dtype)
        if spec.dtype != "uint64" and not np.array_equal(tensors[spec.name], array):
            raise PayloadError("counts", f"tensor {spec.name!r} holds values that {spec.dtype} cannot")
    return tensors


def _write_floats(arrays: list[NDArray[np.generic]]) -> bytes:
    """A bit for each tensor that is float32 rather than float16, then all, little-endian."""
    flags = _write_mask([array.dtype == np.float32 for array in arrays])
    return flags + b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)


def _read_floats(reader: Reader | None, specs: Sequence[TensorSpec]) -> Tensors:
    if reader is None:
        return {spec.name: np.zeros(spec.shape, np.float16) for spec in specs}
    single = _read_mask(reader, len(specs))
    return {
        s.name: _array(reader, "<f4" if wide else "<f2", s) for s, wide in zip(specs, single, strict=True)
    }


def _write_mask(bits: Sequence[bool]) -> bytes:
    """A bit for each tensor, lowest first."""
    return np.packbits(np.array(bits, np.bool_), bitorder="little").tobytes()


def _read_mask(reader: Reader, tensors: int) -> NDArray[np.uint8]:
    bits = np.unpackbits(np.frombuffer(reader.take(-(-tensors // 8)), np.uint8), bitorder="little")
    if bits[tensors:].any():
        raise PayloadError("counts", "a flag is set for a tensor that is not there")
    return bits[:tensors]


def _array(reader: Reader | None, dtype: str, spec: TensorSpec) -> NDArray[np.generic]:
    if reader is None:
        return np.zeros(spec.shape, dtype)
    data = reader.take(spec.size * np.dtype(dtype).itemsize)
    return np.frombuffer(data, dtype).reshape(spec.shape)
