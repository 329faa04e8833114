import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfleet.compression.cost import SizeObservation, UpdateSizeModel, bits_per_value, expected_nmse

BITS = (1, 2, 4, 8)
SPARSITIES = (0.0, 0.5, 0.9, 0.98)


def test_bits_in_plain_numbers() -> None:
    assert bits_per_value(32, 0.0) == 32
    assert bits_per_value(1, 0.0) == 1  # a sign
    assert bits_per_value(1, 0.5) == 1.5  # sent or not, and the sign of half of them


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_formulae_agree_with_quantised_laplacian_samples(bits: int, sparsity: float) -> None:
    values = np.random.default_rng(0).laplace(size=400_000)
    magnitude = np.abs(values)
    threshold = np.quantile(magnitude, sparsity)
    kept = magnitude >= threshold
    levels = 2 ** (bits - 1)
    step = 6.0 / levels if bits > 1 else np.inf
    cell = np.minimum(np.floor((magnitude - threshold) / step), 20 * levels).astype(int)
    decoded = np.zeros_like(values)
    for level in np.unique(cell[kept]):
        members = kept & (cell == level)
        decoded[members] = np.sign(values[members]) * magnitude[members].mean()
    nmse = np.sum((values - decoded) ** 2) / np.sum(values**2)
    symbols = np.where(kept, np.sign(values) * (cell + 1), 0)
    shares = np.unique(symbols, return_counts=True)[1] / len(values)
    assert expected_nmse(bits, sparsity) == pytest.approx(nmse, abs=0.01)
    assert bits_per_value(bits, sparsity) == pytest.approx(
        -np.sum(shares * np.log2(shares)), rel=0.05, abs=0.01
    )


def test_more_bits_or_less_sparsity_is_never_less_faithful() -> None:
    for sparsity in SPARSITIES:
        errors = [expected_nmse(bits, sparsity) for bits in (*BITS, 32)]
        assert errors == sorted(errors, reverse=True)
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
