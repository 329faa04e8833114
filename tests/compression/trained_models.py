"""Small models trained on the digits of scikit-learn, as pictures and as sequences of rows."""

from dataclasses import replace
from functools import cache

import torch
from torch import nn

from slimfleet.client.tasks import TASKS
from slimfleet.compression.model.central import central_task
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.training.tuning import Tuning, tune

FAST = Tuning(epochs=6, optimizer="adamw", learning_rate=0.01)


class Rows(nn.Module):
    """The rows of a digit, one after the other, through a recurrent layer."""

    def __init__(self, recurrent, reads="outputs"):
        super().__init__()
        self.recurrent, self.reads = recurrent, reads
        self.fc = nn.Linear(recurrent.hidden_size * (2 if recurrent.bidirectional else 1), 10)

    def forward(self, x):
        outputs, states = self.recurrent(x[:, 0])
        if self.reads == "outputs":
            return self.fc(outputs.mean(1))
        hidden, cell = states if isinstance(states, tuple) else (states, None)
        read = cell if self.reads == "cell" else hidden
        return self.fc(read[-2 if self.recurrent.bidirectional else -1 :].transpose(0, 1).flatten(1))


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x):
        return (x + self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))).relu()


class Residual(nn.Module):
    """A large kernel, and two blocks that keep shapes."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 8, 5, stride=2, padding=2), nn.BatchNorm2d(8)
        self.blocks, self.fc = nn.Sequential(Block(8), Block(8)), nn.Linear(8 * 4, 10)

    def forward(self, x):
        hidden = self.blocks(self.norm(self.conv(x)).relu())
        return self.fc(nn.functional.max_pool2d(hidden, 2).flatten(1))


class Tokens(nn.Module):
    """A Transformer over the rows of a digit."""

    def __init__(self):
        super().__init__()
        self.up = nn.Linear(8, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 64, dropout=0.0, batch_first=True)
        self.encoder, self.fc = nn.TransformerEncoder(layer, 2), nn.Linear(16 * 8, 10)

    def forward(self, x):
        return self.fc(self.encoder(self.up(x[:, 0])).flatten(1))


MODELS = {
    "cnn": None,
    "residual": Residual,
    "tokens": Tokens,
    "lstm": lambda: Rows(nn.LSTM(8, 24, batch_first=True)),
    "both ways": lambda: Rows(nn.LSTM(8, 24, batch_first=True, bidirectional=True)),
    "last states": lambda: Rows(nn.GRU(8, 16, batch_first=True, bidirectional=True), "states"),
    "deep": lambda: Rows(nn.GRU(8, 16, 3, batch_first=True)),
    "cell": lambda: Rows(nn.LSTM(8, 8, batch_first=True), "cell"),
}


@cache
def trained(name):
    """A model and its task, trained once for all tests of a process: nothing may change it."""
    make, digits = MODELS[name], TASKS["digits"]

    class Task(digits):
        def build_model(self):
            return super().build_model() if make is None else make()

    central = central_task(Task(partitions=1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        slim, _ = tune(SlimModel(central.task.build_model()), central, replace(FAST, epochs=10))
    return slim, central
