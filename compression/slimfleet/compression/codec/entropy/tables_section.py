"""Tables section: the weights under coder 1: grid, frequency tables, then one entropy-coded stream."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.entropy.ans import LevelDecoder, Table, encode_levels
from slimfleet.compression.codec.entropy.fields import Reader, read_grid, write_grid
from slimfleet.compression.codec.entropy.frequencies import MAX_TABLES, code_of, normalise, share_tables
from slimfleet.compression.codec.native.bindings import Levels
from slimfleet.compression.codec.quantise.grid import LARGEST_TABLE_LEVEL, Grid
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import TensorSpec


def write(arrays: list[NDArray[np.int32]], grid: Grid) -> bytes:
    """Code signed levels of the weight tensors, in schema order; at least one of them is not zero."""
    flat = [array.reshape(-1) for array in arrays]
    coded = [i for i, levels in enumerate(flat) if levels.any()]
    top = max(int(np.abs(flat[i]).max()) for i in coded)
    histograms = [np.bincount(np.abs(flat[i]), minlength=top + 1) for i in coded]
    table_of, counts = share_tables(histograms)
    codes = [code_of(np.trim_zeros(c, "b")) for c in counts]
    tables = [Table(normalise(c)) for c in codes]

    numbers = np.zeros(len(flat) + len(flat) % 2, np.uint8)
    numbers[coded] = np.array(table_of) + 1
    stream = encode_levels((flat[i], tables[t]) for i, t in zip(coded, table_of, strict=True))
    return b"".join(
        [
            write_grid(grid),
            bytes([len(tables)]),
            (numbers[0::2] | numbers[1::2] << 4).tobytes(),
            *((len(c) - 1).to_bytes(2, "little") + c.tobytes() for c in codes),
            stream,
        ]
    )


def read(reader: Reader | None, specs: Sequence[TensorSpec]) -> tuple[dict[str, Levels], Grid]:
    """Signed levels by name, and their grid; zeros when the section is absent.

    Raises PayloadError: counts, grid or entropy.
    """
    if reader is None:
        return {spec.name: np.zeros(spec.shape, np.int32) for spec in specs}, Grid((1.0,), (), 0)
    grid = read_grid(reader, len(specs))
    count = reader.byte()
    if not 1 <= count <= MAX_TABLES:
        raise PayloadError("entropy", f"{count} frequency tables")
    pairs = np.frombuffer(reader.take((len(specs) + 1) // 2), np.uint8)
    numbers = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)
    if numbers.max(initial=0) > count or numbers[len(specs) :].any():
        raise PayloadError("entropy", "a tensor names a frequency table that is not there")
    tables = [_read_table(reader) for _ in range(count)]
    decoder = LevelDecoder(bytes(reader.rest()))
    levels = {
        spec.name: _read_levels(decoder, spec, tables[number - 1] if number else None)
        for spec, number in zip(specs, numbers, strict=False)
    }
    decoder.finish()
    return levels, grid


def _read_levels(decoder: LevelDecoder, spec: TensorSpec, table: Table | None) -> Levels:
    if table is None:
        return np.zeros(spec.shape, np.int32)
    return decoder.read(spec.size, table).reshape(spec.shape)


def _read_table(reader: Reader) -> Table:
    top = int.from_bytes(reader.take(2), "little")
    if not 1 <= top <= LARGEST_TABLE_LEVEL:
        raise PayloadError(
            "entropy", f"a frequency table up to level {top}, the limit is {LARGEST_TABLE_LEVEL}"
        )
    return Table(normalise(np.frombuffer(reader.take(top + 1), np.uint8)))
