from dataclasses import replace
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from torch import nn

from slimfleet.client.training import Trained, local_sgd
from slimfleet.compression import BadInput, BudgetExceeded, Examples, Plan, Training
from slimfleet.compression.training import prepared, shuffled

PLAN = Plan(width=1.0, local_steps=5, batch_size=16, nmse=0.1)
SGD = Training(learning_rate=0.1, momentum=0.0)


class Line:
    """y = w x by least squares: every step can be worked out by hand."""

    name = "line"

    def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return ((outputs - targets) ** 2).mean()


def line(weight: float) -> nn.Module:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, weight)
    return model


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


def test_no_examples_is_an_error_and_not_an_endless_loop():
    with pytest.raises(BadInput, match="no examples"):
        train(line(1.0), Examples(torch.zeros(0, 1), torch.zeros(0, 1)))


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


class Deviation(nn.Module):
    """Divides by the deviation over the batch, which one example does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.weight * x / (x.var(0).sqrt() + 1) if self.training else self.weight * x


def numbers(n: int) -> Examples:
    return Examples(torch.arange(1.0 * n).view(-1, 1), torch.ones(n, 1))


def norm() -> nn.Module:
    return nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1))


@pytest.mark.parametrize(
    ("build", "examples", "batch", "single"),
    [
        (norm, 17, 16, False),
        (norm, 16, 16, True),
        (norm, 18, 16, True),
        (lambda: nn.Sequential(nn.Unflatten(1, (1, 1)), nn.GroupNorm(1, 1)), 17, 16, False),
        (Deviation, 17, 16, False),
        (lambda: line(1.0), 17, 16, True),
        (norm, 1, 16, True),
        (norm, 5, 1, True),
    ],
)
@pytest.mark.filterwarnings("ignore:var..:UserWarning")
def test_a_last_batch_of_one_example_is_used_where_the_model_can_train_on_it(build, examples, batch, single):
    data, model = numbers(examples), build()
    model.eval()
    before = [tensor.clone() for tensor in model.state_dict().values()]
    assert prepared(model, Line(), data, batch) is single
    assert model.training
    assert all(torch.equal(*pair) for pair in zip(model.state_dict().values(), before, strict=True))
    batches = shuffled(data, batch, np.random.default_rng(0), single=single)
    sizes = [len(next(batches)) for _ in range(4)]
    epoch = [batch] * (examples // batch) + [examples % batch] * (examples % batch > int(not single))
    assert sizes == (epoch * 4)[:4]


def test_batches_of_one_keep_to_the_running_statistics_until_they_are_larger():
    model = norm()
    prepared(model, Line(), numbers(5), 1)
    assert not model[1].training
    trained = train(model, numbers(5), replace(PLAN, batch_size=1, local_steps=3))
    assert trained.steps == 3
    assert (model[1].running_mean, model[1].num_batches_tracked) == (0, 0)
    prepared(model, Line(), numbers(5), 2)
    assert model[1].training


@pytest.mark.filterwarnings("ignore:var..:UserWarning")
def test_one_example_on_which_a_model_cannot_train_is_refused_in_one_line():
    with pytest.raises(BudgetExceeded, match="cannot train on one example at a time") as refusal:
        prepared(Deviation(), Line(), numbers(1), 16)
    assert refusal.value.constraint == "examples"
    assert "\n" not in str(refusal.value)
