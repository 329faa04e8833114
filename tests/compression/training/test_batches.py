"""Batches hold every example once an epoch, and fit what a model can train on; a step is on any loss."""

from itertools import islice

import numpy as np
import pytest
import torch
from line_task import Line, line
from torch import nn

from slimfleet.compression import BadInput, BudgetExceeded, Examples
from slimfleet.compression.checked_task import BadTask
from slimfleet.compression.training import prepared, shuffled, train_step


def steps(model, examples, batch_size, count):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batches = shuffled(examples, batch_size, np.random.default_rng(0))
    return [train_step(model, Line(), batch, optimizer) for batch in islice(batches, count)]


def test_no_examples_is_an_error_and_not_an_endless_loop():
    with pytest.raises(BadInput, match="no examples"):
        next(shuffled(Examples(torch.zeros(0, 1), torch.zeros(0, 1)), 4, np.random.default_rng(0)))


def test_an_epoch_has_every_example_once():
    batches = list(islice(shuffled(numbers(10), 4, np.random.default_rng(0)), 6))
    first, second = (
        [x for batch in half for x in batch.inputs.flatten().tolist()] for half in (batches[:3], batches[3:])
    )
    assert [len(batch) for batch in batches] == [4, 4, 2, 4, 4, 2]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_a_step_by_hand():
    model = line(1.0)
    example = Examples(torch.tensor([[2.0]]), torch.tensor([[0.0]]))
    assert steps(model, example, 1, 2) == pytest.approx([4.0, 0.16])  # gradient 8 w, so that w is 1, then 0.2


def test_another_loss_and_gradients_that_are_changed():
    model = line(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    example = Examples(torch.tensor([[2.0]]), torch.tensor([[0.0]]))
    loss = train_step(
        model,
        Line(),
        example,
        optimizer,
        loss=lambda model, batch: 3 * model(batch.inputs).sum(),
        adjust=lambda: model.weight.grad.mul_(0.5),
    )
    assert loss == 6.0
    assert model.weight.item() == pytest.approx(1.0 - 0.1 * 3.0)


def test_what_a_task_raises_is_laid_to_its_charge():
    class Wrong(Line):
        def loss(self, outputs, targets):
            raise RuntimeError("shapes")

    with pytest.raises(BadTask, match="shapes"):
        train_step(line(1.0), Wrong(), numbers(2), torch.optim.SGD(line(1.0).parameters(), lr=1))


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
    steps(model, numbers(5), batch_size=1, count=3)
    assert (model[1].running_mean, model[1].num_batches_tracked) == (0, 0)
    prepared(model, Line(), numbers(5), 2)
    assert model[1].training


@pytest.mark.filterwarnings("ignore:var..:UserWarning")
def test_one_example_on_which_a_model_cannot_train_is_refused_in_one_line():
    with pytest.raises(BudgetExceeded, match="cannot train on one example at a time") as refusal:
        prepared(Deviation(), Line(), numbers(1), 16)
    assert refusal.value.constraint == "examples"
    assert "\n" not in str(refusal.value)
