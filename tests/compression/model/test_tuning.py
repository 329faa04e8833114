"""The loop of training: it says when it diverges, keeps what a teacher said, and flushes denormals while it lasts."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from slimfleet.compression import BadInput
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.training.teachers import Batch, Teachers
from slimfleet.compression.model.training.tuning import Tuner, Tuning, tune


def test_training_that_diverges_ends_in_one_line(toy):
    central = toy(torch.randn(200, 4), targets=torch.randn(200, 1), of=F.mse_loss)
    with pytest.raises(
        BadInput, match=r"^training: the loss is (nan|inf) at step \d+: lower learning_rate \(10\)$"
    ):
        tune(SlimModel(nn.Linear(4, 1)), central, Tuning(epochs=60, learning_rate=10.0), "training")


class Counting(nn.Module):
    """A teacher that counts the examples that it is shown."""

    def __init__(self, model):
        super().__init__()
        self.model, self.shown = model, 0

    def forward(self, x):
        self.shown += len(x)
        return self.model(x)


def test_a_teacher_is_asked_once_for_each_example(central, trained):
    teacher = Counting(trained.model)
    taught = replace(central, teachers=Teachers((teacher,)))
    tune(trained, taught, Tuning(epochs=2.5, soft_labels=0.5))
    assert teacher.shown == len(central.training) + 1  # the one that shows whether it fits
    tune(trained, taught, Tuning(epochs=1, soft_labels=0.5, batch_size=50))
    assert teacher.shown == len(central.training) + 2


def test_what_was_kept_is_what_the_teacher_says(central, trained):
    teachers, index = Teachers((trained.model,)), torch.tensor([5, 3, 9])
    first = teachers.say(Batch.taken(central.training, index))[0]
    again = teachers.say(Batch.taken(central.training, torch.tensor([9, 1, 5, 3])))[0]
    with torch.no_grad():
        wanted = trained.model(*central.training.take(index).arguments)
    assert torch.allclose(first, wanted)
    assert torch.equal(again[[2, 3, 0]], first)
    other = central.training.take(slice(20))
    assert teachers.say(Batch.taken(other, torch.tensor([5])))[0].shape == (1, 10)


def test_denormals_are_zero_in_training_and_what_they_were_afterwards(central, trained):
    seen = []
    tuner = Tuner(
        trained, central, Tuning(epochs=1), watch=lambda *_: seen.append(float(torch.tensor(1e-39) * 0.5))
    )
    tuner.run(1)
    assert seen == [0.0]
    assert float(torch.tensor(1e-39) * 0.5) > 0


def test_convolutions_are_stored_in_the_usual_order_afterwards(central, trained):
    tuned, _ = tune(trained, central, Tuning(epochs=0.2))
    assert all(p.is_contiguous() for p in tuned.model.parameters())
    assert isinstance(tuned, SlimModel)
