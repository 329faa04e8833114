"""Beyond the golden payloads, the native decoder and the one written from the page still agree.

On streams that no encoder wrote, which reach states that updates seldom do, and on levels near the largest.
"""

import struct

import numpy as np
import pytest
from plain_decoder.payload import Plain, check_of, guess_of

from slimfleet.compression.codec import Coding, decode
from slimfleet.compression.codec.codec import sealed
from slimfleet.compression.codec.quantise.native_rate import NativeQuantiser
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.wire import Coder, Envelope, Header, PayloadKind, Sections, seal

SHAPES = ((70, 9), (40, 2), (6, 4, 2), (4, 2, 3, 3), (1, 12), (12, 1), (30,), (), (3, 0))
HOW = (0, 1, 3, 4, 5, 7)
"""Every `how` that the page allows."""


def agreed(payload, schema, known):
    """The values that both decoders find, bit for bit."""
    plain = Plain(payload, schema, known)
    values = np.array(plain.decode()).astype("<f4")
    assert plain.unread == 0
    plain.bits.check_end()
    native = decode(payload, schema, known).tensors
    assert np.concatenate([native[t.name].ravel() for t in schema.tensors]).tobytes() == values.tobytes()
    return values


def noise(how, seed):
    """A payload whose stream is noise, ended as an encoder would; its schema and its reference."""
    rng = np.random.default_rng(seed)
    tensors = {str(i): np.float32(rng.standard_t(2, shape)) for i, shape in enumerate(SHAPES)}
    schema, known = ModelSchema.of(tensors, tensors), tensors if how & 4 else None
    units = [2.0**n for n in rng.integers(-16, -6, len(SHAPES))]
    body = struct.pack(f"<B{len(SHAPES)}f2hB", 1 << 4 | 2, *units, *rng.integers(-60, 60, 2), how)
    if known:
        shifted = [unit / 2 if t.ndim < 2 else unit for t, unit in zip(known.values(), units, strict=True)]
        guesses = [guess_of(t, unit) for t, unit in zip(known.values(), shifted, strict=True)]
        body += struct.pack("<I", check_of(guesses))
    classes = [1 + seed, *rng.integers(1, 64, len(SHAPES) - 1)]  # the lowest start with the least `general`
    body += bytes(start if np.prod(shape) else 0 for start, shape in zip(classes, SHAPES, strict=True))
    stream = rng.integers(1, 256, 1 << 15, np.uint8).tobytes()
    header = Header(
        schema_digest=schema.digest,
        tensors=len(SHAPES),
        elements=schema.elements,
        base_version=7,
        plan_id=0,
        kind=PayloadKind.UPDATE,
        coder=Coder.CONTEXTS,
        sections=Sections.WEIGHTS,
    )
    endless = Plain(seal(header, body + stream), schema, known)
    endless.decode()
    return seal(header, body + shortest(*endless.bits.interval(), endless.bits.at)), schema, known


def shortest(low, size, read):
    """The `read` bytes, but for zeros at the end, of the number with most zero bits in low .. low + size - 1."""
    ends = (-(-low >> zeros) << zeros for zeros in reversed(range(64)))
    return next(end for end in ends if end < low + size).to_bytes(read, "big").rstrip(b"\0")


@pytest.mark.parametrize("how", HOW)
def test_noise_is_decoded_alike(how):
    for seed in range(3):
        agreed(*noise(how, seed))


def spikes():
    """Levels up to 30000 after rows of zeros, in stripes, in turns, and in a vector of few others."""
    rng = np.random.default_rng(3)
    heavy = np.clip(rng.standard_t(1, (120, 9)), -30000, 30000)
    heavy[50:90] = 0
    late = np.zeros((40, 16))
    late[20, 7] = 20000
    late[21:24, :8] = -20000
    late[30] = np.tile([30000, -30000], 8)
    tensors = {
        "heavy": heavy,
        "late": late,
        "turns": rng.integers(0, 2, (30, 4, 5)) * 60000 - 30000,
        "stripes": np.tile(np.arange(64) % 7 * 4000 - 12000, (8, 1)),
        "few": rng.choice([0, 0, 0, 1, -1, 25000], 200),
    }
    return {name: np.asarray(array, np.float32) for name, array in tensors.items()}


@pytest.mark.parametrize(("small", "trellis"), [(True, True), (True, False), (False, False)])
def test_large_levels_are_decoded_alike(small, trellis):
    tensors = spikes()
    schema = ModelSchema.of(tensors, tensors)
    for known in (None, {name: np.roll(-array, 1) for name, array in tensors.items()}):
        quantised = NativeQuantiser(tensors, schema, small, trellis, 0.15, known).at(1.0).quantised
        preset = "small" if small else "fast"
        encoded = sealed(quantised, schema, Envelope(base_version=7), Coding(preset, known))
        assert np.abs(agreed(encoded.payload, schema, known)).max() > 20000


def test_runs_of_zeros_are_decoded_alike():
    """Few levels in wide rows, most of them just before a run: states become sure enough to code runs."""
    rng = np.random.default_rng(5)
    thin = np.zeros((90, 260), np.float32)
    for row in thin:
        row[rng.integers(0, 32, 3) * 8 + 7] = rng.choice([-40, -9, -1, 1, 3, 3000], 3)
        row[rng.integers(0, 260)] = rng.choice([0, 0, 2])
    schema = ModelSchema.of({"thin": thin}, {"thin": thin})
    for known in (None, {"thin": np.roll(-thin, 1)}):
        quantised = NativeQuantiser({"thin": thin}, schema, False, False, 0.15, known).at(1.0).quantised
        encoded = sealed(quantised, schema, Envelope(base_version=7), Coding("fast", known))
        assert np.count_nonzero(agreed(encoded.payload, schema, known)) > 200
