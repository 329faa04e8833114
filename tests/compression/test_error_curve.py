"""Error curve: close to what trials find, so that a search takes few of them."""

import numpy as np
import pytest

from slimfleet.compression.codec import Aim, Coding, error
from slimfleet.compression.codec.native import library
from slimfleet.compression.codec.quantise.native_rate import NativeQuantiser, quantiser_for
from slimfleet.compression.codec.rate import encode_to
from slimfleet.compression.schema import ModelSchema

pytestmark = pytest.mark.skipif(library.load() is None, reason="the native coder is not installed")


def update(kind, seed=0):
    """Weights as updates have them: heavy tails, and what a residual or a rectifier leaves at zero."""
    rng = np.random.default_rng(seed)
    draw = {
        "normal": lambda shape: rng.normal(0, 1, shape),
        "laplace": lambda shape: rng.laplace(0, 1, shape),
        "heavy": lambda shape: rng.laplace(0, 1, shape) * rng.lognormal(0, 1, shape),
        "half zero": lambda shape: rng.laplace(0, 1, shape) * (rng.random(shape) < 0.5),
    }[kind]
    shapes = {"fc.weight": (60, 200), "fc.bias": (60,), "out.weight": (10, 60), "out.bias": (10,)}
    return {name: (1e-3 * draw(shape)).astype(np.float32) for name, shape in shapes.items()}


def quantiser_of(kind, nmse, preset):
    tensors = update(kind)
    return quantiser_for(tensors, ModelSchema.of(tensors, tensors), Aim(nmse=nmse), Coding(preset))


@pytest.mark.parametrize("kind", ["normal", "laplace", "heavy", "half zero"])
@pytest.mark.parametrize("preset", ["fast", "small"])
@pytest.mark.parametrize("nmse", [0.003, 0.03, 0.1, 0.3])
def test_a_trial_errs_nearly_as_expected(kind, preset, nmse):
    quantiser = quantiser_of(kind, nmse, preset)
    curve = quantiser.error_curve()
    first = quantiser.at(curve.step_for(nmse))
    assert first.nmse == pytest.approx(nmse, rel=0.25)
    second = quantiser.at(curve.moved(first.step, first.nmse, nmse))
    assert second.nmse == pytest.approx(nmse, rel=0.06)


@pytest.mark.parametrize("preset", ["fast", "small"])
def test_a_search_takes_three_trials_on_average(preset, monkeypatch):
    tried = []
    at = NativeQuantiser.at
    monkeypatch.setattr(NativeQuantiser, "at", lambda self, step: tried.append(step) or at(self, step))
    searches = 0
    for seed in range(6):
        tensors = update("laplace", seed)
        schema = ModelSchema.of(tensors, tensors)
        for nmse in (0.01, 0.1):
            encoded = encode_to(tensors, schema, Aim(nmse=nmse), coding=Coding(preset))
            assert 0.97 * nmse <= error.nmse(tensors, encoded.decoded) <= nmse
            searches += 1
    assert len(tried) <= 3 * searches


def test_a_lone_value_and_a_tiny_one_have_a_curve():
    for value in (1e-38, 3e30):
        tensors = {"w": np.full((1, 1), value, np.float32)}
        quantiser = quantiser_for(tensors, ModelSchema.of(tensors, tensors), Aim(nmse=0.1), Coding())
        step = quantiser.error_curve().step_for(0.1)
        assert 0 < step < np.inf
