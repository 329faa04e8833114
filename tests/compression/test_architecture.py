"""Two models have one key only where nothing that findings depend on tells them apart."""

import functools
import subprocess
import sys
import threading
from dataclasses import dataclass
from enum import Enum
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from slimfleet.compression.architecture import key_of


class Net(nn.Module):
    """A layer with one attribute more."""

    def __init__(self, held=None, name="held"):
        super().__init__()
        self.a = nn.Linear(4, 8)
        setattr(self, name, held)


class SimpleTask:
    def __init__(self, *inputs):
        self.inputs = inputs or (torch.zeros(1, 4),)

    def example_inputs(self):
        return self.inputs


class Mode(Enum):
    PRE = 1
    POST = 2


@dataclass
class Config:
    norm: str


class Slotted:
    __slots__ = ("heads",)

    def __init__(self, heads):
        self.heads = heads


def adding(n):
    return lambda x: x + n


def key(held, name="held"):
    return key_of("groups", SimpleTask(), Net(held, name))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        (True, 1),
        ("a", "b"),
        (None, 0),
        ([1, [2]], [1, [3]]),
        ((1,), [1]),
        ({"heads": 1}, {"heads": 2}),
        ({1, 2}, {1, 3}),
        (Mode.PRE, Mode.POST),
        (torch.float32, torch.float16),
        (Config("batch"), Config("layer")),
        (SimpleNamespace(deep=Config("batch")), SimpleNamespace(deep=Config("layer"))),
        (Slotted(1), Slotted(2)),
        (nn.ReLU, nn.GELU),
        (torch.relu, torch.tanh),
        (adding(1), adding(2)),
        (lambda x: x + 1, lambda x: x * 1),
        (functools.partial(adding, n=1), functools.partial(adding, n=2)),
        (Slotted(1).__init__, Slotted(2).__init__),
        (torch.tensor([0, 1]), torch.tensor([1, 0])),
        (torch.zeros(2), torch.zeros(3)),
        (np.array([0, 1]), np.array([1, 0])),
        (nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False)),
        (nn.Linear(1, 1), nn.Linear(1, 1).requires_grad_(False)),
        ([nn.Linear(2, 2)] * 2, [nn.Linear(2, 2), nn.Linear(2, 2)]),
    ],
)
@pytest.mark.parametrize("name", ["held", "_held"])
def test_what_a_layer_holds_changes_the_key(one, other, name):
    assert key(one, name) is not None
    assert len({key(one, name), key(other, name), key(one, name + "2")}) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(3, 4),
        lambda: nn.TransformerEncoderLayer(8, 2),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
        lambda: Config("batch"),
        lambda: adding(3),
    ],
)
def test_weights_do_not_change_the_key(make):
    assert key(make()) == key(make()) is not None


def test_a_model_that_holds_itself_has_a_key():
    net = Net()
    net.held = [net]
    assert key_of("groups", SimpleTask(), net) is not None


def test_the_inputs_change_the_key():
    tokens = [(torch.zeros(1, 4),), (torch.zeros(1, 5),), (torch.tensor([[0]]),), (torch.tensor([[1]]),)]
    assert len({key_of("groups", SimpleTask(*inputs), Net()) for inputs in tokens}) == 4
    assert key_of("groups", SimpleTask(torch.rand(1, 4)), Net()) == key(None)
    assert key_of("work", SimpleTask(), Net()) != key(None)


@pytest.mark.parametrize("hidden", [threading.Lock(), iter([1]), np.random.default_rng(0), torch.Generator()])
def test_what_hides_what_it_is_has_no_key(hidden):
    assert key(hidden) is None
    assert key([{"deep": hidden}]) is None


def test_code_that_is_in_no_file_has_no_key():
    program = """
import torch
from slimfleet.compression.architecture import key_of
class Net(torch.nn.Linear): pass
class Task:
    def example_inputs(self): return (torch.zeros(1, 4),)
print(key_of("groups", Task(), torch.nn.Linear(4, 2)), key_of("groups", Task(), Net(4, 2)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["None", "None"]
