"""Tasks of many kinds around small models: `T` classifies four numbers, the others do what people also train."""

from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from slimfleet.compression import Evaluation, Examples


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
        x = np.random.default_rng([self.seed, partition]).normal(size=(17, 4)).astype(np.float32)
        return self.examples(torch.from_numpy(x))

    def examples(self, x):
        return Examples(x, (x[:, 0] > 0).long())

    def loss(self, outputs, targets):
        return functional.cross_entropy(outputs, targets)

    def evaluate(self, model):
        unseen = self.load(10_000)
        with torch.no_grad():
            return Evaluation(float(self.loss(model(*unseen.arguments), unseen.targets)))


class Regression(T):
    """One number a row, by hand."""

    def build_model(self):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))

    def examples(self, x):
        return Examples(x, x.sum(1, keepdim=True))

    def loss(self, outputs, targets):
        return (outputs - targets).square().mean()


class Labels(T):
    """Any of two labels, as floats."""

    def examples(self, x):
        return Examples(x, (x[:, :2] > 0).float())

    def loss(self, outputs, targets):
        return functional.binary_cross_entropy_with_logits(outputs, targets)


class Autoencoder(T):
    """The inputs are the targets."""

    def build_model(self):
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))

    def examples(self, x):
        return Examples(x, x)

    def loss(self, outputs, targets):
        return functional.mse_loss(outputs, targets)


class Tagged(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.output = nn.GRU(1, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.output(self.gru(x[:, :, None])[0])


class Sequence(T):
    """A class for each of four steps; the classes come last."""

    def build_model(self):
        return Tagged()

    def examples(self, x):
        return Examples(x, (x > 0).long())

    def loss(self, outputs, targets):
        return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


Pair = namedtuple("Pair", ["logits", "other"])


@dataclass
class Output:
    logits: Tensor
    other: Tensor


class Structured(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.a, self.o, self.b, self.kind = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(4, 3), kind

    def forward(self, x):
        return self.kind(self.o(self.a(x).relu()), self.b(x))


def structured(kind, read):
    """T around a model that gives a structure, of which the loss reads the logits."""
    return type(
        "Structured",
        (T,),
        {
            "build_model": lambda self: Structured(kind),
            "loss": lambda self, outputs, targets: functional.cross_entropy(read(outputs), targets),
        },
    )


Dictionary = structured(lambda logits, other: {"other": other, "logits": logits}, lambda o: o["logits"])
Tuple = structured(lambda logits, other: (other, logits), lambda o: o[1])
Listed = structured(lambda logits, other: [logits, [other]], lambda o: o[0])
Named = structured(Pair, lambda o: o.logits)
Dataclass = structured(Output, lambda o: o.logits)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(3, 8), nn.Embedding(5, 8)
        self.both, self.o = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, numbers, words):
        return self.o(self.both((self.left(numbers) + self.right(words)).relu()).relu())


class TwoInputs(T):
    """Three numbers and a word."""

    def build_model(self):
        return Two()

    def example_inputs(self):
        return torch.zeros(1, 3), torch.zeros(1, dtype=torch.long)

    def examples(self, x):
        return Examples((x[:, :3], (x[:, 3] > 0).long()), (x[:, 0] > 0).long())


class Lazy(T):
    def build_model(self):
        return nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(2))


class OldWeightNorm(T):
    """Its weight is the result of a computation, as it is built."""

    def build_model(self):
        with_norm = super().build_model()
        torch.nn.utils.weight_norm(with_norm[0])
        return with_norm


class Counts(T):
    """A loss that takes no zeros: the targets of partition 0 stand in."""

    def examples(self, x):
        return Examples(x, (x[:, 0] > 0).long() + 1)

    def loss(self, outputs, targets):
        if not targets.all():
            raise ValueError("class 0 is not a class")
        return functional.cross_entropy(outputs, targets - 1)


class Declared(Counts):
    """The same, which says what stands in."""

    def example_targets(self):
        return torch.ones(1, dtype=torch.long)


class Unloaded(Counts):
    def load(self, partition):
        raise FileNotFoundError("no data here")


class DeclaredUnloaded(Declared, Unloaded):
    """What a coordinator without data has."""


class Chatty(T):
    def build_model(self):
        print("building")
        return super().build_model()


class Net(nn.Module):
    """Two layers, with what `given` adds to them."""

    def __init__(self, **given):
        super().__init__()
        self.a, self.o = nn.Linear(4, 8), nn.Linear(8, 2)
        for name, value in given.items():
            setattr(self, name, value)

    def forward(self, x):
        return self.o(self.a(x).relu())


class Asserting(Net):
    def forward(self, x):
        hidden = self.a(x).relu()
        assert hidden.shape[1] == 8, "eight"
        return self.o(hidden)


class Caching(Net):
    def forward(self, x):
        self.cache = self.scale * 2
        return self.o(self.a(x + self.cache).relu())


class Compared(Net):
    def forward(self, x):
        return self.o(self.a(x).relu()), x > 0


class Branching(Net):
    def forward(self, x):
        hidden = self.a(x).relu()
        return self.o(hidden) if hidden.sum() > 0 else self.o(hidden * 2)


class Noisy(Net):
    def forward(self, x):
        hidden = self.a(x)
        return self.o(hidden + torch.randn_like(hidden))


class Stateful(Net):
    def get_extra_state(self):
        return {"epoch": 3}

    def set_extra_state(self, state):
        pass


class Scaling(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return (x * self.scale)[:, :2]


def parameter(value, trained=True):
    return nn.Parameter(value, requires_grad=trained)


AWKWARD = {
    "bfloat16": lambda: Net().to(torch.bfloat16),
    "lazy": lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(2)),
    "scripted": lambda: torch.jit.script(nn.Linear(4, 2)),
    "with a scripted layer": lambda: nn.Sequential(torch.jit.script(nn.Linear(4, 8)), nn.Linear(8, 2)),
    "quantised": lambda: torch.ao.quantization.quantize_dynamic(Net(), {nn.Linear}),
    "extra state": Stateful,
    "integer parameter": lambda: Net(table=parameter(torch.arange(8), trained=False)),
    "empty parameter": lambda: Net(prompt=parameter(torch.zeros(0, 3))),
    "old weight norm": lambda: nn.Sequential(torch.nn.utils.weight_norm(nn.Linear(4, 8)), nn.Linear(8, 2)),
    "complex": lambda: Net(phase=parameter(torch.ones(8, dtype=torch.complex64))),
    "asserts": Asserting,
    "caches": lambda: Caching(scale=parameter(torch.ones(4))),
    "compares": Compared,
    "branches": Branching,
    "noise": Noisy,
    "without parameters": nn.Identity,
    "without a product": Scaling,
    "frozen": lambda: Net().requires_grad_(False),
}


def __getattr__(name):
    """The awkward models by name, in the task `T`; where they give two outputs, its loss takes the first."""
    if name in AWKWARD:
        make = AWKWARD[name]
        loss = (
            T.loss if name != "compares" else lambda self, outputs, targets: T.loss(self, outputs[0], targets)
        )
        return type(name, (T,), {"build_model": lambda self: make(), "loss": loss})
    raise AttributeError(name)
