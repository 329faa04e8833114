"""What the codec benchmark counts with: interpolation, and the peers written here, on plain numbers."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch):
    """Import one of the benchmark's files, as `python tests/benchmarks/codec` does."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "codec"))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def normal(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "w": rng.normal(0, 0.01, (64, 100)).astype(np.float32),
        "b": rng.normal(0, 0.01, 37).astype(np.float32),
        "dead": np.zeros(5, np.float32),
    }


def test_a_size_is_interpolated_log_log_and_beaten_points_do_not_count(module):
    curve = module("curve")
    points = [curve.Point(0.01, 1600, 0), curve.Point(0.16, 100, 1), curve.Point(0.04, 5000, 2)]
    assert math.isclose(curve.bytes_at(points, 0.04), 400)
    assert curve.bytes_at(points, 0.5) is None
    assert curve.nearest(points, 0.1).setting == 1


def test_the_hadamard_transform_is_its_own_inverse_and_keeps_lengths(module):
    eden = module("peers.eden")
    values = np.arange(64, dtype=np.float32)
    turned = eden.hadamard(values)
    assert np.allclose(eden.hadamard(turned), values, atol=1e-4)
    assert math.isclose(np.linalg.norm(turned), np.linalg.norm(values), rel_tol=1e-6)
    assert [b.stop - b.start for b in eden.blocks(100)] == [64, 32, 4]


def test_eden_reaches_the_error_of_its_paper(module):
    """One bit: pi / 2 - 1 unbiased, 1 - 2 / pi with the best scale."""
    eden, peer = module("peers.eden"), module("peers.peer")
    unbiased, best = (peer.measure(p, normal(), 1) for p in eden.PEERS)
    assert math.isclose(unbiased.nmse, math.pi / 2 - 1, rel_tol=0.05)
    assert math.isclose(best.nmse, 1 - 2 / math.pi, rel_tol=0.03)
    assert unbiased.bytes < 6442 / 8 + 1 + 4 * 13


def test_qsgd_reads_back_what_it_wrote_and_is_unbiased(module):
    qsgd, peer = module("peers.qsgd"), module("peers.peer")
    arrays = normal()
    (codec,) = qsgd.PEERS
    decoded = codec.decode(codec.encode(arrays, 64), peer.shapes(arrays))
    step = np.linalg.norm(arrays["w"]) / 64
    assert np.abs(decoded["w"] - arrays["w"]).max() <= step * 1.001
    assert abs(float((decoded["w"] - arrays["w"]).mean())) < 3 * step / 2 / math.sqrt(6400)
    assert not decoded["dead"].any()


def test_a_number_is_tuned_to_just_below_the_target(module):
    peer = module("peers.peer")

    def encode(arrays, step):
        return np.rint(peer.flat(arrays) / step).astype(np.int16).tobytes() + np.float64(step).tobytes()

    def decode(payload, known):
        step = np.frombuffer(payload[-8:])[0]
        return peer.unflat((np.frombuffer(payload[:-8], np.int16) * step).astype(np.float32), known)

    found = peer.at_targets(peer.Peer("grid", encode, decode), normal(), (0.3, 0.03))
    assert all(0.997 * target <= at.point.nmse <= target for target, at in found.items())


def test_entropy_counts_every_tensor_on_its_own(module):
    experiment = module("experiment")
    decoded = {"a": np.array([0, 0, 1, 1], np.float32), "b": np.full(8, 7, np.float32)}
    assert math.isclose(experiment.order0_bytes(decoded), 4 / 8)
