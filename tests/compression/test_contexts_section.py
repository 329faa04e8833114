"""The section of the native coder inside a payload: what it holds comes back, what it cannot hold is refused."""

import numpy as np
import pytest
import xxhash

from slimfleet.compression.codec import Aim, CodecSpec, Coding, decode, encode, encode_to
from slimfleet.compression.codec.entropy.contexts_section import guess_of
from slimfleet.compression.codec.native import library
from slimfleet.compression.codec.native.bindings import FARTHEST
from slimfleet.compression.codec.quantise.grid import Grid
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.wire import Coder, Header, PayloadKind, Sections, seal

pytestmark = pytest.mark.skipif(library.load() is None, reason="the native coder is not installed")

RNG = np.random.default_rng(21)
TENSORS = {
    "conv": RNG.laplace(0, 0.1, (3, 2, 3, 3)).astype(np.float32),
    "matrix": RNG.laplace(0, 0.1, (5, 9)).astype(np.float32),
    "bias": RNG.laplace(0, 0.1, 5).astype(np.float32),
    "zeros": np.zeros((3, 4), np.float32),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(0.5, np.float32),
    "half": RNG.laplace(0, 0.1, (2, 5)).astype(np.float16),
    "count": np.array(300, np.int64),
}
SCHEMA = ModelSchema.of(TENSORS, set(TENSORS) - {"count"})
REFERENCE = {name: array * array.dtype.type(0.7) for name, array in TENSORS.items()}


def payload_of(how, reference=None):
    """A payload of coder 2: by the search, which follows the trellis under "small", or of fixed levels."""
    if how == "trellis":
        encoded = encode_to(TENSORS, SCHEMA, Aim(nmse=0.05), coding=Coding(reference=reference))
    else:
        encoded = encode(TENSORS, SCHEMA, CodecSpec(bits=4), coding=Coding(how, reference))
    assert encoded.payload[3] == Coder.CONTEXTS
    return encoded


def resealed(payload):
    """The payload with the checksum and the length it would have were it honest."""
    content = payload[:11] + len(payload).to_bytes(4, "little") + payload[15:-8]
    return content + xxhash.xxh64_intdigest(content).to_bytes(8, "little")


def reason_of(payload, reference=None):
    """The word a payload is refused with; None where it is read, which has to give finite tensors of the schema."""
    try:
        decoded = decode(payload, SCHEMA, reference).tensors
    except PayloadError as error:
        return error.reason
    assert all(np.isfinite(array).all() for array in SCHEMA.check(decoded).values())
    return None


every_way = pytest.mark.parametrize("how", ["trellis", "small", "fast"])
with_reference = pytest.mark.parametrize("reference", [None, REFERENCE], ids=["alone", "guessed"])


@every_way
@with_reference
def test_the_decoder_has_what_the_encoder_said(how, reference):
    encoded = payload_of(how, reference)
    decoded = decode(encoded.payload, SCHEMA, reference).tensors
    assert {n: (a.dtype, a.shape) for n, a in decoded.items()} == {
        n: (a.dtype, a.shape) for n, a in TENSORS.items()
    }
    assert all((decoded[name] == encoded.decoded[name]).all() for name in TENSORS)
    assert decoded["count"] == 300


