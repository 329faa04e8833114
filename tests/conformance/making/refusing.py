"""Refusing: payloads that differ in one thing from a good one, and the reason that each must be refused with.

Every payload but those that are about length or checksum has a checksum that matches.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import xxhash

from making.decoding import held_payload
from making.models import SCHEMAS, wide_schema, wide_tensors
from making.text import text_of
from making.writing import Document, Files
from slimfleet.compression.codec import CodecSpec, Coding, encode, largest_payload
from slimfleet.compression.types import Preset
from slimfleet.compression.wire import Envelope, PayloadKind

Case = tuple[str, str, str, bytes, str]
"""Name, schema, kind, payload, reason."""


def refusing() -> Files:
    cases: list[Document] = [
        {"name": name, "schema": schema, "kind": kind, **_hex(payload), "reason": reason}
        | ({"held": "wide_model_tables"} if kind == "change" else {})
        for group in (_envelopes(), _sections(), _grids(), _tables(), _contexts(), _changes())
        for name, schema, kind, payload, reason in group
    ]
    return {"refuse.json": text_of({"cases": cases})}


def _hex(payload: bytes) -> Document:
    """A payload, with the zeros at its end as their number where they are many."""
    bare = payload.rstrip(b"\0")
    zeros = len(payload) - len(bare)
    return {"payload": bare.hex(), "zeros": zeros} if zeros > 100 else {"payload": payload.hex()}


def _envelopes() -> Iterator[Case]:
    good = _update("portable")

    def case(name: str, payload: bytes, reason: str) -> Case:
        return name, "wide", "update", payload, reason

    yield case("nothing", b"", "truncated")
    yield case("44 bytes", good[:44], "truncated")
    yield case("the last byte is missing", good[:-1], "truncated")
    yield case("a byte follows", good + b"\0", "truncated")
    yield case("another magic", _sealed(b"SG" + good[2:]), "magic")
    yield case("version 2", _with(good, 2, 2), "version")
    yield case("one bit changed", good[:60] + bytes([good[60] ^ 1]) + good[61:], "checksum")
    yield case("another checksum", good[:-1] + bytes([good[-1] ^ 1]), "checksum")
    yield case("kind 3", _with(good, 3, 3 << 4 | 1), "header")
    yield case("coder 3", _with(good, 3, 3), "version")
    yield case("a section bit that is not known", _with(good, 4, good[4] | 16), "header")
    yield case("a side section beyond the end", _with_number(good, 35, "H", len(good)), "header")
    yield case("the digest of another schema", _with(good, 19, good[19] ^ 1), "schema")
    yield case("one tensor more", _with_number(good, 5, "H", 7), "counts")
    yield case("one element less", _with_number(good, 7, "I", wide_schema().elements - 1), "counts")
    yield "a whole model in place of an update", "wide", "update", _with(good, 3, 1 << 4 | 1), "header"
    yield "an update in place of a model", "wide", "model", _with_side(good, b"\x3f"), "header"
    long = good + bytes(largest_payload(wide_schema()) + 1 - len(good))
    yield case("more bytes than any payload of the schema", long, "oversized")


def _sections() -> Iterator[Case]:
    head = _head(sections=1, coder=0)
    floats = np.arange(1, 64, dtype="<f4")
    whole = floats.tobytes()
    assert floats.size == sum(t.size for t in wide_schema().weights)

    def case(name: str, payload: bytes, reason: str, kind: str = "update") -> Case:
        return name, "wide", kind, payload, reason

    yield case("a byte after the last section", _body(head, whole + b"\0"), "counts")
    yield case("the last element is missing", _body(head, whole[:-4]), "counts")
    for name, value in (("NaN", np.nan), ("infinity", np.inf)):
        spoiled = floats.copy()
        spoiled[40] = value
        yield case(f"{name} among the weights", _body(head, spoiled.tobytes()), "nonfinite")
    statistics = _head(sections=2, coder=0)
    yield case(
        "NaN among the buffers of an update",
        _body(statistics, b"\1" + bytes(20) + b"\0\0\xc0\x7f"),
        "nonfinite",
    )
    yield case("a flag beyond the last buffer", _body(statistics, b"\3" + bytes(24)), "counts")
    integers = _head(sections=4, coder=0)
    yield case("integers of 3 bytes", _body(integers, b"\3\1\0\0"), "counts")
    odd = SCHEMAS["odd update"]
    values = struct.pack("<B3h2h2h3h", 2, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0)
    payload = _body(_head(sections=4, coder=0, of="odd update"), values)
    yield "128 in an int8", "odd update", "update", payload, "counts"
    values = struct.pack("<B3b2b2b3b", 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0)
    yield (
        "2 in a bool",
        "odd update",
        "update",
        _body(_head(sections=4, coder=0, of="odd update"), values),
        "counts",
    )
    assert odd.elements
    partial = _head(sections=8, coder=0, kind=PayloadKind.MODEL)
    yield case(
        "a whole model that leaves a tensor out",
        _with_side(_body(partial, b"\1"), b"\x3f"),
        "header",
        "model",
    )
    yield case("a mask bit beyond the last tensor", _body(_head(sections=8, coder=0), b"\7"), "counts")


def _grids() -> Iterator[Case]:
    def case(name: str, grid: bytes, reason: str) -> Case:
        # Tables, table numbers and a stream that would do.
        return name, "wide", "update", _body(_head(sections=1, coder=1), grid + _ONES), reason

    unit = struct.pack("<f", 1.0)
    yield case("vector shift 4", b"\xc0" + unit, "grid")
    yield case("a unit of 0", b"\x80" + struct.pack("<f", 0), "grid")
    yield case("a negative unit", b"\x80" + struct.pack("<f", -1), "grid")
    yield case("a unit of 2**-121", b"\x80" + struct.pack("<f", 2.0**-121), "grid")
    yield case("an infinite unit", b"\x80" + struct.pack("<f", np.inf), "nonfinite")
    yield case("a unit that is NaN", b"\x80" + struct.pack("<f", np.nan), "nonfinite")
    yield case("a level that overflows", b"\x80" + struct.pack("<f", 2.0**127), "nonfinite")
    yield case("a level moved to 0", b"\x81" + unit + struct.pack("<h", -256), "grid")


def _tables() -> Iterator[Case]:
    grid = b"\x80" + struct.pack("<f", 1.0)

    def case(name: str, section: bytes, reason: str = "entropy") -> Case:
        return name, "wide", "update", _body(_head(sections=1, coder=1), grid + section), reason

    table = b"\1\0\x08\x08"
    yield case("no table", b"\0\0\0")
    yield case("16 tables", b"\x10\x11\x11" + table * 16)
    yield case("a table number beyond the last", b"\1\x21\x11" + table)
    yield case("a table up to level 0", b"\1\x11\x11\0\0\x08")
    yield case("a table up to level 1025", b"\1\x11\x11" + struct.pack("<H", 1025) + bytes([8]) * 1026)
    yield case("an empty table", b"\1\x11\x11\1\0\0\0")
    yield case("a table that is cut", b"\1\x11\x11\1\0\x08", "counts")
    good = _ONES
    yield case("a stream that ends in zero", good + b"\0")
    yield case("a stream with words left over", good + b"\1\2\3\4\5\6\7\x08")
    yield case("a stream that is cut", good[:-1] if good[-2] else good[:-2])


def _contexts() -> Iterator[Case]:
    grid = b"\x80" + struct.pack("<f", 1.0)

    def case(name: str, section: bytes, reason: str = "entropy") -> Case:
        return name, "wide", "update", _body(_head(sections=1, coder=2), grid + section), reason

    yield case("a way of coding that is not known", b"\x08" + b"\1" * 4)
    yield case("the trellis in the fast preset", b"\2" + b"\1" * 4)
    yield case("a guess that the device does not have", b"\5" + bytes(4) + b"\1" * 4, "stale")
    yield case("a start class of 64", b"\1\1\1\1\x40")
    yield case("a stream that begins with eight bytes of 255", b"\1" + b"\1" * 4 + b"\xff" * 8)
    good = _update("small")
    yield "a stream with a byte more", "wide", "update", _body(good[:37], good[37:-8] + b"\1"), "entropy"
    yield "a stream with a zero byte more", "wide", "update", _body(good[:37], good[37:-8] + b"\0"), "entropy"
    odd = _body(_head(sections=1, coder=2, of="odd update"), grid + b"\1" + b"\1\1\1\1" + b"\1")
    yield "a start class of an empty tensor", "odd update", "update", odd, "entropy"


def _changes() -> Iterator[Case]:
    good = held_payload("narrow_change_tables")

    def case(name: str, payload: bytes, reason: str) -> Case:
        return name, "wide", "change", payload, reason

    yield case("of a version that is not held", _with_number(good, 15, "I", 3), "stale")
    yield case("of a model with another fingerprint", _with_number(good, 27, "Q", 1), "stale")
    mask = 37
    yield case("with too many masks", _with_side(good, b"\x2d\0"), "channels")
    yield case("with a bit behind the last channel", _with(good, mask, good[mask] | 64), "channels")
    yield case("with one channel where two are the least", _with(good, mask, 1), "channels")
    yield case("in float32", _with(good, 3, 2 << 4), "counts")


def _update(preset: Preset) -> bytes:
    schema = wide_schema()
    spec, envelope = CodecSpec(bits=5), Envelope(base_version=7, plan_id=9)
    return encode(wide_tensors(), schema, spec, envelope=envelope, coding=Coding(preset)).payload


def _head(*, sections: int, coder: int, kind: PayloadKind = PayloadKind.UPDATE, of: str = "wide") -> bytes:
    """The first 37 bytes of a payload without a side section."""
    schema = SCHEMAS[of]
    counts = len(schema.tensors), schema.elements
    how = kind << 4 | coder
    return struct.pack("<2sBBBHIII8sQH", b"SF", 1, how, sections, *counts, 0, 7, schema.digest, 9, 0)


def _body(head: bytes, body: bytes) -> bytes:
    return _sealed(head[:11] + struct.pack("<I", len(head) + len(body) + 8) + head[15:] + body + bytes(8))


def _sealed(payload: bytes) -> bytes:
    return payload[:-8] + struct.pack("<Q", xxhash.xxh64_intdigest(payload[:-8]))


def _with(payload: bytes, at: int, byte: int) -> bytes:
    return _sealed(payload[:at] + bytes([byte]) + payload[at + 1 :])


def _with_number(payload: bytes, at: int, layout: str, number: int) -> bytes:
    field = struct.pack("<" + layout, number)
    return _sealed(payload[:at] + field + payload[at + len(field) :])


def _with_side(payload: bytes, side: bytes) -> bytes:
    old = struct.unpack_from("<H", payload, 35)[0]
    return _body(payload[:35] + struct.pack("<H", len(side)) + side, payload[37 + old : -8])


def _ones() -> bytes:
    """Behind a grid of one unit: one table of two symbols for four tensors, and the stream of levels of 1 and 0."""
    schema = wide_schema()
    tensors = {t.name: np.zeros(t.shape, t.dtype) for t in schema.tensors}
    for t in schema.weights:
        tensors[t.name].reshape(-1)[::2] = 1
    payload = encode(tensors, schema, CodecSpec(bits=2), coding=Coding("portable")).payload
    body = payload[37:-8]
    offsets = body[0] & 15
    return body[5 + 2 * offsets :]


_ONES = _ones()
