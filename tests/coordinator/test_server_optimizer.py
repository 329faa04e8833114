from dataclasses import replace

import numpy as np
import pytest

from slimfleet.compression import ModelSchema
from slimfleet.coordinator.learning.server_optimizer import ServerOptimizer
from slimfleet.coordinator.settings import ServerSettings

START = {
    "w": np.array([[1.0, -2.0], [0.5, 0.0]], np.float32),
    "scale": np.array(0.25, np.float32),
    "running": np.array([4.0, 8.0], np.float32),
    "count": np.array(2**60 + 1, np.int64),
    "byte": np.array([0, 255, 7], np.uint8),
    "flag": np.array([True, False, True]),
}
SCHEMA = ModelSchema.of(START, ["w", "scale"])
PLAIN = ServerSettings()
ADAM = ServerSettings(optimizer="fedadam", learning_rate=0.1)
MOMENTUM = ServerSettings(momentum=0.9)


def server(settings: ServerSettings = PLAIN) -> ServerOptimizer:
    return ServerOptimizer(START, SCHEMA, settings)


def update(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(0, 0.1, value.shape) for name, value in START.items()}


def test_fedavg_adds_the_mean_update():
    optimizer, mean = server(), update()
    optimizer.step(mean)
    for name in ("w", "scale", "running"):
        np.testing.assert_allclose(optimizer.model()[name], START[name] + mean[name], rtol=1e-6)
    assert list(optimizer.model()) == list(START)


def test_every_tensor_keeps_its_shape_and_dtype_and_the_start_is_untouched():
    before = {name: value.copy() for name, value in START.items()}
    optimizer = server(ADAM)
    for round_number in range(3):
        optimizer.step(update(round_number))
    for name, value in optimizer.model().items():
        assert isinstance(value, np.ndarray)
        assert (value.shape, value.dtype) == (START[name].shape, START[name].dtype)
        assert np.array_equal(START[name], before[name])


def test_counters_move_by_whole_numbers_and_flags_by_majority():
    optimizer = server()
    zero = {name: np.zeros(value.shape) for name, value in START.items()}
    moves = {"count": np.array(2.6), "byte": np.array([-1.0, 1.0, 0.4]), "flag": np.array([0.6, 0.6, 0.5])}
    optimizer.step(zero | moves)
    model = optimizer.model()
    assert int(model["count"]) == 2**60 + 4
    assert model["byte"].tolist() == [255, 0, 7]
    assert model["flag"].tolist() == [False, True, True]


def test_server_momentum_by_hand():
    optimizer, mean = server(MOMENTUM), update()
    optimizer.step(mean)
    optimizer.step(mean)
    np.testing.assert_allclose(optimizer.model()["w"], START["w"] + (1 + 1.9) * mean["w"], rtol=1e-5)


def test_fedadam_by_hand():
    """Kingma & Ba 2015 with the betas and epsilon of Reddi et al. 2021, on the pseudo-gradient -mean."""
    optimizer, w = server(ADAM), START["w"].astype(np.float64)
    m = v = np.zeros_like(w)
    for t in (1, 2, 3):
        gradient = -update(t)["w"]
        m = 0.9 * m + 0.1 * gradient
        v = 0.99 * v + 0.01 * gradient**2
        w = w - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-3)
        optimizer.step(update(t))
    np.testing.assert_allclose(optimizer.model()["w"], w, rtol=1e-4)
    # Statistics are not gradients: they move by the mean.
    moved = START["running"] + sum(update(t)["running"] for t in (1, 2, 3))
    np.testing.assert_allclose(optimizer.model()["running"], moved, rtol=1e-6)


def test_the_average_forgets_early_models_faster():
    optimizer = server(replace(PLAIN, averaging=0.3))
    expected = START["w"].astype(np.float64)
    for step in range(1, 8):
        optimizer.step(update(step))
        decay = min(0.3, step / (step + 9))
        expected = decay * expected + (1 - decay) * optimizer.model()["w"]
    np.testing.assert_allclose(optimizer.published()["w"], expected, rtol=1e-5)
    assert not np.allclose(optimizer.published()["w"], optimizer.model()["w"])
    assert optimizer.published()["count"] == optimizer.model()["count"]


def test_without_averaging_the_last_model_is_published():
    optimizer = server()
    optimizer.step(update())
    model, published = optimizer.model(), optimizer.published()
    assert all(np.array_equal(published[name], model[name]) for name in START)


@pytest.mark.parametrize("settings", [PLAIN, MOMENTUM, ADAM, replace(ADAM, averaging=0.9)])
@pytest.mark.parametrize("steps", [0, 3])
def test_a_restored_optimiser_goes_on_byte_for_byte(settings, steps):
    first = server(settings)
    for round_number in range(steps):
        first.step(update(round_number))
    second = server(settings)
    second.step(update(77))  # whatever it holds is replaced
    second.restore(first.state())
    for optimizer in (first, second):
        for round_number in range(3):
            optimizer.step(update(10 + round_number))
    state, again = first.state(), second.state()
    assert state.keys() == again.keys()
    assert all(state[name].tobytes() == again[name].tobytes() for name in state)


def test_the_state_is_a_copy():
    optimizer = server(ADAM)
    optimizer.step(update())
    state = optimizer.state()
    before = {name: value.copy() for name, value in state.items()}
    optimizer.step(update(1))
    assert all(np.array_equal(state[name], before[name]) for name in state)


def test_a_half_precision_weight_takes_a_step():
    tensors = {"w": np.array([1.0, 2.0], np.float16)}
    optimizer = ServerOptimizer(tensors, ModelSchema.of(tensors, ["w"]), PLAIN)
    optimizer.step({"w": np.array([0.5, -0.5])})
    assert optimizer.model()["w"].dtype == np.float16
    assert optimizer.model()["w"].tolist() == [1.5, 1.5]
