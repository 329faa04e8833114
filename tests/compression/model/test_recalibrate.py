"""Statistics of batch normalisations follow weights that changed without training."""

import pytest
import torch
from torch import nn

from slimfleet.compression import BadInput
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.techniques.quantise import Quantise, quantise
from slimfleet.compression.model.techniques.recalibrate import Recalibrate, recalibrate
from slimfleet.compression.model.techniques.sparsify import Sparsify, sparsify
from slimfleet.compression.model.training.tuning import Tuning, tune

NO_TUNING = Tuning(epochs=0)


@pytest.fixture(scope="module")
def normed(central):
    """Digits with batch normalisation, trained for five epochs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 24, 3, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(384, 10),
        )
    return tune(SlimModel(model), central, Tuning(epochs=5, learning_rate=0.05))[0]


def test_statistics_are_those_of_the_training_examples(central, normed):
    again, report = recalibrate(normed, central, Recalibrate(examples=10**6))
    assert report.changed[0].change == f"statistics of {len(central.training):,} examples"
    with torch.no_grad():
        first = normed.model[0](central.training.arguments[0])
    assert torch.allclose(again.model[1].running_mean, first.mean((0, 2, 3)), atol=3e-3)
    assert torch.allclose(again.model[1].running_var, first.var((0, 2, 3)), rtol=0.05)
    assert again.model[1].momentum == normed.model[1].momentum
    assert not any(module.training for module in again.model.modules())


def test_most_of_what_one_shot_sparsity_loses_comes_back(central, normed):
    sparse, _ = sparsify(normed, central, Sparsify(share=0.85, tuning=NO_TUNING))
    stale = sparse.copy().model
    for name, buffer in normed.model.named_buffers():
        stale.get_buffer(name).copy_(buffer)
    whole, without, with_ = (central.tested(m).accuracy for m in (normed.model, stale, sparse.model))
    assert whole - with_ < 0.6 * (whole - without)
    for name, mask in sparse.constraints.items():
        assert (sparse.model.get_parameter(name)[~mask.free] == 0).all()


def test_two_bits_gain_too_and_a_model_that_loses_by_it_stays(central, normed):
    rounded, _ = quantise(normed, central, Quantise(weights=2))
    assert not torch.equal(rounded.model[4].running_var, normed.model[4].running_var)
    fine, _ = tune(normed, central, NO_TUNING)
    assert central.validated(fine.model).loss <= central.validated(normed.model).loss


def test_a_model_without_statistics_is_refused(central, trained):
    with pytest.raises(BadInput, match=r"^recalibrate finds no batch normalisation .*: leave it out$"):
        recalibrate(trained, central, Recalibrate())
