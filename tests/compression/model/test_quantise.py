"""Rounding: how good, where, on what grid, and what is left as it is."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from slimfleet.compression import BadInput
from slimfleet.compression.model.constraints import Grid, Mask, Shared
from slimfleet.compression.model.layers.activation_grid import ActivationGrid
from slimfleet.compression.model.rounding.allocation import allocated
from slimfleet.compression.model.rounding.error_aware import round_error_aware
from slimfleet.compression.model.rounding.grids import grid_of
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.techniques.quantise import Quantise, quantise
from slimfleet.compression.model.techniques.share import Share, share
from slimfleet.compression.model.techniques.sparsify import Sparsify, sparsify
from slimfleet.compression.model.training.tuning import Tuning

NO_TUNING = Tuning(epochs=0)


def outputs(model, *x):
    with torch.no_grad():
        return model.eval()(*x)


@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("granularity", ["channel", "tensor"])
def test_eight_bits_of_weights_and_activations_lose_next_to_nothing(central, trained, granularity, scheme):
    settings = Quantise(activations=8, granularity=granularity, scheme=scheme)
    rounded, report = quantise(trained, central, settings)
    before, after = central.tested(trained.model), central.tested(rounded.model)
    assert after.accuracy >= before.accuracy - 0.004
    assert abs(after.loss - before.loss) < 0.01
    assert {change.layer for change in report.changed} == weights_of(trained.model).keys()
    for name, weight in weights_of(rounded.model).items():
        rows = weight.detach().flatten(1) if granularity == "channel" else weight.detach().reshape(1, -1)
        assert max(len(row.unique()) for row in rows) <= 256
        assert rounded.constraints[name].step.dim() == (weight.dim() if granularity == "channel" else 0)


def test_errors_shrink_with_bits(trained):
    for weight in weights_of(trained.model).values():
        w = weight.detach()
        errors = [
            float((grid_of(w, b, "channel", "symmetric").obeyed(w) - w).square().sum())
            for b in (2, 3, 4, 6, 8, 16)
        ]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1e-6 * float(w.square().sum())


def test_channels_of_different_scale_keep_their_own_steps():
    weight = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1], [1e-3], [10], [1]]
    )

    def error(granularity):
        rounded = grid_of(weight, 4, granularity, "symmetric").obeyed(weight)
        return ((rounded - weight).square().sum(1) / weight.square().sum(1)).max()

    assert error("channel") < 0.02 < error("tensor")


def test_an_affine_grid_uses_all_its_values_where_weights_have_one_sign():
    weight = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    symmetric, affine = (grid_of(weight, 4, "tensor", s).obeyed(weight) for s in ("symmetric", "affine"))
    assert len(affine.unique()) == 2 * len(symmetric.unique())
    assert (affine - weight).norm() < 0.6 * (symmetric - weight).norm()


@pytest.mark.parametrize("bits", [2, 3])
def test_error_aware_rounding_keeps_the_outputs_better_than_the_nearest(central, trained, bits):
    grids = {n: grid_of(w, bits, "channel", "symmetric") for n, w in weights_of(trained.model).items()}
    aware, nearest = round_error_aware(trained, central, grids, 256), trained.constrained(grids)
    x = central.validation.arguments
    whole = outputs(trained.model, *x)
    errors = [(outputs(each.model, *x) - whole).square().mean() for each in (aware, nearest)]
    assert errors[0] < 0.7 * errors[1]
    for name, weight in weights_of(aware.model).items():
        assert torch.equal(grids[name].obeyed(weight.detach()), weight)


def test_mixed_bits_keep_to_the_budget_and_the_outputs(central, trained):
    settings = Quantise(weights=4, mixed=True, rounding="nearest", granularity="tensor")
    mixed, report = quantise(trained, central, settings)
    sizes = {name: weight.numel() for name, weight in weights_of(trained.model).items()}
    spent = {change.layer: int(change.change.split()[0]) for change in report.changed}
    assert sum(sizes[name] * bits for name, bits in spent.items()) <= 4 * sum(sizes.values())
    assert len(set(spent.values())) > 1
    x = central.validation.arguments
    whole = outputs(trained.model, *x).softmax(1)
    uniform, _ = quantise(trained, central, replace(settings, mixed=False))
    ours, theirs = ((outputs(m.model, *x).softmax(1) - whole).square().mean() for m in (mixed, uniform))
    assert ours < theirs
    curves = report.plots["bits of one tensor: validation loss"].curves
    assert [(curve.name, curve.x) for curve in curves] == [(name, (2, 3, 4, 5, 6, 7, 8)) for name in sizes]


def test_an_allocation_is_nearly_the_best_of_all():
    """Against trying everything, on losses that fall as rounding errors do, and on one that does not."""
    sizes = {"a": 100, "b": 40, "c": 10}
    scale = {"a": 1.0, "b": 9.0, "c": 70.0}
    losses = {
        n: {b: s * 4.0**-b + (0.01 if (n, b) == ("b", 5) else 0) for b in range(2, 9)}
        for n, s in scale.items()
    }
    for budget in range(300, 1200, 37):
        found = allocated(sizes, losses, budget)
        everything = (dict(zip(sizes, bits, strict=True)) for bits in product(range(2, 9), repeat=3))
        fit = [b for b in everything if sum(sizes[n] * b[n] for n in b) <= budget]
        best = min(sum(losses[n][b[n]] for n in b) for b in fit)
        assert found in fit
        assert sum(losses[n][found[n]] for n in found) <= 2.5 * best
    assert allocated(sizes, losses, 0) == dict.fromkeys(sizes, 2)
    assert allocated(sizes, losses, 10**6) == dict.fromkeys(sizes, 8)


def test_training_aware_of_rounding_wins_back_what_two_bits_lose(central, trained):
    rounding = Quantise(weights=2, rounding="nearest", granularity="tensor")
    after, _ = quantise(trained, central, rounding)
    aware = replace(rounding, tuning=Tuning(epochs=3, optimizer="adamw", learning_rate=0.002))
    tuned, report = quantise(trained, central, aware)
    assert central.tested(tuned.model).loss < 0.7 * central.tested(after.model).loss
    assert report.steps > 0
    for name, weight in weights_of(tuned.model).items():
        grid = tuned.constraints[name]
        assert torch.equal(grid.obeyed(weight.detach()), weight)
        assert grid.bits == 2


def test_training_that_makes_it_worse_leaves_the_model_as_rounding_made_it(central, trained):
    harm = Quantise(weights=4, tuning=Tuning(epochs=0.2, learning_rate=5.0))
    tuned, _ = quantise(trained, central, harm)
    assert (
        central.validated(tuned.model).loss
        <= central.validated(quantise(trained, central, Quantise(weights=4))[0].model).loss
    )


def test_masked_weights_stay_zero_shared_ones_as_they_are_and_a_grid_is_not_made_coarser_twice(
    central, trained
):
    sparse, _ = sparsify(trained, central, Sparsify(share=0.6, tuning=NO_TUNING))
    rounded, _ = quantise(sparse, central, Quantise(weights=4))
    for name, weight in weights_of(rounded.model).items():
        assert (weight[~sparse.constraints[name].free] == 0).all()
        assert isinstance(rounded.constraints[name], Grid)
    again, report = quantise(rounded, central, Quantise(weights=4))
    assert {w.change for w in report.whole} == {"it is on a grid of 4 bits already"}
    assert all(
        torch.equal(a, b) for a, b in zip(again.model.parameters(), rounded.model.parameters(), strict=True)
    )
    coded, _ = share(trained, central, Share(tuning=NO_TUNING))
    with pytest.raises(
        BadInput, match=r"^quantise finds no weights that are not shared already: leave it out$"
    ):
        quantise(coded, central, Quantise())
    activations, report = quantise(coded, central, Quantise(activations=8))
    assert all(isinstance(each, Shared) for each in activations.constraints.values())
    assert sum(isinstance(m, ActivationGrid) for m in activations.model.modules()) == 3


class Reader(nn.Module):
    """Integers in, attention and a recurrent layer inside, one layer called by keyword."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.rnn = nn.GRU(8, 6, batch_first=True)
        self.keyword, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, words):
        hidden = self.rnn(self.block(self.table(words)))[0]
        return self.out(self.keyword(input=hidden[:, -1]))


