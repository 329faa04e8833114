"""Envelope, sections and grid: from a payload to the values of its float tensors."""

import struct
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from plain_decoder.ans import Ans, frequencies_of
from plain_decoder.bits import Bits
from plain_decoder.contexts import read_levels
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.types import Tensors


def guess_of(known: NDArray[np.float32], unit: float) -> NDArray[np.int32]:
    """What is known of one tensor, flat, in levels × 256 of `unit`."""
    return np.clip(known.ravel() / np.float32(unit), -(1 << 20), 1 << 20).astype("<i4")


def check_of(guesses: Sequence[NDArray[np.int32]]) -> int:
    return xxhash.xxh64_intdigest(b"".join(guess.tobytes() for guess in guesses)) & 0xFFFFFFFF


class Plain:
    """Decodes the float tensors of one payload. `reference` is what both ends know, in float32, by name."""

    def __init__(self, payload: bytes, schema: ModelSchema, reference: Tensors | None = None) -> None:
        how, self.sections = payload[3], payload[4]
        side = struct.unpack_from("<H", payload, 35)[0]
        self.coder, self.data, self.at = how & 15, payload[:-8], 37 + side
        self.schema, self.reference = schema, reference
        self.units: dict[str, float] = {}
        self.bits: Bits | None = None

    @property
    def unread(self) -> int:
        """Bytes of the body that are not read yet; 0 at the end."""
        return max(len(self.data) - self.at, 0)

    def take(self, layout: str) -> list[Any]:
        fields = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return list(fields)

    def decode(self) -> list[float]:
        """The values of all float tensors, flat, in schema order; rounded to float32 they are the decoder's."""
        values: dict[str, list[float]] = {}
        weights, plain = (
            [t for t in self.schema.tensors if (t.kind == "weight") is w] for w in (True, False)
        )
        there = plain
        if self.sections & 8:
            mask = self.take(f"{(len(plain) + 7) // 8}B")
            there = [t for i, t in enumerate(plain) if mask[i // 8] >> i % 8 & 1]
        integers, floats = ([t for t in there if (t.kind == "integer") is i] for i in (True, False))
        values |= {t.name: [0.0] * prod(t.shape) for t in plain if t.kind != "integer"}
        if self.sections & 4:
            width = self.take("B")[0]
            self.take(str(sum(prod(t.shape) for t in integers)) + " bhiq"[width.bit_length()])
        if self.sections & 2:
            flags = self.take(f"{(len(floats) + 7) // 8}B")
            for i, t in enumerate(floats):
                values[t.name] = self.take(f"{prod(t.shape)}" + "ef"[flags[i // 8] >> i % 8 & 1])
        if not self.sections & 1:
            values |= {t.name: [0.0] * prod(t.shape) for t in weights}
        elif self.coder == 0:
            values |= {t.name: self.take(f"{prod(t.shape)}f") for t in weights}
        else:
            values |= self.on_grid(weights)
        return [v for t in self.schema.tensors if t.kind != "integer" for v in values[t.name]]

    def on_grid(self, weights: Sequence[TensorSpec]) -> dict[str, list[float]]:
        """Signed levels of either coder, times their units. In doubles, every product is exact."""
        how = self.take("B")[0]
        units = self.take("f") * len(weights) if how & 0x80 else self.take(f"{len(weights)}f")
        offsets = self.take(f"{how & 15}h") or [0]
        for t, unit in zip(weights, units, strict=True):
            self.units[t.name] = unit * (0.5 ** (how >> 4 & 7) if len(t.shape) < 2 else 1)
        values = {}
        levels = self.tables(weights) if self.coder == 1 else self.contexts(weights)
        for t, of_tensor in zip(weights, levels, strict=True):
            factors = [256 * abs(k) + offsets[min(abs(k), len(offsets)) - 1] if k else 0 for k in of_tensor]
            signed = (-f if k < 0 else f for k, f in zip(of_tensor, factors, strict=True))
            values[t.name] = [self.units[t.name] * f for f in signed]
        return values

    def tables(self, weights: Sequence[TensorSpec]) -> Iterator[list[int]]:
        count = self.take("B")[0]
        pairs = self.take(f"{(len(weights) + 1) // 2}B")
        tables = [frequencies_of(self.take(f"{self.take('H')[0] + 1}B")) for _ in range(count)]
        ans = Ans(self.data[self.at :])
        for i, t in enumerate(weights):
            number = pairs[i // 2] >> i % 2 * 4 & 15
            levels = [ans.symbol(tables[number - 1]) if number else 0 for _ in range(prod(t.shape))]
            yield [-k if k and ans.symbol([1 << 15, 1 << 15]) else k for k in levels]
        assert (ans.state, ans.words) == (0, [])
        self.at = len(self.data)

    def contexts(self, weights: Sequence[TensorSpec]) -> list[list[int]]:
        how = self.take("B")[0]
        guesses = None
        if how & 4:
            assert self.reference is not None
            found = [guess_of(self.reference[t.name], self.units[t.name]) for t in weights]
            assert self.take("I") == [check_of(found)]
            guesses = [guess.tolist() for guess in found]
        classes = self.take(f"{len(weights)}B")
        self.bits = bits = Bits(self.data[self.at :], 5 if guesses is None else 6)
        levels = read_levels(bits, [t.shape for t in weights], classes, how, guesses)
        self.at += bits.at
        return levels
