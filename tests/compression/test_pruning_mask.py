import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfleet.compression import BadInput, ModelSchema
from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.pruning.mask import density, magnitude_masks, masked
from slimfleet.compression.wire import Envelope, PayloadKind

RNG = np.random.default_rng(0)
MODEL = {
    "small": RNG.normal(0, 0.1, (40, 30)).astype(np.float32),
    "large": RNG.normal(0, 1.0, (40, 30)).astype(np.float32),
    "bias": np.full(40, 1e-6, np.float32),
    "running": np.zeros(40, np.float32),
}
SCHEMA = ModelSchema.of(MODEL, {"small", "large", "bias"})


@given(st.floats(0, 0.99))
def test_the_given_share_is_kept_over_the_whole_model(sparsity: float) -> None:
    masks = magnitude_masks(MODEL, SCHEMA, sparsity)
    assert set(masks) == {"small", "large"}
    assert density(masks) == pytest.approx(1 - sparsity, abs=1 / 2400 + 1e-9)


@pytest.mark.parametrize("value", [0.0, 0.5])
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.5, 0.7, 0.99])
def test_equal_weights_do_not_change_the_share(value: float, sparsity: float) -> None:
    """Six of ten are zero, or all are the same: at a sparsity of 0.1 nine of ten are kept, not four."""
    same = np.where(np.arange(2400).reshape(40, 60) % 10 < 6, value, RNG.uniform(value, 1, (40, 60)))
    model = {"w": same.astype(np.float32), "v": np.full((4, 5), value, np.float32)}
    masks = magnitude_masks(model, ModelSchema.of(model, model), sparsity)
    assert density(masks) == pytest.approx(1 - sparsity, abs=1 / 2420 + 1e-9)
    assert masks["w"][same > value].all() or sparsity > 0.6


def test_the_largest_weights_stay_and_vectors_are_left_alone() -> None:
    masks = magnitude_masks(MODEL, SCHEMA, 0.5)
    pruned = masked(MODEL, masks)
    dropped = np.concatenate([np.abs(MODEL[n][~masks[n]]) for n in masks])
    kept = np.concatenate([np.abs(MODEL[n][masks[n]]) for n in masks])
    assert dropped.max() < kept.min()
    assert masks["large"].mean() > 3 * masks["small"].mean()
    assert np.array_equal(pruned["bias"], MODEL["bias"])
    assert not pruned["small"][~masks["small"]].any()
    assert np.array_equal(pruned["large"][masks["large"]], MODEL["large"][masks["large"]])


def test_a_masked_model_takes_fewer_bytes() -> None:
    sizes = [
        len(
            encode(
                masked(MODEL, magnitude_masks(MODEL, SCHEMA, s)),
                SCHEMA,
                CodecSpec(bits=8),
                envelope=Envelope(kind=PayloadKind.MODEL),
            ).payload
        )
        for s in (0.0, 0.5, 0.9)
    ]
    assert sizes[1] < 0.75 * sizes[0]
    assert sizes[2] < 0.35 * sizes[0]


def test_a_model_without_matrices_has_nothing_to_mask() -> None:
    schema = ModelSchema.of({"bias": MODEL["bias"]}, {"bias"})
    assert magnitude_masks({"bias": MODEL["bias"]}, schema, 0.9) == {}
    assert density({}) == 1.0


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_a_share_outside_its_range_is_refused(sparsity: float) -> None:
    with pytest.raises(BadInput, match="sparsity"):
        magnitude_masks(MODEL, SCHEMA, sparsity)
