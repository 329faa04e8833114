"""What goes in comes out: any schema, any spec, exactly as the encoder said."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slimfleet.compression.codec import Aim, CodecSpec, decode, encode, encode_to
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.wire import OVERHEAD_BYTES, Envelope, PayloadKind, unseal

SHAPES = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)
FLOATS = st.floats(-1e6, 1e6, width=32)
ARRAYS = st.one_of(
    hnp.arrays(np.float32, SHAPES, elements=FLOATS),
    hnp.arrays(np.float32, SHAPES, elements=st.sampled_from([0.0, 0.5])),
    hnp.arrays(np.float64, SHAPES, elements=FLOATS),
    hnp.arrays(np.float16, SHAPES, elements=st.floats(-100, 100, width=16)),
    hnp.arrays(np.int64, SHAPES),
    hnp.arrays(np.uint64, SHAPES),
    hnp.arrays(np.uint8, SHAPES),
    hnp.arrays(np.bool_, SHAPES),
)
MODELS = st.lists(st.tuples(ARRAYS, st.booleans()), max_size=6)
SPECS = st.builds(
    CodecSpec,
    bits=st.sampled_from([1, 2, 3, 5, 8, 32]),
    sparsity=st.sampled_from([0.0, 0.3, 0.9, 0.999]),
    rounding=st.sampled_from(["deadzone", "stochastic"]),
)


def model_of(drawn):
    tensors = {f"t{i}": array for i, (array, _) in enumerate(drawn)}
    return tensors, ModelSchema.of(tensors, {f"t{i}" for i, (_, trained) in enumerate(drawn) if trained})


@settings(max_examples=300, deadline=None)
@given(MODELS, SPECS, st.sampled_from([PayloadKind.UPDATE, PayloadKind.MODEL]), st.binary(max_size=20))
def test_decoding_gives_what_the_encoder_said(drawn, spec, kind, side):
    tensors, schema = model_of(drawn)
    encoded = encode(
        tensors,
        schema,
        spec,
        envelope=Envelope(kind=kind, base_version=7, plan_id=2**63, side=side),
        rng=np.random.default_rng(0),
    )
    decoded = decode(encoded.payload, schema)
    assert list(decoded.tensors) == list(tensors)
    for name, array in decoded.tensors.items():
        assert array.dtype == tensors[name].dtype
        assert array.shape == tensors[name].shape
        assert np.array_equal(array, encoded.decoded[name])
        if array.dtype.kind != "f":
            assert np.array_equal(array, tensors[name])
    header = unseal(encoded.payload).header
    assert header == decoded.header
    assert (header.base_version, header.plan_id, header.kind, header.side) == (7, 2**63, kind, side)


@settings(deadline=None)
@given(hnp.arrays(np.float32, SHAPES, elements=st.floats(allow_nan=False, allow_infinity=False, width=32)))
def test_32_bits_are_exact(array):
    for trained in ({"x"}, set()):
        schema = ModelSchema.of({"x": array}, trained)
        decoded = decode(encode({"x": array}, schema, CodecSpec(bits=32)).payload, schema).tensors["x"]
        assert np.array_equal(decoded, array)


def test_an_all_zero_update_costs_only_its_header(update, schema):
    zeros = {name: np.zeros_like(array) for name, array in update.items()}
    for spec in (CodecSpec(bits=4, sparsity=0.9), CodecSpec(bits=32)):
        payload = encode(zeros, schema, spec).payload
        assert len(payload) == OVERHEAD_BYTES == 45
        assert not any(array.any() for array in decode(payload, schema).tensors.values())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bits", [4, 32])
@pytest.mark.parametrize("trained", [True, False])
def test_values_that_are_not_finite_are_refused(value, bits, trained):
    tensors = {"x": np.array([1.0, value, 2.0], np.float32)}
    with pytest.raises(PayloadError) as caught:
        encode(tensors, ModelSchema.of(tensors, tensors if trained else ()), CodecSpec(bits=bits))
    assert caught.value.reason == "nonfinite"


def test_a_float64_beyond_float32_is_refused():
    tensors = {"x": np.array([1e300])}
    for bits in (8, 32):
        with pytest.raises(PayloadError, match="holds NaN, infinity or more than"):
            encode(tensors, ModelSchema.of(tensors, tensors), CodecSpec(bits=bits))


def test_tensors_of_another_model_are_refused(update, schema):
    with pytest.raises(PayloadError) as caught:
        encode({**update, "extra": np.zeros(1)}, schema, CodecSpec(bits=4))
    assert caught.value.reason == "schema"


@pytest.mark.parametrize("buffer", [[1e-7, 2e-7], [1e6, 0.1], [65504.0, 1.0]])
def test_buffers_keep_three_digits_of_their_largest_value(buffer):
    tensors = {"w": np.ones((2, 2), np.float32), "running_var": np.array(buffer, np.float32)}
    schema = ModelSchema.of(tensors, {"w"})
    decoded = decode(encode(tensors, schema, CodecSpec(bits=1)).payload, schema).tensors
    assert np.abs(decoded["running_var"] - tensors["running_var"]).max() <= max(buffer) * 2**-11


def tuned_head():
    """A large frozen layer, batch normalisation and a small head, as zeros."""
    shapes = {"0.weight": (1000, 1000), "0.bias": (1000,), "1.weight": (1000,), "1.bias": (1000,)}
    shapes |= {"1.running_mean": (1000,), "1.running_var": (1000,), "2.weight": (2, 1000), "2.bias": (2,)}
    zeros = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    zeros["1.num_batches_tracked"] = np.array(0, np.int64)
    trained = {"1.weight", "1.bias", "2.weight", "2.bias"}
    return zeros, ModelSchema.of(zeros, trained, {"0.weight", "0.bias"})


@pytest.mark.parametrize("nmse", [0.1, 0])
def test_a_statistic_that_moved_costs_itself_and_no_frozen_layer(nmse):
    zeros, schema = tuned_head()
    update = {spec.name: zeros[spec.name] for spec in schema.moving.tensors}
    sizes = [len(encode_to(update, schema.moving, Aim(nmse=nmse)).payload)]
    for name in ("1.running_mean", "1.num_batches_tracked"):
        update[name] = update[name] + update[name].dtype.type(1 if name.endswith("tracked") else 0.01)
        payload = encode_to(update, schema.moving, Aim(nmse=nmse)).payload
        sizes.append(len(payload))
        decoded = decode(payload, schema.moving).tensors
        assert all(np.allclose(decoded[name], update[name], rtol=1e-3) for name in update)
    # A byte says which tensors are there, one which floats are float32, and two are the counter and its width.
    assert sizes == [45, 45 + 1 + 1 + 2000, 45 + 1 + 1 + 2000 + 2]