def test_what_is_not_rounded_is_named(toy):
    torch.manual_seed(0)
    central = toy(torch.randint(0, 11, (40, 5)), targets=torch.randint(0, 3, (40,)))
    model = Reader().eval()
    rounded, report = quantise(SlimModel(model), central, Quantise(activations=8))
    whole = {each.layer: each.change for each in report.whole}
    assert whole.keys() == {"rnn", "keyword", "block.self_attn", "block.self_attn.out_proj"}
    assert "hidden states are not rounded" in whole["rnn"]
    grids = {
        path.removesuffix(".input_grid")
        for path, m in rounded.model.named_modules()
        if isinstance(m, ActivationGrid)
    }
    assert grids == {"block.self_attn", "block.linear1", "block.linear2", "rnn", "out"}
    x = central.validation.arguments
    assert torch.allclose(outputs(rounded.model, *x), outputs(model, *x), atol=0.1)
    again, _ = quantise(rounded, central, Quantise(weights=4, activations=4))
    assert all(m.bits == 4 for m in again.model.modules() if isinstance(m, ActivationGrid))
    assert all(len(m._forward_pre_hooks) <= 1 for m in again.model.modules())


def test_inputs_of_attention_are_rounded_as_one_and_padding_is_still_ignored():
    attention = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x, y = torch.randn(2, 5, 8), torch.randn(2, 7, 8)
    hidden = torch.zeros(2, 7, dtype=torch.bool)
    hidden[:, 4:] = True
    grid = ActivationGrid(3)
    grid.step.fill_(0.5)
    grid.zero.fill_(4)
    wanted = outputs(attention, grid(x), grid(y), grid(y), hidden)[0]
    grid.attach(attention, "input_grid")
    torch.testing.assert_close(outputs(attention, x, y, y, hidden)[0], wanted)


