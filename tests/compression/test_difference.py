"""What training changed of a tensor, and that change applied elsewhere, whatever the tensor holds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slimfleet.compression.difference import LEAST_VALUE, changed, moved, unset

INF, NAN = np.inf, np.nan


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize(
    ("before", "now", "change"),
    [
        (1.0, 1.5, 0.5),
        (-INF, -INF, 0.0),  # a mask
        (NAN, NAN, 0.0),
        (INF, -INF, 0.0),
        (INF, -1.25, -1.25),  # an observer that has seen its first values
        (NAN, 2.0, 2.0),
        (INF, 0.0, LEAST_VALUE),
        (-INF, -0.0, -LEAST_VALUE),
        (1.0, NAN, 0.0),  # a device cannot spoil a number
        (1.0, INF, 0.0),
    ],
)
def test_a_buffer_changes_by_a_number(before, now, change, dtype):
    before, now = np.array(before, dtype), np.array([now], dtype)
    found = changed(now, before.reshape(1), "buffer")
    assert (found.dtype, found.tolist()) == (dtype, [change])
    after = moved(before, np.array(change))
    assert after.dtype == dtype
    expected = now[0] if np.isfinite(now[0]) else before
    np.testing.assert_allclose(after, expected, atol=LEAST_VALUE)


def test_a_weight_that_diverged_is_not_hidden():
    assert np.isnan(changed(np.array([NAN], np.float32), np.array([1], np.float32), "weight")).all()


@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int64", "uint8", "bool"])
def test_changes_are_arrays_of_the_tensors_type_and_shape(dtype, shape):
    before, now = np.ones(shape, dtype), np.zeros(shape, dtype)
    change = changed(now, before, "buffer")
    assert isinstance(change, np.ndarray)
    assert (change.dtype, change.shape) == (dtype, shape)


def test_counters_wrap_and_flags_flip():
    assert changed(np.array(2, np.uint8), np.array(250, np.uint8), "integer") == 8
    assert changed(np.array(-120, np.int8), np.array(120, np.int8), "integer") == 16
    assert changed(np.array([True, True]), np.array([True, False]), "integer").tolist() == [False, True]


def test_statistics_stay_within_their_type_and_the_wire():
    half = np.full(2, 60_000, np.float16)
    assert moved(half, np.array([1e4, -2e5])).tolist() == [65_504.0, -65_504.0]
    assert np.isfinite(moved(np.array([1e38]), np.array([1e39]))[0].astype(np.float32))
    assert moved(np.array([INF]), np.array([1e300])) == np.finfo(np.float32).max


floats = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(arrays(np.float32, 5, elements=floats), arrays(np.float32, 5, elements=floats))
def test_no_change_makes_a_number_of_a_model_anything_else(before, now):
    change = changed(now, before, "buffer")
    assert np.isfinite(change).all()
    after = moved(before, change.astype(np.float64))
    assert (unset(after) <= unset(before)).all()
    np.testing.assert_array_equal(after[change == 0], before[change == 0])
