"""Channels: how many go, which, and that the model is really smaller."""

import json

import pytest
import torch
from torch import nn

from slimfleet.compression import BadInput
from slimfleet.compression.model.evaluation.measuring import flops_of
from slimfleet.compression.model.saving.architecture_changes import changed, changes_between
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.techniques.prune import Prune, prune
from slimfleet.compression.model.techniques.sparsify import Sparsify, sparsify
from slimfleet.compression.model.training.tuning import Tuning

NO_TUNING = Tuning(epochs=0)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_share_of_flops_is_reached_and_hardly_passed(central, trained, scope):
    small, report = prune(trained, central, Prune(share=0.6, scope=scope, tuning=Tuning(epochs=1)))
    left = flops_of(small.model, central.example_inputs) / flops_of(trained.model, central.example_inputs)
    assert 0.25 < left <= 0.4
    assert [change.layer for change in report.changed] == ["conv1", "conv2"]
    assert [each.layer for each in report.whole] == ["fc"]
    assert central.validated(small.model).accuracy > 0.9


@pytest.mark.parametrize("of", ["parameters", "channels"])
def test_shares_of_other_costs(central, trained, of):
    small, report = prune(trained, central, Prune(share=0.5, of=of, pace="one-shot", tuning=NO_TUNING))
    if of == "parameters":
        assert 0.4 * parameters(trained.model) < parameters(small.model) <= 0.5 * parameters(trained.model)
    else:
        before, after = zip(
            *(map(int, c.change.removesuffix(" channels").split(" -> ")) for c in report.changed), strict=True
        )
        assert sum(after) == sum(before) // 2


def test_what_is_worth_more_stays_and_beats_chance(central, trained):
    settings = {"share": 0.5, "pace": "one-shot", "scope": "layer", "tuning": NO_TUNING}
    losses = {
        kind: central.validated(prune(trained, central, Prune(importance=kind, **settings))[0].model).loss
        for kind in ("magnitude", "taylor", "random")
    }
    assert losses["taylor"] < losses["random"]
    assert losses["magnitude"] < losses["random"]


def test_every_group_keeps_the_least_and_a_share_beyond_reach_is_refused(central, trained):
    _small, report = prune(
        trained, central, Prune(share=0.3, least=0.75, importance="random", tuning=NO_TUNING)
    )
    for change in report.changed:
        before, after = map(int, change.change.removesuffix(" channels").split(" -> "))
        assert after >= round(0.75 * before)
    with pytest.raises(BadInput, match=r"^prune cannot reach [\d,]+ flops: [\d,]+ are left .* \(0.75\)$"):
        prune(trained, central, Prune(share=0.9, least=0.75, tuning=NO_TUNING))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = nn.TransformerEncoderLayer(12, 4, 24, batch_first=True)
        self.rnn, self.out = nn.GRU(12, 10, batch_first=True), nn.Linear(10, 3)

    def forward(self, x):
        return self.out(self.rnn(self.block(x))[0][:, -1])


@pytest.mark.parametrize("pace", ["iterative", "gradual"])
def test_heads_neurons_and_recurrent_units_go(toy, pace):
    torch.manual_seed(0)
    central = toy(torch.randn(40, 5, 12), targets=torch.randint(0, 3, (40,)))
    model = Attending()
    small, report = prune(
        SlimModel(model),
        central,
        Prune(share=0.6, of="parameters", scope="layer", pace=pace, tuning=Tuning(epochs=1)),
    )
    removed = {change.layer: change.change for change in report.changed}
    assert len(removed) == 3
    assert all(int(c.split()[0]) > int(c.split()[2]) for c in removed.values())
    assert small.model.rnn.hidden_size < 10
    assert small.model.block.self_attn.num_heads < 4
    assert parameters(small.model) < 0.45 * parameters(model)
    assert small.model(torch.randn(2, 5, 12)).shape == (2, 3)
    again, _ = prune(small, central, Prune(share=0.2, of="parameters", tuning=NO_TUNING))
    assert parameters(again.model) < 0.85 * parameters(small.model)
    told = changes_between(model, again.model)
    assert parameters(changed(model, json.loads(json.dumps(told)), again.model.state_dict())) == parameters(
        again.model
    )


def test_as_much_goes_as_a_stated_loss_allows(central, trained):
    small, report = prune(trained, central, Prune(loss=3.0, pace="one-shot", tuning=NO_TUNING))
    before, after = central.validated(trained.model).accuracy, central.validated(small.model).accuracy
    assert 100 * (before - after) <= 3.0
    assert parameters(small.model) < 0.95 * parameters(trained.model)
    (curve,) = report.plots["one-shot pruning, share of channels"].curves
    assert any(y > 3.0 for y in curve.y)


def test_sensitivity_of_each_group_is_in_the_report(central, trained):
    _, report = prune(trained, central, Prune(sensitivity=True, pace="one-shot", tuning=NO_TUNING))
    curves = report.plots["channels of one group: validation loss"].curves
    assert [curve.name for curve in curves] == ["conv1", "conv2"]
    assert all(curve.y[0] < curve.y[-1] for curve in curves)


def test_weights_that_obey_something_cannot_lose_channels(central, trained):
    sparse, _ = sparsify(trained, central, Sparsify(tuning=NO_TUNING))
    with pytest.raises(
        BadInput, match=r"^prune changes the layers, but the weights of 'conv1.weight' are .*$"
    ):
        prune(sparse, central, Prune())


def test_a_model_without_channels_to_remove_says_why(toy):
    central = toy(torch.randn(20, 4), targets=torch.randint(0, 3, (20,)))
    with pytest.raises(BadInput, match=r"^prune finds no channels to remove: .*outputs of the model$"):
        prune(SlimModel(nn.Sequential(nn.Linear(4, 3))), central, Prune())
