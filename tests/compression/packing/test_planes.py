"""Planes come back bit for bit, and the native coder and numpy write the same bytes and refuse the same ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfleet.compression.codec.native.library import load
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.packing import portable_planes
from slimfleet.compression.packing.planes import BLOCK, pack_planes, unpack_planes

WIDTHS = (1, 2, 4, 8)
KINDS = {
    "noise": lambda rng, n, w: rng.integers(0, 256, n * w, np.uint8),
    "zeros": lambda rng, n, w: np.zeros(n * w, np.uint8),
    "small": lambda rng, n, w: rng.integers(-50, 50, n).astype(f"<i{w}").view(np.uint8),
    "rising": lambda rng, n, w: (np.arange(n) * 3).astype(f"<u{w}").view(np.uint8),
    "bell": lambda rng, n, w: (rng.normal(0, 2, n).round() * 8).astype(f"<i{w}").view(np.uint8),
    "sparse": lambda rng, n, w: (
        rng.integers(0, 256, (n, w), np.uint8) * (rng.random((n, 1)) < 0.1).astype(np.uint8)
    ).ravel(),
}


def packed_both_ways(data, width, floats):
    """The bytes of numpy, which the native coder, where there is one, must write too; and both must read them."""
    portable = portable_planes.pack(data, width, floats=floats)
    assert pack_planes(data, width, floats=floats) == portable
    for unpack in (portable_planes.unpack, unpack_planes):
        again = np.empty_like(data)
        unpack(np.frombuffer(portable, np.uint8), again, width, floats=floats)
        assert np.array_equal(again, data)
    return portable


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("floats", [False, True])
def test_elements_of_any_width_come_back(kind, width, floats):
    rng = np.random.default_rng(1)
    for n in (0, 1, 2, 15, 16, 17, 1023, 1024, 5000):
        packed_both_ways(KINDS[kind](rng, n, width), width, floats)


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=400), st.sampled_from(WIDTHS), st.booleans())
def test_any_bytes_come_back(data, width, floats):
    array = np.frombuffer(data[: len(data) // width * width], np.uint8).copy()
    packed_both_ways(array, width, floats)


def test_blocks_end_where_they_should():
    rng = np.random.default_rng(2)
    for n in (BLOCK - 1, BLOCK, BLOCK + 1):
        values = rng.normal(0, 0.02, n).astype(np.float32)
        packed_both_ways(values.view(np.uint8), 4, True)


def test_what_repeats_is_nearly_free():
    def share(array, floats):
        return len(pack_planes(array.view(np.uint8), array.itemsize, floats=floats)) / array.nbytes

    rng = np.random.default_rng(3)
    weights = rng.normal(0, 0.02, 1 << 17).astype(np.float32)
    assert 0.80 < share(weights, True) < 0.84
    # float32 that was bfloat16 costs no more than bfloat16 does.
    truncated = (weights.view(np.uint32) & 0xFFFF0000).view(np.float32)
    halves = (weights.view(np.uint32) >> 16).astype(np.uint16)
    assert share(truncated, True) == pytest.approx(share(halves, True) / 2, rel=0.001)
    assert share(np.arange(1 << 17), False) < 0.001
    assert share(np.zeros(1 << 17, np.float64), True) < 1e-5
    # A tenth is not zero: entropy of the mask and their own bits.
    mask = rng.random(1 << 17) < 0.1
    assert share(np.where(mask, weights, 0).astype(np.float32), True) < 0.1 * 0.84 + 0.469 / 32 + 0.002


def verdict(unpack, data, size, width, floats):
    out = np.zeros(size, np.uint8)
    try:
        unpack(np.frombuffer(data, np.uint8), out, width, floats=floats)
    except PayloadError as error:
        return error.reason
    return out.tobytes()


@pytest.mark.skipif(load() is None, reason="compares with the native coder")
def test_damaged_bytes_are_taken_or_refused_alike():
    rng, refused, taken = np.random.default_rng(4), 0, 0
    for trial in range(600):
        width, floats = WIDTHS[trial % 4], bool(trial & 4)
        data = list(KINDS.values())[trial % len(KINDS)](rng, int(rng.integers(1, 1500)), width)
        packed = bytearray(pack_planes(data, width, floats=floats))
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(min(len(packed), 40 if trial % 2 else len(packed))))
            if rng.random() < 0.2:
                del packed[at:]
                packed += bytes(1)
            else:
                packed[at] = int(rng.integers(256))
        native = verdict(unpack_planes, bytes(packed), data.size, width, floats)
        assert native == verdict(portable_planes.unpack, bytes(packed), data.size, width, floats), trial
        refused += native == "entropy"
        taken += native != "entropy"
    assert min(refused, taken) > 50
