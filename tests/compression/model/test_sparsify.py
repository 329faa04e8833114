"""Zeros: how many, where, by which importance, and for good."""

import itertools

import pytest
import torch
from torch import nn

from slimfleet.compression import BadInput
from slimfleet.compression.model.evaluation.importance import Movement, importance_of
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.techniques.quantise import Quantise, quantise
from slimfleet.compression.model.techniques.sparsify import Sparsify, highest, of_every, sparsify
from slimfleet.compression.model.training.schedule import shares
from slimfleet.compression.model.training.tuning import Tuner, Tuning, tune

ONE_EPOCH, NO_TUNING = Tuning(epochs=1), Tuning(epochs=0)


def zeros(slim):
    weights = weights_of(slim.model)
    return sum(int((w == 0).sum()) for w in weights.values()) / sum(w.numel() for w in weights.values())


@pytest.mark.parametrize("pace", ["one-shot", "iterative", "gradual"])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_share_is_exact_for_every_pace_and_scope(central, trained, pace, scope):
    sparse, _ = sparsify(trained, central, Sparsify(share=0.7, pace=pace, scope=scope, tuning=ONE_EPOCH))
    assert zeros(sparse) == pytest.approx(0.7, abs=1e-3)
    each = [float((w == 0).float().mean()) for w in weights_of(sparse.model).values()]
    assert (max(each) - min(each) < 0.01) == (scope == "layer")


def test_paces_end_at_the_goal_and_rise():
    assert list(shares("one-shot", 0.8)) == [0.8]
    iterative, gradual = list(shares("iterative", 0.8)), list(shares("gradual", 0.8))
    left = [1, *(1 - share for share in iterative)]
    ratios = [after / before for before, after in itertools.pairwise(left)]
    assert ratios == pytest.approx([0.2**0.2] * 5)
    rises = [b - a for a, b in zip([0.0, *gradual], gradual, strict=False)]
    assert gradual[-1] == 0.8
    assert all(a > b > 0 for a, b in itertools.pairwise(rises))


@pytest.mark.parametrize("importance", ["magnitude", "taylor", "movement"])
def test_every_importance_beats_chance(central, trained, importance):
    pace = "gradual" if importance == "movement" else "iterative"
    settings = {"share": 0.8, "pace": pace, "tuning": Tuning(epochs=2)}
    random, _ = sparsify(trained, central, Sparsify(importance="random", **settings))
    ours, _ = sparsify(trained, central, Sparsify(importance=importance, **settings))
    assert central.validated(ours.model).loss < 0.8 * central.validated(random.model).loss


def test_movement_is_the_sum_of_what_training_moves_over_hidden_weights_too(central, trained):
    watch, settings = Movement(), Tuning(epochs=1, momentum=0.0)
    tuner = Tuner(trained, central, settings, watch=watch)
    wanted = {name: torch.zeros_like(w) for name, w in weights_of(tuner.model).items()}
    for _ in range(3):
        before = {name: w.detach().clone() for name, w in weights_of(tuner.model).items()}
        tuner.run(1)
        rate = tuner._optimizer.param_groups[0]["lr"]
        for name, now in weights_of(tuner.model).items():
            wanted[name] += before[name] * (now.detach() - before[name]) / rate
    for name, score in watch.scores(tuner.model).items():
        assert torch.allclose(score, wanted[name], atol=1e-4)


def test_taylor_scores_estimate_what_a_weight_is_worth(central, trained):
    scores = importance_of("taylor", trained, central)
    by_taylor, by_luck = (SlimModel(trained.copy().model) for _ in range(2))
    for slim, each in ((by_taylor, scores), (by_luck, importance_of("random", trained, central))):
        for name, weight in weights_of(slim.model).items():
            weight.data.mul_(highest(each[name], 0.3))
    assert central.validated(by_taylor.model).loss < central.validated(by_luck.model).loss


