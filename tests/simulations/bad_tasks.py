"""Tasks that are wrong in one member each, around a small model: `T` is right, its subclasses are not."""

import itertools
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from slimfleet.compression import BadInput, Evaluation, Examples

counter = itertools.count(3)


class T:
    """Four numbers, two classes."""

    name = "t"

    def __init__(self, partitions, seed, alpha=1.0):
        self.partitions, self.seed = partitions, seed

    def build_model(self):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def example_inputs(self):
        return (torch.zeros(1, 4),)

    def load(self, partition):
        rng = np.random.default_rng([self.seed, partition])
        x = rng.normal(size=(12, 4)).astype(np.float32)
        return Examples(torch.from_numpy(x), torch.from_numpy((x[:, 0] > 0).astype(np.int64)))

    def loss(self, outputs, targets):
        return functional.cross_entropy(outputs, targets)

    def evaluate(self, model):
        examples = self.load(10_000)
        with torch.no_grad():
            outputs = model(examples.inputs)
        right = (outputs.argmax(1) == examples.targets).float().mean()
        return Evaluation(float(functional.cross_entropy(outputs, examples.targets)), float(right))


class Boom(Exception):
    def __str__(self):
        raise RuntimeError("even this fails")


def raises(member, error):
    """T with a member that raises."""

    def method(self, *_):
        raise error

    value = property(method, lambda self, value: None) if member in ("name", "partitions") else method
    return type(f"Raising{member}", (T,), {member: value})


def gives(member, value):
    """T with a member that gives something else; a function is called with the right answer."""

    def method(self, *given):
        right = getattr(T, member)(self, *given)
        return value(right) if callable(value) else value

    return type(f"Giving{member}", (T,), {member: method})


def model(make):
    """T around another model."""
    return type("Around", (T,), {"build_model": lambda self: make()})


class Forward(nn.Module):
    """A network whose output goes through a function."""

    def __init__(self, then):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.then = then

    def forward(self, x):
        return self.then(self.net(x))


def changed(**values):
    return type("Changed", (T,), values)


def examples(change):
    return gives("load", lambda right: Examples(*change(right.inputs, right.targets)))


class LateLoad(T):
    def load(self, partition):
        if partition == 3:
            raise KeyError("no such file")
        return super().load(partition)


class LateShape(T):
    def load(self, partition):
        right = super().load(partition)
        return Examples(right.inputs[:, :3], right.targets) if partition == 3 else right


class OddLabel(T):
    """One label out of bounds, where no rehearsal looks."""

    def load(self, partition):
        right = super().load(partition)
        right.targets[-1] = 7
        return right


class LateLoss(T):
    calls = 0

    def loss(self, outputs, targets):
        LateLoss.calls += 1
        if LateLoss.calls > 90:
            raise ZeroDivisionError("late")
        return super().loss(outputs, targets)


class LateEvaluate(T):
    calls = 0

    def evaluate(self, model):
        LateEvaluate.calls += 1
        if LateEvaluate.calls > 2:
            raise ZeroDivisionError("late")
        return super().evaluate(model)


class Quits(T):
    def __init__(self, partitions, seed, alpha):
        sys.exit(3)


class Breaks(T):
    def __init__(self, partitions, seed, alpha):
        raise OSError(2, "No such file or directory", "data.csv")


class Small(T):
    def __init__(self, partitions, seed, alpha):
        super().__init__(3, seed)


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 2)
        self.lock = __import__("threading").Lock()

    def forward(self, x):
        return self.net(x)


def of_type(dtype):
    return lambda: nn.Sequential(nn.Linear(4, 2, dtype=dtype))


def nan_weights():
    made = nn.Linear(4, 2)
    nn.init.constant_(made.weight, float("nan"))
    return made


class Growing(nn.Linear):
    def __init__(self):
        super().__init__(4, 2)
        self.register_buffer("low", torch.zeros(0))

    def forward(self, x):
        y = super().forward(x)
        self.low = y.detach().amin(0)
        return y


def untrained():
    return nn.Linear(4, 2).requires_grad_(False)


