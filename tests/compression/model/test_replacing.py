"""Techniques that replace layers: what comes out is cheaper, nearly as good, and rebuilt from a file bit for bit."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from trained_models import FAST, trained

from slimfleet.compression import BadInput
from slimfleet.compression.model.architectures import fitting
from slimfleet.compression.model.architectures.fitting import calls_of, fitted, outputs_read
from slimfleet.compression.model.evaluation.measuring import flops_of
from slimfleet.compression.model.saving.file import load_model, packed_bytes, save_model
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.techniques.factorise import Factorise, _thin
from slimfleet.compression.model.techniques.quantise import Quantise, quantise
from slimfleet.compression.model.techniques.recurrent import Recurrent
from slimfleet.compression.model.techniques.separate import Separate
from slimfleet.compression.model.techniques.tie import Tie
from slimfleet.compression.model.toolbox import TECHNIQUES


@pytest.fixture
def quick_fits(monkeypatch):
    """For tests that are not about the quality of a fit."""
    monkeypatch.setattr(fitting, "STEPS", 10)


def parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("name", "technique", "settings", "share_of_flops", "loss"),
    [
        ("cnn", "separate", Separate(tuning=FAST), 0.25, 0.03),
        ("cnn", "factorise", Factorise(by="cost", keep=0.6, tuning=FAST), 0.65, 0.03),
        ("lstm", "recurrent", Recurrent(tuning=FAST), 0.77, 0.04),
        ("both ways", "recurrent", Recurrent(tuning=FAST), 0.58, 0.06),
        ("last states", "recurrent", Recurrent(tuning=FAST), 0.6, 0.06),
        ("deep", "tie", Tie(tuning=FAST), 1.0, 0.04),
        ("tokens", "tie", Tie(tuning=FAST), 1.0, 0.04),
    ],
)
def test_a_model_is_cheaper_nearly_as_good_and_rebuilt(
    tmp_path, name, technique, settings, share_of_flops, loss
):
    slim, central = trained(name)
    before = copy.deepcopy(slim.model.state_dict())
    small, report = TECHNIQUES[technique].apply(slim, central, settings)

    assert all(
        torch.equal(*pair) for pair in zip(slim.model.state_dict().values(), before.values(), strict=True)
    )
    inputs = central.example_inputs
    assert flops_of(small.model, inputs) <= share_of_flops * flops_of(slim.model, inputs)
    assert parameters(small.model) < parameters(slim.model)
    assert packed_bytes(small, central.task) < packed_bytes(slim, central.task)
    assert central.tested(small.model).accuracy > central.tested(slim.model).accuracy - loss
    assert report.changed
    assert report.steps

    save_model(small, tmp_path / "model.slim", central.task)
    again = load_model(tmp_path / "model.slim", central.task)
    x = central.validation.arguments
    with torch.no_grad():
        assert torch.equal(again(*x), small.model.eval()(*x))
    assert parameters(again) == parameters(small.model)


def test_tied_weights_are_stored_once_on_a_grid_too(tmp_path, quick_fits):
    slim, central = trained("deep")
    tied, _ = TECHNIQUES["tie"].apply(slim, central, Tie(tuning=replace(FAST, epochs=0)))
    assert tied.model.recurrent.weight_hh_l1 is tied.model.recurrent.weight_hh_l2
    rounded, _ = quantise(tied, central, Quantise(weights=4))
    save_model(rounded, tmp_path / "model.slim", central.task)
    again, x = load_model(tmp_path / "model.slim", central.task), central.validation.arguments
    with torch.no_grad():
        assert torch.equal(again(*x), rounded.model(*x))
    assert again.recurrent.weight_hh_l1 is again.recurrent.weight_hh_l2
    untied, _ = quantise(slim, central, Quantise(weights=4))
    assert packed_bytes(rounded, central.task) < 0.75 * packed_bytes(untied, central.task)


def test_what_cannot_be_replaced_is_named_with_the_reason(quick_fits):
    slim, central = trained("cnn")
    _, report = TECHNIQUES["factorise"].apply(
        slim, central, Factorise(keep=0.97, tuning=replace(FAST, epochs=0))
    )
    assert [(each.layer, each.change) for each in report.whole] == [
        ("conv1", "rank 7, which it needs, saves nothing")
    ]
    with pytest.raises(BadInput, match="recurrent finds no layer that it can replace"):
        TECHNIQUES["recurrent"].apply(slim, central, Recurrent())
    with pytest.raises(BadInput, match=r"conv1: its fit is \d+% off, more than 1%; conv2"):
        TECHNIQUES["separate"].apply(slim, central, Separate(worst_fit=0.01))


def test_a_cell_state_that_is_read_keeps_its_lstm():
    slim, central = trained("cell")
    assert outputs_read(slim.model, "recurrent", central.example_inputs) == (False, False, True)
    with pytest.raises(BadInput, match="the model reads its cell state"):
        TECHNIQUES["recurrent"].apply(slim, central, Recurrent())


def test_weights_that_are_two_layers_own_are_left_whole(quick_fits):
    slim, central = trained("tokens")
    model = copy.deepcopy(slim.model)
    model.encoder.layers[1].linear1.weight = model.encoder.layers[0].linear1.weight
    _, report = TECHNIQUES["factorise"].apply(
        SlimModel(model), central, Factorise(tuning=replace(FAST, epochs=0))
    )
    assert {each.layer for each in report.whole if "another layer" in each.change} == {
        "encoder.layers.0.linear1",
        "encoder.layers.1.linear1",
    }


@pytest.mark.parametrize("path", ["conv2", "fc"])
def test_low_rank_is_closest_on_the_inputs_that_a_layer_gets(path):
    slim, central = trained("cnn")
    layer, calls = slim.model.get_submodule(path), calls_of(slim.model, path, central)
    aware = _thin(layer, calls, Factorise(by="cost", keep=0.4))
    weight = layer.weight.detach().flatten(1)
    rank = len(aware[0].weight)
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    blind = copy.deepcopy(aware)
    blind[0].weight.data = right[:rank].reshape(aware[0].weight.shape)
    blind[1].weight.data = (left[:, :rank] * values[:rank]).reshape(aware[1].weight.shape)

    def error(pair):
        with torch.no_grad():
            return sum(float(((pair(*call.args) - call.outputs[0]) ** 2).sum()) for call in calls)

    assert error(aware) < 0.95 * error(blind)


def test_a_fit_comes_nearer_and_is_never_worse_than_its_start():
    slim, central = trained("cnn")
    calls = calls_of(slim.model, "conv2", central)
    random = copy.deepcopy(slim.model.conv2)
    nn.init.normal_(random.weight, std=0.05)
    before = copy.deepcopy(random.state_dict())
    _, error = fitted(random, calls)
    assert error < 0.2
    assert torch.equal(random.weight, before["weight"])
    same, error = fitted(slim.model.conv2, calls)
    assert error < 1e-9
    assert torch.equal(same.weight, slim.model.conv2.weight)


def test_a_fused_transformer_layer_does_not_read_past_its_replacement(tmp_path, quick_fits):
    slim, central = trained("tokens")
    settings = Factorise(by="cost", keep=0.5, worst_fit=2, tuning=replace(FAST, epochs=0))
    small, report = TECHNIQUES["factorise"].apply(slim, central, settings)
    assert "encoder.layers.0.linear1" in {each.layer for each in report.changed}
    assert flops_of(small.model, central.example_inputs) < 0.8 * flops_of(slim.model, central.example_inputs)
    save_model(small, tmp_path / "model.slim", central.task)
    again, x = load_model(tmp_path / "model.slim", central.task), central.validation.arguments
    with torch.no_grad():
        assert torch.equal(again(*x), small.model(*x))
    # The fused path would compute the same as the plain one, but needs the weights of the old layer.
    torch.testing.assert_close(again(*x), small.model.train()(*x))
