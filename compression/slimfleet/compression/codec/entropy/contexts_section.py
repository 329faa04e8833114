"""Contexts section: the weights under coder 2: grid, how, start classes, then one entropy-coded stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from slimfleet.compression.codec.entropy.fields import Reader, read_grid, write_grid
from slimfleet.compression.codec.native.bindings import (
    FARTHEST,
    MAX_CLASS,
    Levels,
    Part,
    decode_parts,
    encode_parts,
    start_class,
)
from slimfleet.compression.codec.native.build import WAYS_OUT
from slimfleet.compression.codec.native.library import load
from slimfleet.compression.codec.quantise.grid import CodedLevels, Grid
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import TensorSpec

_SMALL, _TRELLIS, _GUESSED = 1, 2, 4
_CHECK_BYTES = 4

Guess = list[Levels]
"""What both ends expect of each weight tensor, in levels * 256: int32 in its shape."""


def code(arrays: list[Levels], *, small: bool, guess: Guess | None = None) -> CodedLevels:
    """Code signed levels of the weight tensors as they are, in schema order."""
    whole = [np.asarray(array, np.int32, order="C") for array in arrays]
    parts = [
        Part(levels.shape, start_class(levels), guess=None if guess is None else guess[i])
        for i, levels in enumerate(whole)
    ]
    data = encode_parts(parts, whole, "small" if small else "fast")
    return CodedLevels(small, False, tuple(part.start for part in parts), data)


def write(coded: CodedLevels, grid: Grid, guess: Guess | None = None) -> bytes:
    """The section's bytes. `guess` is what the levels were coded with."""
    how = _SMALL * coded.small | _TRELLIS * coded.trellis | _GUESSED * (guess is not None)
    check = b"" if guess is None else check_of(guess)
    return b"".join([write_grid(grid), bytes([how]), check, bytes(coded.starts), coded.data])


def read(
    reader: Reader | None, specs: Sequence[TensorSpec], reference: list[NDArray[np.float32]] | None = None
) -> tuple[dict[str, Levels], Grid]:
    """Signed levels by name, and their grid; zeros when the section is absent.

    Raises PayloadError: counts, grid, entropy, nonfinite, stale where the section builds on a reference that is not
    `reference`, version where there is no native coder.
    """
    if reader is None:
        return {spec.name: np.zeros(spec.shape, np.int32) for spec in specs}, Grid((1.0,), (), 0)
    if load() is None:
        raise PayloadError(
            "version", f"the native coder wrote this, and it is not installed here: {WAYS_OUT}"
        )
    grid = read_grid(reader, len(specs))
    how = reader.byte()
    if how & ~(_SMALL | _TRELLIS | _GUESSED) or how & (_SMALL | _TRELLIS) == _TRELLIS:
        raise PayloadError("entropy", f"unknown way of coding {how:#04x}")
    guess = None
    if how & _GUESSED:
        check = bytes(reader.take(_CHECK_BYTES))
        guess = None if reference is None else guess_of(reference, grid, specs)
        if guess is None or check_of(guess) != check:
            raise PayloadError("stale", "coded with another last global update than is known here")
    starts = bytes(reader.take(len(specs)))
    if max(starts, default=0) > MAX_CLASS:
        raise PayloadError("entropy", f"a start class beyond {MAX_CLASS}")
    if any(start and not spec.size for spec, start in zip(specs, starts, strict=True)):
        raise PayloadError("entropy", "a start class for a tensor without elements")
    parts = [
        Part(
            spec.shape,
            start,
            states_of(spec, trellis=bool(how & _TRELLIS)),
            guess=None if guess is None else guess[i],
        )
        for i, (spec, start) in enumerate(zip(specs, starts, strict=True))
    ]
    levels = decode_parts(parts, reader.rest(), "small" if how & _SMALL else "fast")
    return {spec.name: array for spec, array in zip(specs, levels, strict=True)}, grid


def states_of(spec: TensorSpec, *, trellis: bool) -> int:
    """States of the trellis that a tensor's levels follow: vectors are free."""
    return 8 if trellis and len(spec.shape) > 1 else 1


def guess_of(reference: list[NDArray[np.float32]], grid: Grid, specs: Sequence[TensorSpec]) -> Guess:
    """A reference on the grid: float32 division by the unit, cut to 2**20, towards zero; in levels * 256.

    Raises PayloadError("nonfinite") for NaN.
    """
    return [
        _guess_of(array, grid.unit(index, spec))
        for index, (array, spec) in enumerate(zip(reference, specs, strict=True))
    ]


def _guess_of(array: NDArray[np.float32], unit: np.float32) -> Levels:
    with np.errstate(over="ignore"):
        levels = np.array(array, np.float32, order="C")
        levels /= unit
    # In place, since a decoder has to do with four times the model's memory; towards zero is how numpy casts.
    np.clip(levels, -FARTHEST, FARTHEST, out=levels)
    if levels.size and np.isnan(levels.min()):
        raise PayloadError("nonfinite", "the reference holds NaN")
    return levels.astype(np.int32)


def check_of(guess: Guess) -> bytes:
    """Four bytes that tell one guess from another: the low half of XXH64 over all, little-endian."""
    digest = xxhash.xxh64()
    for levels in guess:
        digest.update(np.ascontiguousarray(levels, "<i4").data)
    return digest.intdigest().to_bytes(8, "little")[:_CHECK_BYTES]
