import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.cost import SizeObservation, UpdateSizeModel, bits_per_value, expected_nmse
from slimfleet.compression.schema import ModelSchema

BITS = (1, 2, 4, 8)
SPARSITIES = (0.0, 0.5, 0.9, 0.98)


def test_plain_float32_is_exact() -> None:
    assert (bits_per_value(32, 0.0), expected_nmse(32, 0.0)) == (32, 0)


def test_what_a_threshold_drops_of_a_lognormal_source() -> None:
    # Phi(Phi^-1(0.98) - 2) = Phi(0.0537) is dropped; eight bits keep nearly all of the rest.
    assert 0.52 < expected_nmse(8, 0.98) < 0.54
    # One value in fifty: 0.141 bits say which, 0.02 which sign, and the codec's header.
    assert 0.16 < bits_per_value(1, 0.98) < 0.18


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_predictions_hold_for_another_update_with_layers_of_unlike_scale(bits: int, sparsity: float) -> None:
    rng = np.random.default_rng(7)
    update = {
        name: (scale * rng.standard_t(3, shape)).astype(np.float32)
        for name, scale, shape in (("first", 3.0, (100, 200)), ("last", 1.0, (400, 200)))
    }
    encoded = encode(update, ModelSchema.of(update, list(update)), CodecSpec(bits=bits, sparsity=sparsity))
    energy = sum(float(np.sum(value**2)) for value in update.values())
    lost = sum(float(np.sum((update[name] - encoded.decoded[name]) ** 2)) for name in update)
    assert expected_nmse(bits, sparsity) == pytest.approx(lost / energy, abs=0.15)
    assert UpdateSizeModel().predict(100_000, bits, sparsity) == pytest.approx(len(encoded.payload), rel=0.5)


def test_more_bits_or_less_sparsity_is_never_less_faithful() -> None:
    for sparsity in SPARSITIES:
        errors = [expected_nmse(bits, sparsity) for bits in (*BITS, 32)]
        assert all(more <= less + 0.01 for less, more in pairwise(errors))
    errors = [expected_nmse(8, sparsity) for sparsity in SPARSITIES]
    assert errors == sorted(errors)


def test_learning_moves_the_prediction_to_what_arrived() -> None:
    model = UpdateSizeModel()
    bare = model.predict(100_000, 2, 0.9) - model.overhead_bytes
    arrived = SizeObservation(2, 0.9, 100_000, round(0.6 * bare) + model.overhead_bytes)
    learned = model.learn([arrived])
    assert learned.predict(100_000, 2, 0.9) == pytest.approx(arrived.payload_bytes, rel=1e-3)
    # A cell never seen borrows the mean correction; plain float32 has nothing to correct.
    assert learned.bytes_per_parameter(4, 0.5) == pytest.approx(
        0.6 * model.bytes_per_parameter(4, 0.5), rel=1e-3
    )
    assert learned.predict(100, 32, 0.0) == model.predict(100, 32, 0.0)
    assert learned.error == pytest.approx(0)


def test_the_error_is_reported() -> None:
    model = UpdateSizeModel()
    for size in (2000, 4000, 2000, 4000, 2000, 4000):
        model = model.learn([SizeObservation(2, 0.9, 100_000, size)])
    assert 0.3 < model.error < 0.8
    assert model.observed == 6


sizes = st.builds(
    SizeObservation,
    bits=st.sampled_from(BITS),
    sparsity=st.sampled_from(SPARSITIES),
    parameters=st.integers(100, 10**6),
    payload_bytes=st.integers(1, 10**6),
)


@given(st.lists(sizes, max_size=12), st.randoms())
def test_a_rounds_order_does_not_matter_and_json_keeps_every_bit(seen, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(seen)
    random.shuffle(shuffled)
    learned = UpdateSizeModel().learn(seen).learn(seen[:2])
    assert UpdateSizeModel().learn(shuffled).learn(seen[:2]) == learned
    assert UpdateSizeModel.from_json(json.loads(json.dumps(learned.to_json()))) == learned
