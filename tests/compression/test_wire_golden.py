"""The format is frozen: golden payloads are written byte for byte, read value for value, here and by hand.

`Plain` below is a second decoder of the format that docs/wire-format.md describes, without numpy or constriction.
"""

import struct
from math import prod
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest

from slimfleet.compression.codec import decode, decode_change, decode_model
from slimfleet.compression.wire import Coder

GOLDEN = Path(__file__).parent / "golden"
MAKE = run_path(str(GOLDEN / "make.py"))
SCHEMA = MAKE["schema"]()
CHANGED = "changed"
"""The change that makes the next version of the model `published`."""
LARGE = MAKE["large_schema"]()
CONTEXTS = sorted(path.stem for path in GOLDEN.glob("contexts_*.payload"))
"""Of the native coder, for the schema `LARGE`."""
NAMES = sorted(path.stem for path in GOLDEN.glob("*.payload") if path.stem not in (CHANGED, *CONTEXTS))


def floats_of(tensors, schema=SCHEMA):
    return np.concatenate([tensors[t.name].ravel() for t in schema.tensors if t.kind != "integer"])


def test_payloads_are_written_as_ever():
    made = {**MAKE["payloads"](), **MAKE["change"](), **MAKE["contexts"]()}
    assert sorted(made) == sorted([*NAMES, CHANGED, *CONTEXTS])
    assert (len(NAMES), len(CONTEXTS)) == (9, 6)
    for name, (payload, _) in made.items():
        assert payload == (GOLDEN / f"{name}.payload").read_bytes(), name


@pytest.mark.parametrize("name", NAMES)
def test_payloads_are_read_as_ever(name):
    decoded = decode((GOLDEN / f"{name}.payload").read_bytes(), SCHEMA)
    assert floats_of(decoded.tensors).astype("<f4").tobytes() == (GOLDEN / f"{name}.float32").read_bytes()
    assert decoded.tensors["norm.num_batches_tracked"] == 300
    assert decoded.header.side == b"\xa5\x5a"


def test_a_change_is_read_as_ever():
    base = decode_model((GOLDEN / "published.payload").read_bytes(), SCHEMA).snapshot
    changed = decode_change((GOLDEN / f"{CHANGED}.payload").read_bytes(), SCHEMA, base)
    assert floats_of(changed.tensors).astype("<f4").tobytes() == (GOLDEN / f"{CHANGED}.float32").read_bytes()


def known_of(name):
    return MAKE["reference"]() if name.endswith("guess") else None


@pytest.mark.parametrize("name", CONTEXTS)
def test_payloads_of_the_native_coder_are_read_as_ever(name):
    decoded = decode((GOLDEN / f"{name}.payload").read_bytes(), LARGE, known_of(name))
    assert decoded.header.coder is Coder.CONTEXTS
    values = floats_of(decoded.tensors, LARGE)
    assert values.astype("<f4").tobytes() == (GOLDEN / f"{name}.float32").read_bytes()


class Ans:
    """64-bit state, 32-bit words, 24-bit quantiles."""

    def __init__(self, data):
        padded = data + bytes(-len(data) % 4)
        self.words = list(struct.unpack(f"<{len(padded) // 4}I", padded))
        self.state = 0
        while self.words and self.state < 1 << 32:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, frequencies):
        n, quantile, before = len(frequencies), self.state & 0xFFFFFF, 0
        for k, frequency in enumerate(frequencies):
            start = (before * ((1 << 24) - n) >> 16) + k
            before += frequency
            stop = (before * ((1 << 24) - n) >> 16) + k + 1
            if quantile < stop or k == n - 1:
                stop = 1 << 24 if k == n - 1 else stop
                self.state = (self.state >> 24) * (stop - start) + quantile - start
                if self.state < 1 << 32 and self.words:
                    self.state = self.state << 32 | self.words.pop()
                return k
        raise AssertionError


