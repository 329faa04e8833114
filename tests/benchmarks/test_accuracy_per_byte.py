"""What the comparison rests on: payloads that say what the mean is told, pairs that are pairs, runs that last."""

import sys
from pathlib import Path

import numpy as np
import pytest

from slimfleet.client.tasks.fashion_mnist import DEBIAN_FOLDER
from slimfleet.compression.codec import decode
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

sys.path.insert(0, str(Path(__file__).parent / "accuracy_per_byte"))

import cache
import golomb
from fedavg import Round
from methods import METHODS
from model import schema
from outcomes import accuracies, bytes_to, final_accuracy, outcomes, sent_so_far
from page import page
from qsgd import ternary
from settings import Settings
from stc import sparse_ternary
from sweep import sweep
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
    sent, rng = {"b": update(4)["b"]}, np.random.default_rng(5)
    schema = ModelSchema.of(sent, sent)
    mean = np.mean([ternary(sent, schema, rng).decoded["b"] for _ in range(500)], axis=0)
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
    run = cache.Run("float32", 0, "abc", 1.5, "a processor", [Round(0.5, 100, 0.0, 0.0)] * 6)
    cache.append(file, run)
    with file.open("a") as broken:
        broken.write('{"method": "flo')
    other = cache.Run("float32", 1, "abc", 1.5, "a processor", [Round(None, 100, 0.0, 0.0)] * 2)
    cache.append(file, other)
    assert list(cache.load(file).values()) == [run, other]


def test_bytes_are_those_of_all_rounds_up_to_a_measurement() -> None:
    accuracy = [None, 0.0, None, 0.3, None, 0.2]
    run = cache.Run("float32", 0, "abc", 1.5, "a processor", [Round(a, 100, 0.0, 0.0) for a in accuracy])
    assert accuracies(run) == [0.0, 0.3, 0.2]
    assert final_accuracy(run) == 0.2
    assert sent_so_far(run) == [200, 400, 600]
    assert bytes_to(run, 0.1) == 400
    assert bytes_to(run, 0.3) == 400
    assert bytes_to(run, 0.5) is None


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.rate is not None])
def test_a_rate_is_kept_and_used(name: str) -> None:
    method, model = METHODS[name], schema()
    rng = np.random.default_rng(0)
    sent = {t.name: (0.01 * rng.standard_t(2.5, t.shape)).astype(np.float32) for t in model.tensors}
    payload = method.compressor(sent, model, rng).payload
    assert 0.9 * method.rate < 8 * len(payload) / model.elements <= method.rate


def test_the_learning_rate_falls_from_its_first_value_to_its_last_share() -> None:
    settings = Settings(rounds=11, learning_rate=0.5, last_share=0.1)
    rates = [settings.rate(number) for number in range(1, 12)]
    assert rates[0] == pytest.approx(0.5)
    assert rates[5] == pytest.approx(0.275)
    assert rates[-1] == pytest.approx(0.05)
    assert rates == sorted(rates, reverse=True)
    assert [n for n in range(1, 12) if settings.measures(n)] == [5, 10, 11]


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN_FOLDER.exists(), reason="needs dataset-fashion-mnist")
def test_runs_in_processes_are_kept_and_not_done_again(tmp_path: Path) -> None:
    settings, file = Settings(rounds=2, local_steps=1), tmp_path / "runs.jsonl"
    names = ["float32", "ours 0.03 bit"]
    runs = sweep(settings, names, [99], file, jobs=2)
    assert [run.method for run in runs] == names
    assert [r.accuracy is None for r in runs[0].rounds] == [True, False]
    assert [r.nmse > 0.5 for r in runs[1].rounds] == [True, True]
    written = file.read_bytes()
    assert sweep(settings, names, [99], file, jobs=2) == runs
    assert file.read_bytes() == written
    assert "float32" in page(
        outcomes(runs, schema().elements, settings.per_round), runs, settings, schema().elements
    )