@every_way
@with_reference
def test_every_flipped_bit_is_noticed(how, reference):
    payload = payload_of(how, reference).payload
    for bit in range(8 * len(payload)):
        flipped = bytearray(payload)
        flipped[bit // 8] ^= 1 << bit % 8
        assert reason_of(bytes(flipped), reference) is not None


def start_classes_in(payload):
    """Where a payload without a side section, with one counter and one unit, has its start classes."""
    grid = 37 + 1 + payload[37]
    how = grid + 1 + 4 + 2 * (payload[grid] & 15)
    first = how + 1 + 4 * bool(payload[how] & 4)
    return range(first, first + 7)


@every_way
@with_reference
def test_with_a_fresh_checksum_every_flipped_bit_is_refused_or_means_something_else(how, reference):
    encoded = payload_of(how, reference)
    reasons = set()
    starts = start_classes_in(encoded.payload)
    for bit in range(37 * 8, 8 * len(encoded.payload) - 64):  # behind the header
        flipped = bytearray(encoded.payload)
        flipped[bit // 8] ^= 1 << bit % 8
        changed = resealed(bytes(flipped))
        reason = reason_of(changed, reference)
        reasons.add(reason)
        if reason is None:
            again = decode(changed, SCHEMA, reference).tensors
            same = all(np.array_equal(again[name], encoded.decoded[name]) for name in TENSORS)
            assert not same or bit // 8 in starts  # which only say what to expect
    assert {None, "entropy"} <= reasons <= {None, "entropy", "counts", "grid", "nonfinite", "stale"}


@every_way
@with_reference
def test_shortened_and_lengthened_payloads_are_refused_or_mean_something_else(how, reference):
    encoded = payload_of(how, reference)
    body = encoded.payload[:-8]
    for length in range(37, len(body)):
        changed = resealed(body[:length] + bytes(8))
        if reason_of(changed, reference) is None:
            again = decode(changed, SCHEMA, reference).tensors
            assert any((again[name] != encoded.decoded[name]).any() for name in TENSORS)
    for more in (bytes(1), bytes(40), b"\1" * 40, b"\xff" * 40):
        assert reason_of(resealed(body + more + bytes(8)), reference) == "entropy"


def sealed(body, schema=SCHEMA, sections=Sections.WEIGHTS):
    """A body of coder 2 in an honest envelope."""
    header = Header(
        schema_digest=schema.digest,
        tensors=len(schema.tensors),
        elements=schema.elements,
        base_version=0,
        plan_id=0,
        kind=PayloadKind.UPDATE,
        coder=Coder.CONTEXTS,
        sections=sections,
    )
    return seal(header, body)


ONE = b"\x80" + np.float32(0.01).tobytes()
"""A grid of one unit."""
STARTS = bytes([20, 20, 20, 0, 0, 20, 20])


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        (ONE + b"\1" + STARTS + b"abc", None),
        (ONE + b"\3" + STARTS + b"abc", None),
        (ONE + b"\0" + STARTS + b"abc", None),
        (ONE + b"\0" + STARTS, "entropy"),  # zeros without end: ones, which are levels without end
        (ONE + b"\0" + STARTS[:-1], "counts"),
        (ONE, "counts"),
        (b"", "counts"),
        (b"\x81" + ONE[1:], "counts"),
        (b"\xc0" + ONE[1:] + b"\1" + STARTS, "grid"),
        (b"\x80" + np.float32(0).tobytes() + b"\1" + STARTS, "grid"),
        (b"\x80" + np.float32(np.nan).tobytes() + b"\1" + STARTS, "nonfinite"),
        (b"\x80" + np.float32(3e38).tobytes() + b"\1" + STARTS + b"abc", "nonfinite"),
        (ONE + b"\2" + STARTS + b"abc", "entropy"),  # the fast preset has no trellis
        (ONE + b"\x08" + STARTS + b"abc", "entropy"),
        (ONE + b"\xff" + STARTS + b"abc", "entropy"),
        (ONE + b"\1" + bytes([64]) + STARTS[1:] + b"abc", "entropy"),
        # A start class for the tensor without elements.
        (ONE + b"\1" + STARTS[:4] + bytes([20, 20, 20]) + b"abc", "entropy"),
        (ONE + b"\1" + STARTS + b"abc\0", "entropy"),
        (ONE + b"\1" + STARTS + b"\x55" * 4000, "entropy"),
        (ONE + b"\1" + bytes(7), None),
        (ONE + b"\1" + bytes(7) + b"a", "entropy"),  # no tensor is coded, and no byte belongs to any
        (ONE + b"\1" + bytes(7) + b"abcdefgh", "entropy"),
        (ONE + b"\5" + STARTS[:3], "counts"),
        (ONE + b"\5" + bytes(4) + STARTS + b"abc", "stale"),
    ],
)
def test_each_field_is_checked(section, reason):
    assert reason_of(sealed(section)) == reason


def test_without_weights_there_is_nothing_to_read():
    schema = ModelSchema.of({"n": np.arange(3)}, set())
    assert decode(sealed(ONE + b"\1", schema), schema).tensors["n"].tolist() == [0, 0, 0]
    for rest in (b"\1", bytes(1)):
        with pytest.raises(PayloadError, match="not what was encoded"):
            decode(sealed(ONE + b"\1" + rest, schema), schema)


def test_an_absent_section_is_zeros():
    decoded = decode(sealed(b"", sections=Sections(0)), SCHEMA).tensors
    assert not any(array.any() for array in decoded.values())


@every_way
def test_another_reference_than_it_was_written_with_is_stale(how):
    payload = payload_of(how, REFERENCE).payload
    assert reason_of(payload, REFERENCE) is None
    assert reason_of(payload) == "stale"
    other = {**REFERENCE, "bias": REFERENCE["bias"] + np.float32(0.25)}
    assert reason_of(payload, other) == "stale"
    # One that was written without does not mind.
    assert reason_of(payload_of(how).payload, REFERENCE) is None


@pytest.mark.parametrize("name", ["conv", "scalar", "half"])
def test_a_reference_with_nan_is_refused_at_both_ends(name):
    wrong = {**REFERENCE, name: np.full_like(REFERENCE[name], np.nan)}
    with pytest.raises(PayloadError, match="NaN"):
        encode(TENSORS, SCHEMA, CodecSpec(bits=4), coding=Coding(reference=wrong))
    assert reason_of(payload_of("small", REFERENCE).payload, wrong) == "nonfinite"


def test_a_guess_is_cut_towards_zero_and_to_its_bounds():
    values = np.array([0.0, 0.99, -0.99, 1.01, -2.6, 1e30, -1e30, np.inf, 2.0**20 + 1], np.float32)
    (guess,) = guess_of([values], Grid((1.0,), (), 0), [TensorSpec("v", (9,), "float32", "weight")])
    assert guess.dtype == np.int32
    assert guess.tolist() == [0, 0, 0, 1, -2, FARTHEST, -FARTHEST, FARTHEST, FARTHEST]
    assert values[1] == np.float32(0.99), "the reference stays as it is"


def test_values_that_are_not_finite_are_refused_before_they_are_coded():
    for value in (np.nan, np.inf):
        wrong = {**TENSORS, "matrix": np.full_like(TENSORS["matrix"], value)}
        for preset in ("small", "fast"):
            with pytest.raises(PayloadError, match="NaN, infinity"):
                encode_to(wrong, SCHEMA, Aim(nmse=0.1), coding=Coding(preset))


def test_where_the_native_coder_is_missing_its_payloads_are_of_an_unknown_version(without_native_coder):
    payload = payload_of("small").payload
    without_native_coder()
    assert reason_of(payload) == "version"
