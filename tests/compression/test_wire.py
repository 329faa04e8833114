"""The envelope, and payloads of others: refused with a reason, whatever they hold."""

import random
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfleet.compression.codec import CodecSpec, decode, encode, largest_payload
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.wire import (
    MAX_SIDE_BYTES,
    OVERHEAD_BYTES,
    REASONS,
    Coder,
    Envelope,
    Header,
    PayloadKind,
    Sections,
    seal,
    unseal,
)

HEADER = Header(
    schema_digest=b"12345678",
    tensors=3,
    elements=70_000,
    base_version=2**32 - 1,
    plan_id=2**64 - 1,
    kind=PayloadKind.MODEL,
    coder=Coder.TABLES,
    sections=Sections.WEIGHTS | Sections.INTEGERS,
    side=b"masks",
)


def resealed(payload: bytes) -> bytes:
    """The payload with the checksum and the length it would have were it honest."""
    content = payload[:11] + len(payload).to_bytes(4, "little") + payload[15:-8]
    return content + xxhash.xxh64_intdigest(content).to_bytes(8, "little")


def reason_of(payload: bytes, schema: ModelSchema) -> str | None:
    """The word a payload is refused with, or None."""
    try:
        decode(payload, schema)
    except PayloadError as error:
        return error.reason if error.reason in REASONS else f"{error.reason}: not one of REASONS"
    return None


def test_an_envelope_comes_back_as_it_was_sealed():
    payload = seal(HEADER, b"body")
    header, body = unseal(payload)
    assert (header, bytes(body)) == (HEADER, b"body")
    assert len(payload) == unseal(payload).size == OVERHEAD_BYTES + len(b"masksbody")
    assert resealed(payload) == payload


@pytest.mark.parametrize(
    "change",
    [
        {"side": bytes(MAX_SIDE_BYTES + 1)},
        {"schema_digest": b"short"},
        {"base_version": -1},
        {"plan_id": 2**64},
        {"tensors": 2**16},
    ],
)
def test_a_header_that_does_not_fit_is_a_mistake_of_the_caller(change):
    with pytest.raises(ValueError, match=r"bytes|fit"):
        seal(replace(HEADER, **change), b"")


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, 0, "magic"),
        (2, 9, "version"),
        (3, 0x0F, "version"),
        (3, 0x31, "header"),
        (4, 0x80, "header"),
        (36, 0xFF, "header"),
    ],
)
def test_each_field_is_checked(at, value, reason):
    payload = bytearray(seal(HEADER, b"body"))
    payload[at] = value
    with pytest.raises(PayloadError) as caught:
        unseal(resealed(bytes(payload)))
    assert caught.value.reason == reason


def test_a_payload_for_another_model_is_refused(update, schema):
    payload = encode(update, schema, CodecSpec(bits=4)).payload
    other = ModelSchema.of(update, {"head.weight"})
    assert reason_of(payload, other) == "schema"
    header, body = unseal(payload)
    assert reason_of(seal(replace(header, elements=header.elements + 1), bytes(body)), schema) == "counts"
    assert reason_of(payload + bytes(largest_payload(schema)), schema) == "oversized"


def test_a_payload_that_was_opened_is_read_without_being_opened_again(update, schema):
    payload = encode(update, schema, CodecSpec(bits=4)).payload
    opened = unseal(payload)
    assert unseal(opened) is opened
    expected = decode(payload, schema)
    read = decode(opened, schema)
    assert read.header == expected.header
    assert all(np.array_equal(read.tensors[name], expected.tensors[name]) for name in expected.tensors)


SPECS = [
    CodecSpec(bits=1, sparsity=0.97),
    CodecSpec(bits=4, sparsity=0.5),
    CodecSpec(bits=8),
    CodecSpec(bits=32),
]


