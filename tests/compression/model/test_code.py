"""Coded weights: within their error, bits or loss, as the file holds them, finer where outputs are sensitive."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from slimfleet.compression import BadInput
from slimfleet.compression.model.constraints import Frozen, Grid, Shared
from slimfleet.compression.model.divergence import divergence
from slimfleet.compression.model.file import load_model, packed_bytes, save_model
from slimfleet.compression.model.slim_model import weights_of
from slimfleet.compression.model.techniques.code import Code, code, shortened
from slimfleet.compression.model.techniques.quantise import Quantise, quantise
from slimfleet.compression.model.techniques.share import Share, share
from slimfleet.compression.model.techniques.sparsify import Sparsify, sparsify
from slimfleet.compression.model.threshold import points_lost
from slimfleet.compression.model.tuning import Tuning, tune
from slimfleet.compression.packing import Entry, OnGrid, trellis_levels, write_slim


def nmse(slim, reference):
    ours, theirs = weights_of(slim.model), weights_of(reference.model)
    coded = [name for name in theirs if isinstance(slim.constraints.get(name), Frozen)]
    error = sum(float((ours[name] - theirs[name]).detach().square().sum()) for name in coded)
    return error / sum(float(theirs[name].detach().square().sum()) for name in coded)


@pytest.mark.parametrize("sensitive", [True, False])
def test_matrices_err_by_no_more_than_they_may_and_hardly_less(central, trained, sensitive):
    coded, report = code(trained, central, Code(nmse=0.01, sensitive=sensitive))
    assert 0.008 < nmse(coded, trained) <= 0.01
    assert [change.layer for change in report.changed] == list(coded.constraints)


def test_weights_keep_to_their_bits(central, trained):
    coded, report = code(trained, central, Code(bits=2.0))
    weights = sum(weights_of(trained.model)[change.layer].numel() for change in report.changed)
    finer, _ = code(trained, central, Code(bits=4.0))
    rest = packed_bytes(coded, central.task) - 2 * weights / 8
    assert packed_bytes(finer, central.task) - packed_bytes(coded, central.task) == pytest.approx(
        2 * weights / 8, rel=0.1
    )
    assert rest < 1200  # vectors, the index and the checksums


def test_no_more_points_are_lost_on_validation_data_than_may_be(central, trained):
    coded, _ = code(trained, central, Code(loss=0.7))
    assert points_lost(central.validated(coded.model), central.validated(trained.model)) <= 0.7
    assert packed_bytes(coded, central.task) < packed_bytes(trained, central.task) / 6


def test_steps_by_sensitivity_keep_the_outputs_better_at_as_many_bits(central, trained):
    x, targets = central.validation.arguments, central.validation.targets
    apart = []
    for sensitive in (True, False):
        coded, _ = code(trained, central, Code(bits=1.5, sensitive=sensitive))
        with torch.no_grad():
            apart.append(float(divergence(coded.model(*x), trained.model(*x), targets)))
    assert apart[0] < 0.8 * apart[1]


def test_a_file_holds_what_was_coded_bit_for_bit(central, trained, tmp_path):
    sparse, _ = sparsify(trained, central, Sparsify(share=0.7, tuning=Tuning(epochs=0)))
    coded, _ = code(sparse, central, Code(nmse=0.02))
    save_model(coded, tmp_path / "model.slim", central.task)
    loaded = load_model(tmp_path / "model.slim", central.task).state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in coded.model.state_dict().items())


def test_training_after_it_moves_only_what_is_not_coded(central, trained):
    coded, _ = code(trained, central, Code(nmse=0.2))
    tuned, _ = tune(coded, central, Tuning(epochs=1, learning_rate=0.01))
    before, after = coded.model.state_dict(), tuned.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert not moved & coded.constraints.keys()


def test_grids_and_codebooks_keep_their_levels_with_shorter_steps_and_values(central, trained):
    quantised, _ = quantise(trained, central, Quantise(weights=4))
    short = shortened(quantised, 3)
    for name, grid in quantised.constraints.items():
        now = short.constraints[name]
        assert isinstance(grid, Grid)
        assert isinstance(now, Grid)
        weights = weights_of(short.model)[name].detach(), weights_of(quantised.model)[name].detach()
        assert torch.equal(now.levels(weights[0]), grid.levels(weights[1]))
        assert (now.step.view(torch.int32) & (1 << 20) - 1).count_nonzero() == 0
    assert packed_bytes(short, central.task) < packed_bytes(quantised, central.task)
    shared, _ = share(trained, central, Share(values=8, tuning=Tuning(epochs=0)))
    short = shortened(shared, 3)
    for name, each in shared.constraints.items():
        assert isinstance(each, Shared)
        assert torch.equal(each.obeyed(weights_of(short.model)[name]), weights_of(short.model)[name])


def test_vectors_keep_so_many_bits(central, trained):
    coded, _ = code(trained, central, Code(vectors=4))
    for name, tensor in coded.model.state_dict().items():
        if tensor.is_floating_point() and name not in coded.constraints:
            assert (tensor.view(torch.int32) & (1 << 19) - 1).count_nonzero() == 0, name
            was = trained.model.state_dict()[name]
            assert torch.allclose(tensor, was, rtol=2**-5, atol=0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Code(bits=0.01), r"^code cannot hold a weight in 0\.01 bits: allow more$"),
        (
            Code(nmse=1e-12),
            r"^code errs by more than 1e-12 at the finest steps: allow more, or leave it out$",
        ),
    ],
)
def test_what_cannot_be_reached_is_refused_in_one_line(central, trained, settings, message):
    with pytest.raises(BadInput, match=message):
        code(trained, central, settings)


def test_levels_of_a_trellis_take_fewer_bytes_as_such_and_others_are_stored_all_the_same(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((64, 300)).astype(np.float32)
    made = trellis_levels([values], [0.3], 0.01)
    size = {}
    for name, levels, trellis in (
        ("trellis", made.levels[0], True),
        ("plain", made.levels[0], False),
        ("none", rng.integers(-4, 5, values.shape, np.int32), True),
    ):
        entry = Entry("w", levels.astype(np.float32) * made.steps[0], OnGrid(made.steps[0], trellis=trellis))
        size[name] = write_slim(tmp_path / name, [entry]).bytes
    assert size["trellis"] < 0.93 * size["plain"]
    assert abs(size["trellis"] - made.bytes) < 200


def test_a_tensor_of_several_sections_follows_the_trellis_in_each(tmp_path, monkeypatch):
    for module in ("writer", "trellis"):
        monkeypatch.setattr(f"slimfleet.compression.packing.{module}.SECTION_LEVELS", 1 << 12)
    values = np.random.default_rng(0).standard_normal((64, 300)).astype(np.float32)
    made = trellis_levels([values, values[:3]], [0.3, 0.2], 0.01)
    entry = Entry("w", made.levels[0].astype(np.float32) * made.steps[0], OnGrid(made.steps[0], trellis=True))
    both = write_slim(tmp_path / "one", [entry]).bytes
    plain = write_slim(tmp_path / "two", [replace(entry, coding=OnGrid(made.steps[0]))]).bytes
    assert both < 0.95 * plain