TASKS = {
    # name -> (task, words of the one line)
    "init exits": (Quits, ["when it is made", "sys.exit(3)"]),
    "init raises": (Breaks, ["when it is made", "FileNotFoundError", "data.csv"]),
    "name raises": (raises("name", ValueError("a")), ["name", "ValueError: a"]),
    "name is none": (changed(name=None), ["name", "None"]),
    "name is empty": (changed(name=""), ["name", "''"]),
    "name is long": (changed(name="x" * 5000), ["name", "64"]),
    "name has lines": (changed(name="a\nb\x1b[31m"), ["name", "printable"]),
    "partitions raises": (raises("partitions", ValueError("a")), ["partitions", "ValueError: a"]),
    "partitions is none": (
        changed(partitions=property(lambda self: None, lambda self, value: None)),
        ["partitions"],
    ),
    "few partitions": (Small, ["partitions", "is 3"]),
    "no build_model": (changed(build_model=None), ["build_model", "TypeError"]),
    "build_model raises": (
        raises("build_model", RuntimeError("line\nline")),
        ["build_model", "RuntimeError: line line"],
    ),
    "build_model exits": (raises("build_model", SystemExit("bye")), ["build_model", "sys.exit(bye)"]),
    "build_model gives none": (gives("build_model", None), ["build_model", "None", "torch.nn.Module"]),
    "build_model gives a class": (gives("build_model", lambda right: nn.Linear), ["build_model", "Module"]),
    "build_model gives another each time": (
        model(lambda: (lambda n: nn.Sequential(nn.Linear(4, n), nn.Linear(n, 2)))(next(counter))),
        ["build_model", "always be the same"],
    ),
    "no parameters": (model(nn.Identity), ["build_model", "without parameters"]),
    "frozen": (model(untrained), ["build_model", "without parameters"]),
    "meta model": (model(lambda: nn.Linear(4, 2, device="meta")), ["build_model", "meta"]),
    "nan weights": (model(nan_weights), ["build_model", "weight", "NaN"]),
    "complex model": (model(of_type(torch.complex64)), ["the model on example_inputs", "dtype"]),
    "training gives a buffer a shape": (
        model(Growing),
        ["the model on example_inputs", "'low'", "shape", "build_model"],
    ),
    "a lock in the model": (model(Hidden), ["build_model", "copied", "pickle"]),
    "the model raises": (
        model(lambda: Forward(lambda y: 1 / 0)),
        ["the model on example_inputs", "ZeroDivisionError"],
    ),
    "the model gives a tuple": (model(lambda: Forward(lambda y: (y, y))), ["the model", "tuple"]),
    "the model gives a dict": (model(lambda: Forward(lambda y: {"y": y})), ["the model", "dict"]),
    "the model gives none": (model(lambda: Forward(lambda y: None)), ["the model", "None"]),
    "the model gives a number": (model(lambda: Forward(lambda y: y.sum())), ["the model"]),
    "the model detaches": (model(lambda: Forward(lambda y: y.detach())), ["loss", "no gradient"]),
    "the model gives NaN": (model(lambda: Forward(lambda y: y * float("nan"))), ["loss", "nan"]),
    "example_inputs raises": (raises("example_inputs", Boom()), ["example_inputs", "Boom"]),
    "example_inputs gives none": (gives("example_inputs", None), ["example_inputs", "None"]),
    "example_inputs gives a tensor": (gives("example_inputs", lambda r: r[0]), ["example_inputs", "tuple"]),
    "example_inputs gives nothing": (gives("example_inputs", ()), ["example_inputs"]),
    "example_inputs gives numpy": (
        gives("example_inputs", lambda r: (r[0].numpy(),)),
        ["example_inputs", "ndarray"],
    ),
    "example_inputs are refused": (
        gives("example_inputs", (torch.zeros(1, 5),)),
        ["example_inputs", "RuntimeError"],
    ),
    "example_inputs of another type": (
        gives("example_inputs", (torch.zeros(1, 4).double(),)),
        ["example_inputs"],
    ),
    "example_inputs on meta": (
        gives("example_inputs", (torch.zeros(1, 4, device="meta"),)),
        ["example_inputs", "meta"],
    ),
    "a batch of examples": (
        gives("example_inputs", (torch.zeros(3, 4),)),
        ["example_inputs", "batch of one"],
    ),
    "load raises": (raises("load", KeyError("x")), ["load(0)", "KeyError: 'x'"]),
    "load raises bad input": (raises("load", BadInput("the disk is out")), ["load(0)", "the disk is out"]),
    "load exits": (raises("load", SystemExit(0)), ["load(0)", "sys.exit(0)"]),
    "load gives none": (gives("load", None), ["load(0)", "None", "Examples"]),
    "load gives a tuple": (gives("load", lambda r: (r.inputs, r.targets)), ["load(0)", "tuple", "Examples"]),
    "load gives numpy": (examples(lambda x, y: (x.numpy(), y.numpy())), ["load(0)", "ndarray"]),
    "load gives lists": (examples(lambda x, y: (x.tolist(), y.tolist())), ["load(0)", "list"]),
    "load gives nothing": (examples(lambda x, y: (x[:0], y[:0])), ["load(0)", "no examples"]),
    "load gives unequal lengths": (
        examples(lambda x, y: (x, y[:-1])),
        ["load(0)", "12 inputs and 11 targets"],
    ),
    "load gives doubles": (examples(lambda x, y: (x.double(), y)), ["load(0)", "RuntimeError"]),
    "load gives another shape": (examples(lambda x, y: (x[:, :3], y)), ["load(0)", "RuntimeError"]),
    "load gives float targets": (examples(lambda x, y: (x, y.float())), ["loss", "RuntimeError"]),
    "load gives meta": (examples(lambda x, y: (x.to("meta"), y)), ["load(0)", "meta"]),
    "load gives sparse": (examples(lambda x, y: (x.to_sparse(), y)), ["load(0)", "sparse"]),
    "load gives NaN": (examples(lambda x, y: (x * float("nan"), y)), ["load(0)", "NaN"]),
    "load gives a scalar": (examples(lambda x, y: (x, y[0])), ["load(0)"]),
    "load gives a wrong label": (examples(lambda x, y: (x, y + 5)), ["loss", "Target"]),
    "load gives a graph": (examples(lambda x, y: (x.requires_grad_() * 1, y)), ["load(0)", "gradient"]),
    "load raises on one device": (LateLoad, ["load(3)", "KeyError", "no such file"]),
    "load gives another shape on one device": (LateShape, ["load(3)", "RuntimeError"]),
    "one label is wrong": (OddLabel, ["Target 7"]),
    "loss raises": (raises("loss", ValueError("no")), ["loss", "ValueError: no"]),
    "loss gives a number": (gives("loss", 0.5), ["loss", "0.5"]),
    "loss gives none": (gives("loss", None), ["loss", "None"]),
    "loss gives a vector": (gives("loss", lambda right: right.repeat(3)), ["loss", "[3]"]),
    "loss gives no gradient": (gives("loss", lambda right: right.detach()), ["loss", "no gradient"]),
    "loss gives NaN": (gives("loss", lambda right: right * float("nan")), ["loss", "nan"]),
    "loss gives infinity": (gives("loss", lambda right: right / 0), ["loss", "inf"]),
    "loss raises later": (LateLoss, ["loss", "ZeroDivisionError: late"]),
    "evaluate raises": (raises("evaluate", ValueError("no")), ["evaluate", "ValueError: no"]),
    "evaluate exits": (raises("evaluate", SystemExit(4)), ["evaluate", "sys.exit(4)"]),
    "evaluate raises later": (LateEvaluate, ["evaluate", "ZeroDivisionError: late"]),
    "evaluate gives none": (gives("evaluate", None), ["evaluate", "None", "Evaluation"]),
    "evaluate gives a tuple": (gives("evaluate", (0.1, 0.5)), ["evaluate", "tuple", "Evaluation"]),
    "evaluate gives words": (gives("evaluate", Evaluation("low", "high")), ["evaluate", "'low'"]),
    "evaluate gives no loss": (gives("evaluate", Evaluation(None, 0.5)), ["evaluate", "loss", "None"]),
    "evaluate claims 750 %": (gives("evaluate", Evaluation(0.1, 7.5)), ["evaluate", "7.5", "from 0 to 1"]),
    "evaluate claims less than nothing": (gives("evaluate", Evaluation(0.1, -0.1)), ["evaluate", "-0.1"]),
    "evaluate gives NaN": (gives("evaluate", Evaluation(0.1, float("nan"))), ["evaluate", "nan"]),
    "evaluate gives a NaN loss": (gives("evaluate", Evaluation(float("nan"), 0.5)), ["evaluate", "nan"]),
    "evaluate gives a vector": (gives("evaluate", Evaluation(torch.zeros(3), 0.5)), ["evaluate", "loss"]),
    "builtins": (int, ["int"]),
}


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.temperature = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        return self.net(x) * self.temperature


OTHERS = {"interrupted": raises("load", KeyboardInterrupt()), "with a scalar": model(Scaled)}


def __getattr__(name):
    """The tasks by name, for `bad_tasks:NAME`."""
    if name in TASKS:
        return TASKS[name][0]
    if name in OTHERS:
        return OTHERS[name]
    raise AttributeError(name)
