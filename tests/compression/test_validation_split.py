import numpy as np
import pytest
import torch
from torch import nn

from slimfleet.compression import BadInput, Evaluation, Examples
from slimfleet.compression.checked_task import CheckedTask
from slimfleet.compression.validation_split import all_examples, evaluate_on, training_and_validation


class Classes:
    """Two inputs; class k in every k-th part, so that the classes are of very different sizes."""

    name = "classes"

    def __init__(self, sizes=(100, 60, 40), partitions=1):
        self.partitions = partitions
        self.targets = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))

    def build_model(self):
        return Both()

    def example_inputs(self):
        return torch.zeros(1, 1), torch.zeros(1, 3)

    def load(self, partition):
        index = torch.arange(partition, len(self.targets), self.partitions)
        return Examples((index.float().unsqueeze(1), torch.zeros(len(index), 3)), self.targets[index])

    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

    def evaluate(self, model):
        return Evaluation(0.0)


class Both(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, number, zeros):
        return self.fc(torch.cat([number / 200, zeros], 1))


class Regression(Classes):
    name = "regression"

    def load(self, partition):
        examples = super().load(partition)
        return Examples(examples.inputs, examples.targets.float().unsqueeze(1).expand(-1, 3))

    def loss(self, outputs, targets):
        return nn.functional.mse_loss(outputs, targets)


class Scored(Regression):
    name = "scored"

    def score(self, outputs, targets):
        return float((targets[:, 0] == 2).float().mean())


class HoldsOut(Classes):
    name = "holds-out"

    def validation(self):
        return Examples((torch.full((5, 1), -1.0), torch.zeros(5, 3)), torch.zeros(5, dtype=torch.long))


def numbers(examples):
    return examples.arguments[0].flatten().long().tolist()


@pytest.mark.parametrize("partitions", [1, 7])
def test_a_tenth_of_each_class_of_all_partitions_is_set_aside(partitions):
    task = Classes(partitions=partitions)
    training, validation = training_and_validation(task, seed=3)
    assert sorted(numbers(training) + numbers(validation)) == list(range(200))
    assert torch.bincount(validation.targets).tolist() == [10, 6, 4]
    assert len(training.arguments) == len(validation.arguments) == 2


def test_the_seed_decides_what_is_set_aside():
    first, again, other = (numbers(training_and_validation(Classes(), seed)[1]) for seed in (0, 0, 1))
    assert first == again != other


def test_small_classes_add_up_to_a_tenth():
    """A tenth of four is none; of 25 such classes together it is ten."""
    _, validation = training_and_validation(Classes(sizes=[4] * 25), seed=0)
    assert len(validation) == 10
    assert torch.bincount(validation.targets).max() == 1


def test_targets_that_are_no_classes_are_split_at_random():
    training, validation = training_and_validation(Regression(), seed=0)
    assert (len(training), len(validation)) == (180, 20)


@pytest.mark.parametrize("wrap", [lambda task: task, lambda task: CheckedTask(task, "mine:Task")])
def test_a_task_that_holds_out_data_is_asked_for_them(wrap):
    training, validation = training_and_validation(wrap(HoldsOut()), seed=0)
    assert len(training) == 200
    assert numbers(validation) == [-1] * 5


def test_too_few_examples_are_refused_in_one_line():
    with pytest.raises(
        BadInput, match=r"'few' has 9 training examples, .* at least 10: .* validation"
    ) as error:
        training_and_validation(CheckedTask(Classes(sizes=[9]), "few"), seed=0)
    assert "\n" not in str(error.value)


def test_partitions_whose_inputs_differ_in_shape_are_refused():
    class Ragged(Classes):
        def load(self, partition):
            examples = super().load(partition)
            return Examples(torch.zeros(len(examples), 2 + partition), examples.targets)

    with pytest.raises(BadInput, match=r"'classes', load, of all partitions together: .*[Ss]izes"):
        all_examples(Ragged(partitions=2))


def test_a_single_tensor_of_inputs_stays_one():
    class Single(Classes):
        def load(self, partition):
            examples = super().load(partition)
            return Examples(examples.arguments[0], examples.targets)

    assert all_examples(Single(partitions=3)).inputs.shape == (200, 1)


@pytest.mark.parametrize("batch_size", [7, 64, 1000])
def test_logits_for_class_numbers_have_an_accuracy_in_batches_of_any_size(batch_size):
    task = Classes()
    torch.manual_seed(1)
    model = task.build_model().train()
    examples = all_examples(task)
    found = evaluate_on(task, model, examples, batch_size)
    logits = model(*examples.arguments)
    assert found.accuracy == pytest.approx((logits.argmax(1) == examples.targets).float().mean().item())
    assert found.loss == pytest.approx(task.loss(logits, examples.targets).item(), rel=1e-5)
    assert model.training


def test_the_model_is_evaluated_in_eval_mode():
    class Dropped(Both):
        def forward(self, number, zeros):
            assert not self.training
            return super().forward(number, zeros)

    evaluate_on(Classes(), Dropped(), all_examples(Classes()))


def test_no_accuracy_is_made_up_for_a_regression():
    task = Regression()
    assert evaluate_on(task, task.build_model(), all_examples(task)).accuracy is None


@pytest.mark.parametrize("wrap", [lambda task: task, lambda task: CheckedTask(task, "mine:Task")])
def test_the_score_of_a_task_takes_the_place_of_accuracy(wrap):
    task = wrap(Scored())
    assert evaluate_on(task, task.build_model(), all_examples(task), 64).accuracy == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda: None, "gives None: must be Examples"),
        (lambda: Examples(torch.zeros(2, 4), torch.zeros(3)), "gives 2 inputs and 3 targets"),
        (lambda: Examples(torch.full((2, 4), np.nan), torch.zeros(2)), "inputs holds NaN"),
        (lambda: Examples(torch.zeros(0, 4), torch.zeros(0)), "gives no examples"),
        (lambda: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_a_task_holds_out_is_checked(given, message):
    task = HoldsOut()
    task.validation = given
    with pytest.raises(BadInput, match=f"task 'mine:Task', validation: .*{message}"):
        training_and_validation(CheckedTask(task, "mine:Task"), seed=0)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (1.5, "gives a score of 1.5: must be from 0 to 1"),
        (float("nan"), "gives a score of nan"),
        ("good", "score is 'good': must be a number"),
        (torch.zeros(2), "only one element"),
    ],
)
def test_what_a_task_scores_is_checked(given, message):
    task = Scored()
    task.score = lambda outputs, targets: given
    checked = CheckedTask(task, "mine:Task")
    with pytest.raises(BadInput, match=f"task 'mine:Task', score.*{message}"):
        evaluate_on(checked, checked.build_model(), all_examples(checked))


def test_a_task_without_them_has_neither_when_it_is_checked():
    checked = CheckedTask(Classes(), "mine:Task")
    assert checked.validation is None
    assert checked.score is None
