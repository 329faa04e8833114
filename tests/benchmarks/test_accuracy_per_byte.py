"""What the comparison rests on: payloads that say what the mean is told, pairs that are pairs, runs that last."""

import sys
from pathlib import Path

import numpy as np
import pytest

from slimfleet.compression.codec import decode
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

sys.path.insert(0, str(Path(__file__).parent / "accuracy_per_byte"))

import cache
import golomb
from fedavg import Round
from methods import METHODS
from outcomes import bytes_to, final_accuracy
from qsgd import ternary
from stc import sparse_ternary
from uplink import Feedback, Uplink

SHAPES = {"w": (300, 200), "b": (40,)}


def update(seed: int) -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_t(3, shape).astype(np.float32) for name, shape in SHAPES.items()}


SCHEMA = ModelSchema.of(update(0), SHAPES)


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("STC")])
def test_the_mean_is_told_what_the_payload_holds(name: str) -> None:
    encoded = METHODS[name].compressor(update(1), SCHEMA, np.random.default_rng(0))
    decoded = decode(encoded.payload, SCHEMA).tensors
    assert all(np.array_equal(decoded[n], encoded.decoded[n]) for n in SHAPES)


def test_stc_keeps_the_largest_at_their_mean_magnitude_in_the_shorter_code() -> None:
    sent = update(2)
    encoded = sparse_ternary(0.02)(sent, SCHEMA, np.random.default_rng(0))
    flat = np.concatenate([a.ravel() for a in sent.values()])
    got = np.concatenate([encoded.decoded[n].ravel() for n in SHAPES])
    kept = np.flatnonzero(got)
    assert kept.size == int(0.02 * flat.size)
    assert np.abs(flat[kept]).min() >= np.abs(np.delete(flat, kept)).max()
    np.testing.assert_allclose(got[kept], np.sign(flat[kept]) * np.abs(flat[kept]).mean(), rtol=1e-6)
    written = golomb.write(np.sign(got).astype(np.int32), 0.02)
    assert len(encoded.payload) <= 4 + len(written)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.4])
def test_golomb_reads_back(share: float) -> None:
    rng = np.random.default_rng(3)
    levels = (rng.choice([-1, 1], 50_000) * (rng.random(50_000) < share)).astype(np.int32)
    data = golomb.write(levels, share)
    assert np.array_equal(golomb.read(data, int(np.count_nonzero(levels)), levels.size, share), levels)
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share) + share
    assert len(data) * 8 < 1.1 * entropy * levels.size


def test_qsgd_is_unbiased() -> None:
    sent, rng = update(4), np.random.default_rng(5)
    mean = np.mean([ternary(sent, SCHEMA, rng).decoded["b"] for _ in range(500)], axis=0)
    largest = np.abs(sent["b"]).max()
    assert np.abs(mean - sent["b"]).max() < 5 * largest / np.sqrt(500)


def test_feedback_waits_for_its_client_and_fades() -> None:
    uplink = Uplink(SCHEMA, sparse_ternary(0.02), Feedback(decay=0.5), seed=0)
    first, second = update(6), update(7)
    decoded = uplink.send(3, 1, first).decoded
    left = {n: first[n] - decoded[n] for n in SHAPES}
    zero = {n: np.zeros_like(a) for n, a in second.items()}
    assert not any(a.any() for a in uplink.send(4, 2, zero).decoded.values())
    expected = sparse_ternary(0.02)(
        {n: second[n] + np.float32(0.25) * left[n] for n in SHAPES}, SCHEMA, np.random.default_rng(0)
    )
    assert uplink.send(3, 4, second).payload == expected.payload


def test_a_sweep_finds_its_runs_again_and_passes_over_a_line_cut_short(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    run = cache.Run("float32", 0, "abc", 1.5, [Round(0.5, 100, 0.0, 0.0)] * 6)
    cache.append(file, run)
    with file.open("a") as broken:
        broken.write('{"method": "flo')
    other = cache.Run("float32", 1, "abc", 1.5, [Round(0.25 * (i > 2), 100, 0.0, 0.0) for i in range(8)])
    cache.append(file, other)
    assert list(cache.load(file).values()) == [run, other]
    assert final_accuracy(other) == pytest.approx(0.25)
    assert bytes_to(other, 0.2) == 700
    assert bytes_to(other, 0.3) is None