def frequencies_of(codes):
    weights = [c if c < 8 else (8 + c % 8) << c // 8 - 1 for c in codes]
    frequencies = [(w << 16) // sum(weights) for w in weights]
    frequencies[weights.index(max(weights))] += (1 << 16) - sum(frequencies)
    return frequencies


class Plain:
    """Decodes the float tensors of one payload to lists of float32-rounded numbers."""

    def __init__(self, payload):
        how, self.sections = payload[3], payload[4]
        side = struct.unpack_from("<H", payload, 35)[0]
        self.coder, self.data, self.at = how & 15, payload[:-8], 37 + side
        self.units = {}

    def take(self, layout):
        fields = struct.unpack_from("<" + layout, self.data, self.at)
        self.at += struct.calcsize("<" + layout)
        return list(fields)

    def decode(self):
        values = {}
        kinds = {k: [t for t in SCHEMA.tensors if t.kind == k] for k in ("integer", "buffer", "weight")}
        if self.sections & 4:
            width = self.take("B")[0]
            self.take(str(sum(prod(t.shape) for t in kinds["integer"])) + " bhiq"[width.bit_length()])
        if self.sections & 2:
            flags = self.take(f"{(len(kinds['buffer']) + 7) // 8}B")
            for i, t in enumerate(kinds["buffer"]):
                values[t.name] = self.take(f"{prod(t.shape)}" + "ef"[flags[i // 8] >> i % 8 & 1])
        if self.coder == 0:
            values |= {t.name: self.take(f"{prod(t.shape)}f") for t in kinds["weight"]}
        else:
            values |= self.tables(kinds["weight"])
        return [v for t in SCHEMA.tensors if t.kind != "integer" for v in values[t.name]]

    def tables(self, weights):
        how = self.take("B")[0]
        units = self.take("f" if how & 0x80 else f"{len(weights)}f")
        offsets = self.take(f"{how & 15}h") or [0]
        count = self.take("B")[0]
        pairs = self.take(f"{(len(weights) + 1) // 2}B")
        tables = [frequencies_of(self.take(f"{self.take('H')[0] + 1}B")) for _ in range(count)]
        ans = Ans(self.data[self.at :])
        values = {}
        for i, t in enumerate(weights):
            unit = units[0 if how & 0x80 else i] * (0.5 ** (how >> 4 & 7) if len(t.shape) < 2 else 1)
            self.units[t.name] = unit
            number = pairs[i // 2] >> i % 2 * 4 & 15
            levels = [ans.symbol(tables[number - 1]) if number else 0 for _ in range(prod(t.shape))]
            signs = iter([ans.symbol([1 << 15, 1 << 15]) for level in levels if level])
            values[t.name] = [
                unit * (256 * k + offsets[min(k, len(offsets)) - 1]) * (-1 if next(signs) else 1)
                if k
                else 0.0
                for k in levels
            ]
        assert (ans.state, ans.words) == (0, [])
        return values


@pytest.mark.parametrize("name", NAMES)
def test_a_decoder_written_from_the_page_agrees(name):
    values = Plain((GOLDEN / f"{name}.payload").read_bytes()).decode()
    assert np.array(values).astype("<f4").tobytes() == (GOLDEN / f"{name}.float32").read_bytes()


def test_a_change_is_decoded_by_hand():
    """Levels are added where the unit is that of the model held; in doubles, every sum of them is exact."""
    base, change = (Plain((GOLDEN / f"{n}.payload").read_bytes()) for n in ("published", CHANGED))
    held, values, at, shared = base.decode(), change.decode(), 0, []
    for t in SCHEMA.tensors:
        if t.kind == "weight" and base.units[t.name] == change.units[t.name]:
            shared.append(t.name)
            for i in range(at, at + t.size):
                values[i] += held[i]
        at += 0 if t.kind == "integer" else t.size
    assert 0 < len(shared) < len(base.units)
    assert np.array(values).astype("<f4").tobytes() == (GOLDEN / f"{CHANGED}.float32").read_bytes()