def test_gradients_of_rounded_activations_end_at_the_range_of_the_grid_not_of_the_batch():
    grid = ActivationGrid(2)
    grid.step.fill_(1.0)
    grid.zero.fill_(1.0)  # -1, 0, 1, 2
    x = torch.tensor([-1.2, -0.4, 0.3, 1.9, 2.3, 9.0, -9.0], requires_grad=True)
    grid(x).sum().backward()
    assert x.grad.tolist() == [1, 1, 1, 1, 1, 0, 0]
    inner = torch.tensor([0.2, 0.4], requires_grad=True)
    grid(inner).sum().backward()
    assert inner.grad.tolist() == [1, 1]


def test_activations_round_to_few_values_and_integers_pass(central, trained):
    rounded, _ = quantise(trained, central, Quantise(activations=2))
    seen = []
    rounded.model.fc.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    outputs(rounded.model, *central.validation.arguments)
    assert 1 < len(seen[0].unique()) <= 4
    words = torch.arange(5)
    assert ActivationGrid(2)(words) is words


def test_masks_are_kept_by_the_grid_through_training(central, trained):
    sparse, _ = sparsify(trained, central, Sparsify(share=0.7, tuning=NO_TUNING))
    free = {name: c.free for name, c in sparse.constraints.items() if isinstance(c, Mask)}
    tuned, _ = quantise(
        sparse, central, Quantise(weights=3, tuning=Tuning(epochs=1, optimizer="adamw", learning_rate=0.002))
    )
    for name, weight in weights_of(tuned.model).items():
        assert (weight[~free[name]] == 0).all()


def test_grids_are_affine_below_eight_bits_unless_said_otherwise():
    weight = torch.rand(3, 50, generator=torch.Generator().manual_seed(0)) - 0.2
    for bits, scheme in ((2, "affine"), (7, "affine"), (8, "symmetric"), (16, "symmetric")):
        usual, named = (grid_of(weight, bits, "channel", s) for s in ("auto", scheme))
        assert torch.equal(usual.low, named.low)
        assert torch.equal(usual.step, named.step)
    assert Quantise().scheme == "auto"
