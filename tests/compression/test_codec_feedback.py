"""Error feedback: nothing is lost, it only comes later."""

import numpy as np
import pytest

from slimfleet.compression.codec import CodecSpec, add_residual, decode, encode, residual_after
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors


def zero_residual(schema: ModelSchema) -> Tensors:
    return {spec.name: np.zeros(spec.shape, np.float32) for spec in schema.weights}


def updates(update, rounds):
    rng = np.random.default_rng(1)
    for _ in range(rounds):
        yield {name: (a * rng.normal(1, 0.5, a.shape)).astype(a.dtype) for name, a in update.items()}


@pytest.mark.parametrize("spec", [CodecSpec(bits=1, sparsity=0.99), CodecSpec(bits=3, sparsity=0.8)])
def test_what_was_decoded_plus_the_residual_is_what_was_put_in(update, schema, spec):
    residual, given, got = zero_residual(schema), {}, {}
    for delta in updates(update, 12):
        sent = add_residual(delta, residual)
        payload = encode(sent, schema, spec).payload
        decoded = decode(payload, schema).tensors
        residual = residual_after(sent, decoded, schema)
        for name in residual:
            given[name] = given.get(name, 0) + delta[name].astype(np.float64)
            got[name] = got.get(name, 0) + decoded[name].astype(np.float64)
    for name in residual:
        assert residual[name].shape == update[name].shape
        assert np.allclose(got[name] + residual[name], given[name], atol=1e-6)
        assert not np.allclose(got[name], given[name], atol=1e-4)


def test_buffers_and_counters_have_no_residual(update, schema):
    residual = residual_after(update, {name: 0 * array for name, array in update.items()}, schema)
    assert sorted(residual) == sorted(name for name in update if name.endswith(("weight", "bias")))
    added = add_residual(update, {name: np.ones_like(array) for name, array in residual.items()})
    assert added["norm.running_var"] is update["norm.running_var"]
    assert np.array_equal(added["conv.bias"], update["conv.bias"] + 1)


def test_an_old_residual_counts_less(update, schema):
    residual = {name: np.ones_like(array) for name, array in zero_residual(schema).items()}
    for age, share in ((1, 1.0), (2, 0.5), (4, 0.125)):
        added = add_residual(update, residual, age=age, decay=0.5)
        assert np.allclose(added["head.bias"] - update["head.bias"], share, atol=1e-6)


def test_the_residual_is_bounded_by_the_norm_of_the_update():
    update = {"w": np.array([[3.0, 4.0]], np.float32)}
    residual = {"w": np.array([[0.0, 1000.0]], np.float32)}
    assert np.allclose(add_residual(update, residual, max_norm=2.0)["w"], [[3.0, 14.0]])
    assert np.allclose(add_residual(update, {"w": residual["w"] / 1000}, max_norm=2.0)["w"], [[3.0, 5.0]])


def test_the_bound_holds_in_float16_beyond_what_its_squares_can_hold():
    update = {"w": np.full(4, 200.0, np.float16)}  # a norm of 400; the square of 256 is infinite in float16
    residual = {"w": np.full(4, 10_000.0, np.float32)}
    assert add_residual(update, residual, max_norm=4.0)["w"].tolist() == [1000.0] * 4
