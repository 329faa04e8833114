from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from line_task import Line, line
from torch import nn

from slimfleet.client.training import Trained, local_sgd
from slimfleet.compression import Examples, Plan, Training
from slimfleet.compression.training import shuffled

PLAN = Plan(width=1.0, local_steps=5, batch_size=16, nmse=0.1)
SGD = Training(learning_rate=0.1, momentum=0.0)


def train(model, examples, plan=PLAN, training=SGD, task=None, seed=0, may_step=lambda: None, stepped=None):
    done = [] if stepped is None else stepped
    batches = shuffled(examples, plan.batch_size, np.random.default_rng(seed))
    return local_sgd(model, task or Line(), batches, plan, training, may_step, done.append)


def one_example(x: float, y: float) -> Examples:
    return Examples(torch.tensor([[x]]), torch.tensor([[y]]))


def test_two_steps_of_momentum_by_hand():
    model, plan = line(1.0), replace(PLAN, local_steps=2)
    trained = train(model, one_example(2.0, 0.0), plan, replace(SGD, momentum=0.5))
    # loss 4w^2, gradient 8w: v1 = 8, w1 = 0.2; v2 = 4 + 1.6, w2 = 0.2 - 0.56
    assert model.weight.item() == pytest.approx(-0.36)
    assert trained == Trained(loss=pytest.approx((4.0 + 0.16) / 2), steps=2, stopped_by=None)


def test_the_proximal_term_by_hand():
    model, plan = line(1.0), replace(PLAN, local_steps=2)
    train(model, one_example(2.0, 0.0), plan, replace(SGD, proximal=1.0))
    # w1 = 1 - 0.8 = 0.2; the second gradient is 1.6 + (0.2 - 1)
    assert model.weight.item() == pytest.approx(0.2 - 0.1 * 0.8)


def test_the_proximal_term_passes_over_a_parameter_without_gradient():
    model = line(1.0)
    model.unused = nn.Parameter(torch.ones(3))
    train(model, one_example(2.0, 0.0), training=replace(SGD, proximal=1.0))
    assert model.unused.tolist() == [1.0, 1.0, 1.0]


def test_every_example_is_seen_once_an_epoch_in_an_order_of_the_generators():
    seen: list[list[float]] = []

    class Watching(Line):
        def loss(self, outputs, targets):
            seen.append(targets.flatten().tolist())
            return super().loss(outputs, targets)

    examples = Examples(torch.zeros(10, 1), torch.arange(10.0).view(-1, 1))
    sizes: list[int] = []
    train(line(0.0), examples, replace(PLAN, local_steps=6, batch_size=4), task=Watching(), stepped=sizes)
    assert sizes == [4, 4, 2, 4, 4, 2]
    assert sorted(chain(*seen[:3])) == sorted(chain(*seen[3:])) == list(range(10))
    assert seen[:3] != seen[3:]


def test_the_constraint_that_forbids_a_step_is_named():
    budget = iter([None, None, "energy_j"])
    trained = train(line(1.0), one_example(1.0, 0.0), may_step=lambda: next(budget))
    assert (trained.steps, trained.stopped_by) == (2, "energy_j")


def test_a_full_round_asks_before_each_step_and_not_after_the_last():
    asked: list[None] = []
    trained = train(line(1.0), one_example(1.0, 0.0), may_step=lambda: asked.append(None))
    assert (len(asked), trained.steps, trained.stopped_by) == (5, 5, None)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_convolution_with_batch_norm_learns_in_either_precision(precision, task):
    torch.manual_seed(0)
    model = task.build_model()
    plan = replace(PLAN, local_steps=12, precision=precision)
    losses = [
        train(model, task.load(0), plan, Training(learning_rate=0.05), task, seed).loss for seed in range(3)
    ]
    assert all(later < earlier for earlier, later in pairwise(losses))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_bfloat16_is_another_computation(task):
    weights = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        model = task.build_model()
        train(model, task.load(0), replace(PLAN, precision=precision), SGD, task)
        weights.append(model[4].weight)
    assert not torch.equal(*weights)
    torch.testing.assert_close(*weights, rtol=0.1, atol=0.01)