@pytest.fixture
def small():
    """A schema of two thousand bytes and a payload for it in every coding, integers and buffers included."""
    rng = np.random.default_rng(0)
    tensors = {
        "w": rng.laplace(0, 0.1, (12, 30)).astype(np.float32),
        "b": rng.laplace(0, 0.1, 9).astype(np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "mean": rng.normal(0, 1, 5).astype(np.float32),
        "count": np.array(300, np.int64),
        "flags": np.array([True, False]),
        "scalar": np.array(0.5, np.float32),
    }
    schema = ModelSchema.of(tensors, {"w", "b", "empty", "scalar"})
    payloads = [
        encode(tensors, schema, spec, envelope=Envelope(kind=kind, side=b"side")).payload
        for spec in SPECS
        for kind in (PayloadKind.UPDATE, PayloadKind.MODEL)
    ]
    return schema, payloads


def test_every_flipped_bit_is_noticed(small):
    schema, payloads = small
    for payload in payloads[:4]:
        for bit in range(8 * len(payload)):
            flipped = bytearray(payload)
            flipped[bit // 8] ^= 1 << bit % 8
            assert reason_of(bytes(flipped), schema) is not None


def test_every_truncation_is_noticed_even_with_a_fresh_checksum(small):
    schema, payloads = small
    for payload in payloads:
        for length in range(len(payload)):
            assert reason_of(payload[:length], schema) is not None
        assert reason_of(payload + b"\0", schema) == "truncated"
        assert reason_of(resealed(payload[:-8] + bytes(9)), schema) in {"counts", "entropy"}


def mutate(payload: bytes, rng: random.Random) -> bytes:
    """One to four random edits: bytes set, bits flipped, stretches removed, doubled, zeroed or made 0xff."""
    data = bytearray(payload)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data))
        stretch = slice(at, at + rng.randint(1, 16))
        match rng.randrange(6):
            case 0:
                data[at] = rng.randrange(256)
            case 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2 if len(data) > 80:
                del data[stretch]
            case 3:
                data[at:at] = data[stretch]
            case 4:
                data[stretch] = bytes(len(data[stretch]))
            case _:
                data[stretch] = b"\xff" * len(data[stretch])
    return bytes(data)


def peak_while_decoding(payload: bytes, schema: ModelSchema) -> tuple[str | None, int]:
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    reason = reason_of(payload, schema)
    return reason, tracemalloc.get_traced_memory()[1] - before


FIXED_BYTES = 64 * 1024
"""What decoding costs whatever the schema: frequency tables (at most 15 of 1025 entries), error messages."""


def test_twenty_thousand_mutated_payloads_neither_crash_nor_allocate(small):
    schema, payloads = small
    rng = random.Random(20_000)
    reasons: dict[str | None, int] = {}
    tracemalloc.start()
    try:
        for i in range(20_000):
            payload = mutate(payloads[i % len(payloads)], rng)
            # One in eight keeps its broken envelope; the others must be refused by what lies inside.
            reason, peak = peak_while_decoding(payload if i % 8 == 0 else resealed(payload), schema)
            reasons[reason] = reasons.get(reason, 0) + 1
            assert peak <= 4 * schema.nbytes + FIXED_BYTES
    finally:
        tracemalloc.stop()
    # The inner decoder was reached, and refused for every reason it has.
    assert set(reasons) <= {None, *REASONS}
    assert {"checksum", "truncated", "counts", "entropy", "grid", "nonfinite", "schema"} <= set(reasons)
    assert reasons.get(None, 0) > 500


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.bool_, np.float16])
@pytest.mark.parametrize("bits", [1, 8, 32])
def test_decoding_takes_at_most_four_times_the_model(dtype, bits):
    rng = np.random.default_rng(0)
    tensors = {"x": (rng.normal(0, 40, (500, 700))).astype(dtype)}
    schema = ModelSchema.of(tensors, tensors)
    payload = encode(tensors, schema, CodecSpec(bits=bits)).payload
    tracemalloc.start()
    try:
        reason, peak = peak_while_decoding(payload, schema)
    finally:
        tracemalloc.stop()
    assert reason is None
    assert peak <= 4 * schema.nbytes + FIXED_BYTES


@settings(max_examples=1000, deadline=None)
@given(st.data())
def test_any_body_behind_an_honest_envelope_is_read_or_refused(data):
    tensors = {"w": np.ones((4, 5), np.float32), "m": np.ones(3, np.float32), "n": np.ones(2, np.int16)}
    schema = ModelSchema.of(tensors, {"w"})
    header = Header(
        schema_digest=schema.digest,
        tensors=3,
        elements=25,
        base_version=0,
        plan_id=0,
        kind=data.draw(st.sampled_from(PayloadKind)),
        coder=data.draw(st.sampled_from(Coder)),
        sections=Sections(data.draw(st.integers(0, 7))),
    )
    payload = seal(header, data.draw(st.binary(max_size=120)))
    if reason_of(payload, schema) is None:
        decoded = decode(payload, schema).tensors
        assert schema.check(decoded)
        assert all(np.isfinite(array).all() for array in decoded.values())
