import copy
import pickle

import numpy as np
import pytest
import torch

from slimfleet.client.tasks import TASKS, Digits
from slimfleet.client.tasks.images import Images, evaluate_images
from slimfleet.compression.errors import BadInput
from slimfleet.compression.pruning import select_channels
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.task import Examples


def test_digits_hold_out_a_stratified_fifth_and_share_the_rest():
    task = Digits(200, alpha=0.5, seed=3)
    shares = [task.load(partition) for partition in range(200)]
    assert sum(len(share) for share in shares) == 1797 - len(task._held_out)
    assert min(len(share) for share in shares) >= 4
    held_out = np.bincount(task._held_out.labels.numpy())
    assert held_out.tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]


def test_digits_examples_are_normalised_float32():
    task = Digits(1, alpha=1.0, seed=0)
    everything = task.load(0)
    assert everything.inputs.shape[1:] == task.example_inputs()[0].shape[1:]
    assert everything.inputs.dtype == torch.float32
    assert everything.targets.dtype == torch.int64
    assert everything.inputs.mean().item() == pytest.approx(0.0, abs=0.01)
    assert everything.inputs.std().item() == pytest.approx(1.0, abs=0.01)


def test_a_task_is_built_without_reading_its_data_and_pickles_without_it():
    task = Digits(200, alpha=1.0, seed=7)
    assert "_all" not in vars(task)
    before = task.load(11)
    pickled = pickle.dumps(task)
    assert len(pickled) < 500
    after = pickle.loads(pickled).load(11)
    assert torch.equal(before.inputs, after.inputs)
    assert torch.equal(before.targets, after.targets)


def test_digits_learn_by_federated_averaging():
    """Twenty of 200 devices a round, about seven digits each: the quickstart's setting."""
    torch.manual_seed(0)
    task = Digits(200, alpha=1.0, seed=0)
    rng = np.random.default_rng(0)
    model = task.build_model()
    untrained = task.evaluate(model)
    for _ in range(10):
        share = [task.load(int(device)) for device in rng.choice(200, 20, replace=False)]
        locals_ = [(_train(task, model, examples), len(examples)) for examples in share]
        total = sum(count for _, count in locals_)
        model.load_state_dict(
            {
                name: sum(state[name] * (count / total) for state, count in locals_)
                for name in model.state_dict()
            }
        )
    trained = task.evaluate(model)
    assert untrained.accuracy < 0.3
    assert trained.accuracy > 0.85
    assert trained.loss < untrained.loss


def test_the_digits_model_shrinks_in_pairs_of_channels():
    architecture = blueprint(Digits(2, alpha=1.0, seed=0), seed=0)
    assert {group.name: group.size for group in architecture.groups} == {"conv1": 8, "conv2": 12}
    channels = select_channels(architecture.groups, 0.25, "prefix")
    small = shrink_model(architecture.model, architecture.index_map(channels))
    assert small(torch.zeros(3, 1, 8, 8)).shape == (3, 10)
    assert sum(p.numel() for p in small.parameters()) < 7570 / 3


def test_evaluation_does_not_depend_on_the_batches_and_keeps_the_mode():
    task = Digits(2, alpha=1.0, seed=0)
    torch.manual_seed(1)
    model = task.build_model().train()
    whole = evaluate_images(model, task._held_out, batch_size=1000)
    parts = evaluate_images(model, task._held_out, batch_size=7)
    assert parts.accuracy == whole.accuracy
    assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
    assert model.training


def test_evaluation_counts_in_plain_numbers():
    images = Images(
        torch.tensor([[[0]], [[1]], [[1]]], dtype=torch.uint8), torch.tensor([0, 1, 0]), 1.0, 0.0, 1.0
    )

    class OneHot(torch.nn.Module):
        def forward(self, pixels):
            return torch.nn.functional.one_hot(pixels.flatten().long(), 2).float() * 100

    evaluation = evaluate_images(OneHot(), images)
    assert evaluation.accuracy == pytest.approx(2 / 3)
    assert evaluation.loss == pytest.approx(100 / 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partitions": 0}, "partitions is 0"),
        ({"partitions": "many"}, "partitions is 'many'"),
        ({"partitions": 2, "alpha": -1}, "alpha is -1"),
        ({"partitions": 2, "alpha": "even"}, "alpha is 'even'"),
        ({"partitions": 2, "seed": -1}, "seed is -1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadInput, match=message):
        Digits(**options)


def test_more_devices_than_digits_are_refused():
    with pytest.raises(BadInput, match="at most 359 partitions of at least 4"):
        Digits(400, alpha=1.0, seed=0).load(0)


def test_every_task_of_the_table_is_a_factory():
    assert set(TASKS) == {
        "digits", "fashion-mnist", "spoken-digits", "activities", "reuters-r8", "newsgroups",
    }  # fmt: skip
    assert TASKS["digits"](partitions=10, seed=0, alpha=0.3) == Digits(10, 0.3, 0)


def _train(task: Digits, model: torch.nn.Module, examples: Examples) -> dict[str, torch.Tensor]:
    local = copy.deepcopy(model).train()
    optimiser = torch.optim.SGD(local.parameters(), lr=0.05, momentum=0.9)
    for _ in range(5):
        optimiser.zero_grad()
        task.loss(local(examples.inputs), examples.targets).backward()
        optimiser.step()
    return local.state_dict()
