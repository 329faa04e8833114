"""Batch normalisations go into the layers before them without a trace in the outputs, or stay."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimfleet.client.tasks.models.mobilenet import MobileNet
from slimfleet.client.tasks.models.resnet import ResNet20
from slimfleet.compression import BadInput
from slimfleet.compression.model.saving.architecture_changes import changed, changes_between
from slimfleet.compression.model.saving.file import load_model, save_model
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.techniques.fold import Fold, fold
from slimfleet.compression.model.techniques.quantise import Quantise, quantise
from slimfleet.compression.model.techniques.round import Round, round_weights
from slimfleet.compression.model.techniques.share import Share, share
from slimfleet.compression.model.techniques.sparsify import Sparsify, sparsify
from slimfleet.compression.model.training.tuning import Tuning


def used(model, x):
    """With the statistics and scales of a model that was trained."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            module.weight.data.uniform_(0.5, 2.0)
            module.bias.data.normal_()
    model.train()
    for _ in range(3):
        model(x)
    return model.eval()


@pytest.mark.parametrize(("build", "count"), [(MobileNet, 17), (ResNet20, 21)])
def test_all_norms_of_real_models_fold_exactly(toy, build, count):
    torch.manual_seed(0)
    x = torch.randn(20, 1, 28, 28)
    model = used(build(), x)
    central = toy(x, targets=torch.randint(0, 10, (20,)))
    folded, report = fold(SlimModel(model), central, Fold())
    assert (len(report.changed), report.whole) == (count, ())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.model.modules())
    with torch.no_grad():
        wanted = model(x)
        assert (folded.model(x) - wanted).abs().max() < 1e-4 * wanted.abs().max()
    told = json.loads(json.dumps(changes_between(build(), folded.model)))
    again = changed(build(), told, folded.model.state_dict()).eval()
    assert torch.equal(again(x), folded.model(x))


class Awkward(nn.Module):
    """Some norms that fold, and every reason why one does not."""

    def __init__(self):
        super().__init__()
        self.conv, self.good = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)
        self.up, self.up_norm = nn.ConvTranspose2d(4, 6, 2), nn.BatchNorm2d(6, affine=False)
        self.grouped, self.grouped_norm = nn.ConvTranspose2d(6, 4, 2, groups=2), nn.BatchNorm2d(4)
        self.twice, self.twice_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.read, self.read_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.stray = nn.BatchNorm2d(4)
        self.bare, self.bare_norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        self.linear, self.linear_norm, self.out = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, x):
        x = self.good(self.conv(x)).relu()
        x = self.grouped_norm(self.grouped(self.up_norm(self.up(x)))).relu()
        x = self.twice_norm(self.twice(self.twice(x)))
        y = self.read(x)
        x = self.read_norm(y) + y
        x = self.bare_norm(self.bare(self.stray(x.relu())))
        return self.out(self.linear_norm(self.linear(x.mean((2, 3)))))


def test_what_cannot_be_folded_is_left_whole_with_the_reason(toy):
    torch.manual_seed(0)
    x = torch.randn(20, 2, 6, 6)
    model = used(Awkward(), x)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    folded, report = fold(SlimModel(model), toy(x, targets=torch.randint(0, 3, (20,))), Fold())
    assert [change.layer for change in report.changed] == ["good", "up_norm", "linear_norm"]
    alone = "no convolution or linear layer stands right before it, alone and once"
    assert {each.layer: each.change for each in report.whole} == {
        "grouped_norm": "grouped is a transposed convolution in groups",
        "twice_norm": alone,
        "read_norm": "what read gives is read elsewhere too",
        "stray": alone,
        "bare_norm": "it has no running statistics",
    }
    assert torch.allclose(folded.model(x), model(x), atol=1e-4)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in folded.model.modules())


def test_a_model_without_batch_norms_is_refused(central, trained):
    with pytest.raises(BadInput, match=r"^fold finds no batch normalisation in the model: leave it out$"):
        fold(trained, central, Fold())


class Stack(nn.Sequential):
    """Convolutions, one depthwise, and a linear layer, each with its norm."""

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10),
        )  # fmt: skip


@pytest.mark.parametrize("constrain", ["grid", "affine", "tensor", "round", "mask"])
def test_weights_on_a_grid_stay_on_it_with_other_steps(toy, tmp_path, constrain):
    torch.manual_seed(0)
    x = torch.randn(40, 3, 8, 8)
    model = used(Stack(), x)
    for norm in (m for m in model.modules() if isinstance(m, _BatchNorm)):
        norm.weight.data[0] *= -1
        norm.weight.data[1] = 0
    central = toy(x, targets=torch.randint(0, 10, (40,)))
    slim, _ = {
        "grid": lambda: quantise(SlimModel(model), central, Quantise(weights=4, rounding="nearest")),
        "affine": lambda: quantise(
            SlimModel(model), central, Quantise(weights=3, scheme="affine", rounding="nearest")
        ),
        "tensor": lambda: quantise(
            SlimModel(model), central, Quantise(granularity="tensor", rounding="nearest")
        ),
        "round": lambda: round_weights(SlimModel(model), central, Round(divergence=0.01, calibration=20)),
        "mask": lambda: sparsify(
            SlimModel(model), central, Sparsify(tuning=Tuning(epochs=0), pace="one-shot")
        ),
    }[constrain]()
    folded, report = fold(slim, central, Fold())
    assert len(report.changed) == 3
    with torch.no_grad():
        wanted = slim.model(x)
        assert (folded.model(x) - wanted).abs().max() < 1e-4 * wanted.abs().max()
    weights = dict(folded.model.named_parameters())
    for name, constraint in folded.constraints.items():
        assert torch.equal(constraint.obeyed(weights[name].detach()), weights[name].detach())
    task = replace(central.task, build=Stack)
    save_model(folded, tmp_path / "model.slim", task)
    assert torch.equal(load_model(tmp_path / "model.slim", task)(x), folded.model(x))


def test_norms_after_shared_weights_stay(toy):
    torch.manual_seed(0)
    x = torch.randn(20, 3, 8, 8)
    central = toy(x, targets=torch.randint(0, 10, (20,)))
    shared, _ = share(SlimModel(used(Stack(), x)), central, Share(tuning=Tuning(epochs=0)))
    _, report = fold(shared, central, Fold())
    assert not report.changed
    assert report.whole[0].change.endswith("are shared: fold before share")
