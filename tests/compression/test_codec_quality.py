"""Sparsity, bits and rounding do what they say."""

import numpy as np
import pytest

from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.codec.error import nmse
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.wire import Envelope, PayloadKind


@pytest.fixture
def weights():
    rng = np.random.default_rng(3)
    scale = rng.lognormal(0, 1, (60, 1))
    return {
        "a": (rng.laplace(0, 0.01, (60, 200)) * scale).astype(np.float32),
        "b": rng.laplace(0, 0.002, (30, 60)).astype(np.float32),
        "bias": rng.laplace(0, 0.002, 30).astype(np.float32),
    }


def schema_of(tensors):
    return ModelSchema.of(tensors, tensors)


@pytest.mark.parametrize("sparsity", [0.3, 0.9, 0.99])
@pytest.mark.parametrize("bits", [1, 3, 8])
def test_sparsity_is_the_share_of_zeros_over_all_weights(weights, sparsity, bits):
    schema = schema_of(weights)
    decoded = encode(weights, schema, CodecSpec(bits=bits, sparsity=sparsity)).decoded
    zeros = sum(int((array == 0).sum()) for array in decoded.values())
    assert zeros == int(sparsity * schema.elements)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("sparsity", [0.0, 0.9])
@pytest.mark.parametrize("kind", [PayloadKind.UPDATE, PayloadKind.MODEL])
def test_bits_bound_the_number_of_levels(weights, bits, sparsity, kind):
    decoded = encode(
        weights, schema_of(weights), CodecSpec(bits=bits, sparsity=sparsity), envelope=Envelope(kind=kind)
    ).decoded
    for name in ("a", "b"):
        assert len(np.unique(np.abs(decoded[name]))) <= 2 ** (bits - 1) + 1


def test_more_bits_and_less_sparsity_cost_more_and_err_less(weights):
    schema = schema_of(weights)
    for specs in (
        [CodecSpec(bits=b) for b in (1, 2, 4, 6, 8, 32)],
        [CodecSpec(bits=8, sparsity=s) for s in (0.999, 0.99, 0.9, 0.5)],
    ):
        encoded = [encode(weights, schema, spec) for spec in specs]
        sizes = [len(e.payload) for e in encoded]
        errors = [nmse(weights, e.decoded) for e in encoded]
        assert sizes == sorted(sizes)
        assert errors == sorted(errors, reverse=True)


def test_a_sparse_payload_is_within_a_few_percent_of_the_entropy(weights):
    schema = schema_of(weights)
    encoded = encode(weights, schema, CodecSpec(bits=8, sparsity=0.8))
    bits = 0.0
    for array in encoded.decoded.values():
        counts = np.unique(array, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / array.size)).sum())
    assert 8 * len(encoded.payload) < 1.03 * bits + 8 * 120


def test_eight_bits_keep_a_model(weights):
    encoded = encode(
        weights, schema_of(weights), CodecSpec(bits=8), envelope=Envelope(kind=PayloadKind.MODEL)
    )
    for name, array in weights.items():
        assert np.abs(encoded.decoded[name] - array).max() <= np.abs(array).max() / 128
    assert len(encoded.payload) < 4 * schema_of(weights).elements / 4


def test_stochastic_rounding_has_the_input_as_its_mean():
    rng = np.random.default_rng(5)
    x = {"w": rng.laplace(0, 1, (5, 8)).astype(np.float32), "v": rng.laplace(0, 1, 6).astype(np.float32)}
    schema = schema_of(x)
    for spec in (
        CodecSpec(bits=1, rounding="stochastic"),
        CodecSpec(bits=3, sparsity=0.6, rounding="stochastic"),
    ):
        draws = [encode(x, schema, spec, rng=rng).decoded for _ in range(4000)]
        for name, array in x.items():
            values = np.stack([draw[name] for draw in draws]).astype(np.float64)
            error = values.mean(0) - array
            deviation = values.std(0) / np.sqrt(len(draws))
            # A rare level may never be drawn: its share of the mean is a few in the number of draws.
            assert (np.abs(error) <= 5 * deviation + 20 * np.abs(array).max() / len(draws)).all()


def test_the_deadzone_is_biased_where_stochastic_rounding_is_not(weights):
    schema = schema_of(weights)
    small = np.abs(weights["a"]) < np.quantile(np.abs(weights["a"]), 0.5)
    deadzone = encode(weights, schema, CodecSpec(bits=2, sparsity=0.8)).decoded["a"]
    assert not deadzone[small].any()
    spec = CodecSpec(bits=2, sparsity=0.8, rounding="stochastic")
    assert encode(weights, schema, spec, rng=np.random.default_rng(0)).decoded["a"][small].any()


def test_the_same_generator_gives_the_same_bytes(weights):
    spec = CodecSpec(bits=2, rounding="stochastic")
    payloads = {
        encode(weights, schema_of(weights), spec, rng=np.random.default_rng(seed)).payload
        for seed in (1, 1, 2)
    }
    assert len(payloads) == 2


@pytest.mark.parametrize(
    "fields", [{"bits": 0}, {"bits": 9}, {"bits": 4, "sparsity": 1.0}, {"bits": 4, "sparsity": -0.1}]
)
def test_a_spec_that_makes_no_sense_is_refused(fields):
    with pytest.raises(ValueError, match=r"bits is|sparsity is"):
        CodecSpec(**fields)


def test_stochastic_rounding_needs_a_generator(weights):
    with pytest.raises(ValueError, match="random generator"):
        encode(weights, schema_of(weights), CodecSpec(bits=2, rounding="stochastic"))
