"""Architecture search keeps to its limits, and its sub-networks are parts of the model."""

import builtins
import copy

import numpy as np
import pytest
import torch
from trained_models import FAST, trained

from slimfleet.compression import BadInput
from slimfleet.compression.model.architectures.blocks import blocks_of
from slimfleet.compression.model.architectures.subnets import space_of, subnet
from slimfleet.compression.model.evaluation.measuring import flops_of
from slimfleet.compression.model.saving.file import load_model, packed_bytes, save_model
from slimfleet.compression.model.techniques.search import Search, search
from slimfleet.compression.model.training.recalibration import recalibrated

ALL = frozenset({"width", "depth", "kernel", "bits"})


@pytest.mark.parametrize(
    ("name", "settings", "kinds"),
    [
        ("cnn", Search(flops=0.4, trials=24, supernet_epochs=2, tuning=FAST), {"channels"}),
        ("cnn", Search(flops="50k", strategy="halving", trials=6, tuning=FAST), {"channels"}),
        (
            "residual",
            Search(flops=0.5, size=0.3, bits=True, trials=16, sampler="tpe", supernet_epochs=1, tuning=FAST),
            {"channels", "bits"},
        ),
    ],
)
def test_the_model_found_keeps_to_the_limits(tmp_path, name, settings, kinds):
    slim, central = trained(name)
    before = copy.deepcopy(slim.model.state_dict())
    small, report = search(slim, central, settings)

    assert all(
        torch.equal(*pair) for pair in zip(slim.model.state_dict().values(), before.values(), strict=True)
    )
    costs = {
        "flops": [flops_of(each.model, central.example_inputs) for each in (small, slim)],
        "size": [packed_bytes(each, central.task) for each in (small, slim)],
    }
    for limited, target in settings.limits.items():
        now, whole = costs[limited]
        # Fine-tuning moves the size of a file a little.
        assert now <= (target.absolute or target.share * whole) * (1.05 if limited == "size" else 1)
    assert central.tested(small.model).accuracy > central.tested(slim.model).accuracy - 0.06
    assert kinds <= {each.change.split()[-1] for each in report.changed}

    for plot in report.plots.values():
        tried, front, chosen = plot.curves
        assert chosen.x[0] <= plot.limit
        assert len(tried.x) <= settings.trials
        assert set(zip(front.x, front.y, strict=True)) <= set(zip(tried.x, tried.y, strict=True))
        assert list(front.y) == sorted(front.y, reverse=True)
        assert (chosen.x[0], chosen.y[0]) in set(zip(tried.x, tried.y, strict=True))

    save_model(small, tmp_path / "model.slim", central.task)
    again, x = load_model(tmp_path / "model.slim", central.task), central.validation.arguments
    with torch.no_grad():
        assert torch.equal(again(*x), small.model(*x))


@pytest.mark.parametrize("name", ["residual", "tokens", "deep"])
def test_a_sub_network_shares_the_weights_of_the_model(name):
    slim, central = trained(name)
    model = copy.deepcopy(slim.model)
    space = space_of(model, central, ALL - {"bits"}, 0.25)
    x, rng = central.validation.take(slice(8)).arguments, np.random.default_rng(0)
    for choice in (space.largest, space.smallest, space.drawn(rng)):
        small = subnet(space, model, choice)
        small.model.eval()
        with torch.no_grad():
            torch.testing.assert_close(small(model, x), small.model(*x))
    with torch.no_grad():
        torch.testing.assert_close(subnet(space, model, space.largest).model.eval()(*x), model.eval()(*x))
    small.model.train()
    small(model, x).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert all(p.grad is None for p in small.model.parameters())


def test_the_axes_of_a_model():
    slim, central = trained("residual")
    space = space_of(slim.model, central, ALL, 0.25)
    values = {axis.name: axis.values for axis in space.axes}
    assert values["kernel:conv"] == (0, 1)
    assert values["depth:blocks.0"] == values["depth:blocks.1"] == (1, 0)
    assert values["width:blocks.0.conv1"] == (8, 7, 6, 5, 4, 3, 2)
    assert values["bits:fc.weight"] == (8, 6, 5, 4, 3, 2)
    small = subnet(space, slim.model, {**space.largest, "kernel:conv": 1, "depth:blocks.1": 0}).model
    assert small.conv.weight.shape == (8, 1, 3, 3)
    assert small.conv.padding == (1, 1)
    assert sum(p.numel() for p in small.blocks[1].parameters()) == 0


def test_blocks_are_those_that_keep_shapes():
    slim, central = trained("tokens")
    assert blocks_of(slim.model, central.example_inputs) == ["encoder.layers.0", "encoder.layers.1"]
    slim, central = trained("cnn")
    assert blocks_of(slim.model, central.example_inputs) == []


def test_statistics_are_those_of_the_sub_network():
    slim, central = trained("residual")
    spoilt = copy.deepcopy(slim.model)
    spoilt.norm.running_mean += 10
    again = recalibrated(spoilt, central)
    assert (again.norm.running_mean - slim.model.norm.running_mean).abs().max() < 0.5
    assert again.norm.momentum == slim.model.norm.momentum


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"flops": 0.001, "trials": 8, "supernet_epochs": 0},
            "no architecture within the limits, the nearest has 0.0",
        ),
        ({"flops": "fast"}, "target 'flops=fast'"),
        ({"energy": "1mJ"}, "device=NAME"),
        ({"energy": 0.5, "device": "abacus"}, "no device profile 'abacus'"),
        ({"width": False, "kernel": False}, "nothing to choose"),
    ],
)
def test_what_cannot_be_found_gets_one_line(settings, problem):
    slim, central = trained("cnn")
    with pytest.raises(BadInput) as refusal:
        search(slim, central, Search(**settings))
    assert problem in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_without_optuna_the_message_names_the_extra(monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    slim, central = trained("cnn")
    with pytest.raises(BadInput, match=r"slimfleet\[model\]"):
        search(slim, central, Search(supernet_epochs=0))