@pytest.mark.parametrize(("pattern", "keep", "of"), [("2:4", 2, 4), ("4:8", 4, 8), ("1:4", 1, 4)])
def test_n_of_m_holds_along_the_inputs_of_every_layer(toy, pattern, keep, of):
    torch.manual_seed(0)

    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.rnn, self.out = (
                nn.Conv1d(10, 16, 3),
                nn.LSTM(16, 8, batch_first=True),
                nn.Linear(8, 3),
            )

        def forward(self, x):
            return self.out(self.rnn(self.conv(x).transpose(1, 2))[0][:, -1])

    central = toy(torch.randn(40, 10, 6), targets=torch.randint(0, 3, (40,)))
    sparse, _ = sparsify(SlimModel(Layers()), central, Sparsify(pattern=pattern, tuning=Tuning(epochs=2)))
    for weight in weights_of(sparse.model).values():
        rows = weight.movedim(1, -1)
        for begin in range(0, rows.shape[-1], of):
            group = rows[..., begin : begin + of]
            wanted = min(keep, group.shape[-1])
            assert ((group != 0).sum(-1) == wanted).all()


def test_n_of_m_keeps_the_highest():
    scores = torch.tensor([[5.0, 1.0, 4.0, 3.0, 2.0, 9.0]])
    assert of_every(scores, 2, 4).tolist() == [[True, False, True, False, True, True]]
    assert highest(torch.tensor([2.0, 1.0, 1.0, 3.0]), 0.5).tolist() == [True, False, False, True]


def test_the_share_for_a_stated_loss_is_the_largest_and_is_plotted(central, trained):
    before = central.validated(trained.model).accuracy
    found = {}
    for points in (1.0, 10.0):
        sparse, report = sparsify(trained, central, Sparsify(loss=points, tuning=NO_TUNING))
        assert 100 * (before - central.validated(sparse.model).accuracy) <= points
        found[points] = zeros(sparse)
        (curve,) = report.plots["one-shot sparsity"].curves
        tried = dict(zip(curve.x, curve.y, strict=True))
        assert any(found[points] < x < found[points] + 0.005 and y > points for x, y in tried.items())
    assert 0.3 < found[1.0] < found[10.0] < 1


def test_a_loss_that_allows_nothing_is_refused(toy):
    torch.manual_seed(0)
    x = torch.randn(400, 4)
    model = nn.Linear(4, 200, bias=False)
    central = toy(x, targets=model(x).detach(), of=nn.functional.mse_loss)
    with pytest.raises(
        BadInput, match=r"^sparsify loses more than 0.01 points with 1/256 of the weights at zero: .*$"
    ):
        sparsify(SlimModel(model), central, Sparsify(loss=0.01, importance="random", tuning=NO_TUNING))


def test_sensitivity_of_each_tensor_is_in_the_report(central, trained):
    _, report = sparsify(trained, central, Sparsify(sensitivity=True, tuning=NO_TUNING))
    curves = report.plots["zeros in one tensor: validation accuracy"].curves
    assert [curve.name for curve in curves] == list(weights_of(trained.model))
    for curve in curves:
        assert curve.x == (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
        assert curve.y[0] > curve.y[-1]


def test_zeros_stay_through_whatever_comes_after(central, trained):
    sparse, _ = sparsify(trained, central, Sparsify(share=0.8, tuning=ONE_EPOCH))
    zero = {name: w == 0 for name, w in weights_of(sparse.model).items()}
    tuned, _ = tune(
        sparse, central, Tuning(epochs=1, optimizer="adamw", learning_rate=0.01, weight_decay=0.1)
    )
    rounded, _ = quantise(tuned, central, Quantise(weights=4))
    more, _ = sparsify(sparse, central, Sparsify(share=0.9, tuning=ONE_EPOCH))
    fewer, _ = sparsify(sparse, central, Sparsify(share=0.5, importance="movement", tuning=ONE_EPOCH))
    patterned, _ = sparsify(sparse, central, Sparsify(pattern="2:4", importance="random", tuning=NO_TUNING))
    for later in (tuned, rounded, more, fewer, patterned):
        assert all((w[zero[name]] == 0).all() for name, w in weights_of(later.model).items())
    assert zeros(more) > zeros(sparse)
    with pytest.raises(
        BadInput, match=r"^sparsify finds no weights to zero, put it before .*: obeys a grid already$"
    ):
        sparsify(rounded, central, Sparsify())


def test_layers_with_too_few_inputs_for_a_pattern_are_named(central, trained):
    _, report = sparsify(trained, central, Sparsify(pattern="2:4", tuning=NO_TUNING))
    assert [(w.layer, w.change) for w in report.whole] == [
        ("conv1.weight", "has 1 inputs, of which 2:4 keeps all")
    ]
    assert [change.layer for change in report.changed] == ["conv2.weight", "fc.weight"]
