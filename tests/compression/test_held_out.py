"""Held-out examples: drawn once and for all, and evaluated in exact integers."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

from slimfleet.compression import Examples
from slimfleet.compression.held_out import divided, evaluated, pooled
from slimfleet.compression.types import LARGEST_LOSS, UNIT, Evaluated


class Sorting:
    """Numbers in classes; one model is enough, whatever it has learned."""

    name = "sorting"

    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)


class Scored(Sorting):
    def score(self, outputs, targets):
        return float((outputs.argmax(1) == targets).float().mean()) / 3


class Regression:
    name = "regression"

    def loss(self, outputs, targets):
        return nn.functional.mse_loss(outputs.sum(1), targets.float())


def numbered(count):
    """Examples that say which they are."""
    return Examples(torch.arange(count).view(-1, 1).float(), torch.arange(count))


def data(count=120, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return Examples(torch.randn(count, 6, generator=rng), torch.randint(5, (count,), generator=rng))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(6, 40), nn.BatchNorm1d(40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 5))


def names(examples):
    return set() if examples is None else set(examples.targets.tolist())


@pytest.mark.parametrize(
    ("count", "share", "held"),
    [(1, 0.5, 0), (2, 0.9, 0), (3, 0.1, 1), (10, 0.2, 2), (9, 0.99, 7), (50, 0, 0)],
)
def test_no_example_is_both_trained_on_and_held_out(count, share, held):
    data = divided(numbered(count), share, seed=1, partition=4)
    assert len(names(data.held_out)) == held
    assert names(data.train) | names(data.held_out) == set(range(count))
    assert len(data.train) == count - held


def test_the_draw_depends_on_seed_and_partition_alone():
    first, again = (names(divided(numbered(100), 0.2, 1, 4).held_out) for _ in range(2))
    others = [names(divided(numbered(100), 0.2, *draw).held_out) for draw in ((2, 4), (1, 5))]
    assert first == again
    assert first not in others


@pytest.mark.parametrize("task", [Sorting(), Scored(), Regression()], ids=lambda task: type(task).__name__)
def test_shares_add_up_to_all_in_one_place_exactly(model, task):
    whole = data()
    cuts = [0, 1, 18, 19, 77, 120]
    shares = [whole.take(slice(begin, end)) for begin, end in pairwise(cuts)]
    parts = [evaluated(task, model, share) for share in shares]
    together = evaluated(task, model, whole)
    assert pooled(parts) == together
    assert pooled(reversed(parts)) == together
    assert together.examples == 120


def test_counts_are_those_of_the_model(model):
    whole, task = data(), Sorting()
    found = evaluated(task, model, whole)
    with torch.no_grad():
        outputs = model.eval()(whole.inputs)
    right = outputs.argmax(1) == whole.targets
    assert found.correct == int(right.sum()) == sum(correct for _, correct in found.by_class)
    assert [examples for examples, _ in found.by_class] == np.bincount(whole.targets, minlength=5).tolist()
    assert found.accuracy == found.correct / 120
    assert found.loss == pytest.approx(float(task.loss(outputs, whole.targets)), abs=2 / UNIT)


def test_a_score_takes_the_place_of_counts(model):
    scored, counted = evaluated(Scored(), model, data()), evaluated(Sorting(), model, data())
    assert scored.correct is None
    assert scored.accuracy == pytest.approx(counted.accuracy / 3, abs=1e-4)
    numbers = Examples(data().inputs, data().targets.float())
    assert evaluated(Regression(), model, numbers).accuracy is None


def test_model_and_generator_stay_as_they_are(model):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(8)
    evaluated(Sorting(), model, data(10))
    drawn = torch.rand(1)
    torch.manual_seed(8)
    assert torch.equal(drawn, torch.rand(1))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_stops_where_it_may_not_go_on(model):
    assert evaluated(Sorting(), model, data(), lambda done: done < 7).examples == 7
    assert evaluated(Sorting(), model, data(), lambda done: False) is None
    assert pooled([]) is None


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e30])
def test_a_loss_that_is_no_number_counts_as_the_largest(model, loss):
    class Broken(Regression):
        def loss(self, outputs, targets):
            return torch.tensor(loss)

    assert evaluated(Broken(), model, data(3)).loss_sum == 3 * LARGEST_LOSS


def test_many_classes_are_not_counted_one_by_one():
    torch.manual_seed(0)
    found = evaluated(Sorting(), nn.Linear(6, 300), data(4))
    assert (found.examples, found.by_class) == (4, None)
    assert found.correct is not None


def test_classes_that_some_did_not_have_are_added():
    short = Evaluated(examples=1, loss_sum=1, correct=1, by_class=((1, 1),))
    long = Evaluated(examples=2, loss_sum=2, correct=0, by_class=((1, 0), (1, 0)))
    assert pooled([short, long]).by_class == ((2, 1), (1, 0))
