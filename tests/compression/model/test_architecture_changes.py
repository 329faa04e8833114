"""What is told of a changed model rebuilds it, bit for bit, and what does not fit a model is refused."""

import copy
import json

import pytest
import torch
from torch import nn

from slimfleet.compression import BadInput, PayloadError
from slimfleet.compression.model.layers.activation_grid import ActivationGrid
from slimfleet.compression.model.saving.architecture_changes import changed, changes_between
from slimfleet.compression.pruning import index_map, select_channels
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import schema_of


class Mixed(nn.Module):
    """A layer of every sort that shrinks."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.block = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.mix, self.rnn, self.out = nn.Linear(8, 16), nn.GRU(16, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x):
        tokens = self.norm(self.conv(x)).relu().flatten(2).transpose(1, 2)
        return self.out(self.rnn(self.block(self.mix(tokens)))[0][:, -1])


X = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def shrunk(model):
    groups = discover(model, (X[:1],)).groups
    return shrink_model(model, index_map(schema_of(model), groups, select_channels(groups, 0.5, "prefix")))


def rounded_inputs(model):
    grid = ActivationGrid(4)
    grid.step.fill_(0.1)
    grid.attach(model.mix, "input_grid")
    return model


def without_a_norm(model):
    model.norm = nn.Identity()
    model.conv.bias = nn.Parameter(torch.randn(8))
    return model


def thin(model):
    model.mix = nn.Sequential(nn.Linear(8, 2, bias=False), nn.Linear(2, 16))
    return model


def wide(model):
    model.rnn = nn.GRU(16, 6, batch_first=True, bidirectional=True)
    return model


def without_a_bias(model):
    model.out.bias = None
    return model


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model,
        shrunk,
        rounded_inputs,
        lambda model: shrunk(rounded_inputs(model)),
        lambda model: rounded_inputs(shrunk(model)),
        without_a_norm,
        thin,
        wide,
        without_a_bias,
        lambda model: rounded_inputs(shrunk(without_a_norm(wide(model)))),
    ],
)
def test_a_changed_model_is_rebuilt(change):
    original = Mixed().eval()
    before = copy.deepcopy(original.state_dict())
    model = change(copy.deepcopy(original)).eval()
    changes = json.loads(json.dumps(changes_between(original, model)))
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = changed(Mixed().eval(), changes, tensors)
    assert torch.equal(again(X), model(X))
    assert [name for name, _ in again.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert all(
        torch.equal(*pair) for pair in zip(original.state_dict().values(), before.values(), strict=True)
    )
    # It is a model like any other: it trains, and it shrinks again.
    again.train()(X).sum().backward()
    assert changes_between(again.eval(), model) == []


def test_a_whole_model_may_be_of_another_kind():
    model = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 2)).eval()
    changes = changes_between(nn.Linear(4, 2), model)
    assert torch.equal(
        changed(nn.Linear(4, 2), changes, model.state_dict())(X[0, 0, :4, :4]), model(X[0, 0, :4, :4])
    )


def test_tied_tensors_stay_one():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    model = changed(Tied(), [], {name: t.clone() for name, t in Tied().state_dict().items()})
    assert model.a.weight is model.b.weight


def test_ties_are_made_and_undone():
    def stack():
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.GRU(4, 4, 2))

    tied, plain = stack(), stack()
    tied[1].weight = tied[0].weight
    tied[2].weight_ih_l1 = tied[2].weight_ih_l0
    for before, after in ((plain, tied), (tied, plain)):
        changes = json.loads(json.dumps(changes_between(before, after)))
        model = changed(before, changes, {name: t.clone() for name, t in after.state_dict().items()})
        assert [name for name, _ in model.named_parameters()] == [
            name for name, _ in after.named_parameters()
        ]
        assert torch.equal(model(X[0, 0, :4, :4])[0], after(X[0, 0, :4, :4])[0])


def test_a_new_layer_that_no_file_can_describe_is_refused():
    model = Mixed()
    model.mix = nn.Bilinear(8, 8, 16)
    with pytest.raises(BadInput, match=r"'model\.mix' is a new Bilinear"):
        changes_between(Mixed(), model)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"at": "model.nowhere.mix", "layer": "identity", "arguments": {}}, "no layer"),
        ({"at": "model.mix", "layer": "os.system", "arguments": {}}, "cannot be changed by"),
        ({"at": "model.mix", "layer": "linear", "arguments": {"in_features": 3}}, "has no arguments"),
        (
            {
                "at": "model.mix",
                "layer": "linear",
                "arguments": {"in_features": -3, "out_features": 2, "bias": True},
            },
            "cannot be made",
        ),
        ({"at": "model.nowhere", "set": {"out_features": 3}}, "cannot be changed by"),
        ({"at": "model.mix", "set": {"forward": "x"}}, "cannot be set"),
        ({"at": "model.mix", "set": {"_modules": 3}}, "cannot be set"),
        ({"at": "model.mix", "set": {"out_features": {"a": 1}}}, "cannot be set"),
        ({"at": "model.mix"}, "cannot be changed by"),
        ({"at": "model.mix", "tie": {"forward": "model.out.weight"}}, "cannot be changed by"),
        ({"at": "model.mix", "tie": {"weight": "model.out.forward"}}, "no layer"),
        ({"at": "model.mix", "tie": {"weight": 3}}, "cannot be changed by"),
    ],
)
def test_a_change_that_does_not_fit_is_refused(change, problem):
    with pytest.raises(PayloadError, match=problem) as refusal:
        changed(Mixed(), [change], Mixed().state_dict())
    assert refusal.value.reason == "architecture"


def test_tensors_that_do_not_fit_are_refused():
    tensors = Mixed().state_dict()
    del tensors["mix.bias"]
    with pytest.raises(PayloadError, match=r"mix\.bias"):
        changed(Mixed(), [], tensors)
