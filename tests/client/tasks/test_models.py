"""Every model of every built-in task learns, and goes on learning at half width."""

import pytest
import torch

from slimfleet.client.tasks import TASKS
from slimfleet.client.tasks.fashion_mnist import DEBIAN_FOLDER
from slimfleet.compression.pruning import select_channels
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.pruning.shrink import shrink_model

EXAMPLES = 32
STEPS = 10

MODELS = {
    ("fashion-mnist", "cnn"): 101_682,
    ("fashion-mnist", "lenet-300-100"): 266_610,
    ("fashion-mnist", "lenet-5"): 431_080,
    ("fashion-mnist", "mobilenet"): 210_570,
    ("fashion-mnist", "resnet20"): 272_186,
    ("spoken-digits", "gru"): 56_202,
    ("spoken-digits", "lstm"): 87_178,
    ("spoken-digits", "ds-cnn"): 23_050,
    ("activities", "cnn1d"): 33_158,
    ("activities", "gru"): 14_214,
    ("reuters-r8", "transformer"): 324_616,
}


def built(name, model):
    if name == "fashion-mnist" and not DEBIAN_FOLDER.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed: apt-get install dataset-fashion-mnist")
    shorter = {"length": 16} if name == "reuters-r8" else {}
    return TASKS[name](partitions=1, seed=0, model=model, **shorter)


@pytest.mark.parametrize(("name", "model"), MODELS)
def test_a_model_learns_and_goes_on_at_half_width(name, model):
    task = built(name, model)
    architecture = blueprint(task, seed=0)
    assert sum(parameter.numel() for parameter in architecture.model.parameters()) == MODELS[name, model]
    channels = select_channels(architecture.groups, 0.5, "prefix")
    half = shrink_model(architecture.model, architecture.index_map(channels))
    assert sum(parameter.numel() for parameter in half.parameters()) < 0.55 * MODELS[name, model]
    examples = task.load(0).take(torch.arange(EXAMPLES))
    for network in (architecture.model, half):
        before, after = losses(task, network, examples)
        assert after < 0.85 * before


def losses(task, network, examples):
    """Loss on a batch before and after some steps on it."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    found = []
    network.train()
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = task.loss(network(*examples.arguments), examples.targets)
        loss.backward()
        optimizer.step()
        found.append(float(loss.detach()))
    return found[0], found[-1]
