"""Cases: the models that are compressed, how each is trained before, and what has to be reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from slimfleet.client.tasks import TASKS
from slimfleet.compression import Task
from slimfleet.compression.model.training.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One model of a task."""

    name: str
    task: str
    options: Mapping[str, Any]
    training: Tuning
    """Of the model that is compressed, to convergence: the best epoch on validation data is kept."""
    recipe: str = ""
    parameters: float = 1.0
    """Targets: shares of the trained model, at most."""
    flops: float = 1.0
    size: float = 1.0
    loss: float = 1.0
    """Points of test accuracy."""
    teachers: tuple[str, ...] = ()
    """Cases whose models, of the same seed, teach it; the model as it was, where there are none."""
    student: Mapping[str, Any] = field(default_factory=dict)
    """Options of the model that learns from this one and stands in its place; none where it is compressed itself."""

    def loaded(self) -> Task:
        """The task of the model."""
        return _task(self.task, tuple(self.options.items()))

    def of_student(self) -> Task:
        """The task of the student."""
        return _task(self.task, tuple({**self.options, **self.student}.items()))

    def itself(self) -> Case:
        """The same case without its student and its teachers."""
        return replace(self, student={}, teachers=())


@cache
def _task(name: str, options: tuple[tuple[str, Any], ...]) -> Task:
    return TASKS[name](partitions=1, seed=0, **dict(options))


def _adamw(epochs: float, learning_rate: float, **others: Any) -> Tuning:
    settings = {"weight_decay": 0.01, "warmup": 0.1, **others}
    return Tuning(epochs=epochs, optimizer="adamw", learning_rate=learning_rate, **settings)


CASES: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case(
            name="lenet-300-100",
            task="fashion-mnist",
            options={"model": "lenet-300-100"},
            training=_adamw(20, 2e-3),
            # SGD: AdamW, at any rate, ends a point lower.
            recipe="sparsify: share=0.95, epochs=20, learning_rate=0.05, weight_decay=0.0001, soft_labels=0.7; "
            "quantise: weights=3, scheme=symmetric, epochs=6, learning_rate=0.0005, soft_labels=0.7; "
            "round: mantissa=5",
            teachers=("resnet20",),
            size=1 / 80,
            loss=0.5,
        ),
        Case(
            name="lenet-5",
            task="fashion-mnist",
            options={"model": "lenet-5"},
            training=_adamw(12, 2e-3),
            # Without its slow start the rate, which is worth half a point, diverges.
            recipe="sparsify: share=0.953, epochs=16, learning_rate=0.02, warmup=0.3, weight_decay=0.0002, "
            "soft_labels=0.8; quantise: weights=3, scheme=symmetric, epochs=6, learning_rate=0.001, "
            "soft_labels=0.8; round: mantissa=5",
            teachers=("resnet20",),
            size=1 / 80,
            loss=0.5,
        ),
        Case(
            name="mobilenet",
            task="fashion-mnist",
            options={"model": "mobilenet"},
            training=_adamw(8, 5e-3),
            recipe="prune: share=0.74, epochs=3, learning_rate=0.02, weight_decay=0.0001, soft_labels=0.7; "
            "distil: epochs=4, learning_rate=0.03, weight_decay=0.0001; "
            "quantise: weights=3, epochs=2, learning_rate=0.001, soft_labels=0.7; fold; round: mantissa=5",
            teachers=("resnet20",),
            parameters=0.30,
            flops=0.27,
            size=1 / 33,
        ),
        Case(
            name="resnet20",
            task="fashion-mnist",
            options={"model": "resnet20"},
            training=Tuning(
                epochs=10,
                learning_rate=0.1,
                batch_size=128,
                weight_decay=5e-4,
                warmup=0.1,
                precision="bfloat16",
            ),
            recipe="prune: share=0.69, of=parameters, epochs=4, learning_rate=0.03, weight_decay=0.0001, "
            "batch_size=128, soft_labels=0.7, precision=bfloat16; "
            "distil: epochs=8, learning_rate=0.05, weight_decay=0.0001, batch_size=128, precision=bfloat16; "
            "sparsify: share=0.63, epochs=4, learning_rate=0.02, weight_decay=0.0001, batch_size=128, "
            "soft_labels=0.7, precision=bfloat16; "
            "quantise: weights=3, epochs=3, learning_rate=0.0005, batch_size=128, soft_labels=0.7, "
            "precision=bfloat16; fold; round: mantissa=5",
            parameters=0.33,
            flops=0.33,
            size=1 / 50,
        ),
        Case(
            name="speech-gru",
            task="spoken-digits",
            options={"model": "gru"},
            training=_adamw(30, 5e-3),
            recipe="prune: share=0.78, epochs=30, optimizer=adamw, learning_rate=0.005, soft_labels=0.7; "
            "quantise: weights=4, epochs=15, soft_labels=0.7; round: mantissa=5",
            parameters=0.40,
            flops=0.25,
            size=1 / 33,
        ),
        Case(
            name="minilm",
            task="reuters-r8",
            options={"model": "minilm", "tokens": "wordpiece"},
            training=_adamw(2, 1e-4, precision="bfloat16"),
            student={"model": "transformer"},
            recipe="distil: epochs=10, optimizer=adamw, learning_rate=0.003, warmup=0.1, weight_decay=0.01; "
            "quantise: weights=4, epochs=3, soft_labels=0.7; round",
            parameters=0.20,
            flops=0.10,
            size=1 / 60,
            loss=2.0,
        ),
    )
}

"""In the order of docs/results/models.md."""

EIGHT_BITS = "quantise: weights=8, activations=8"


def eight_bits(case: Case) -> str:
    """Eight bits for weights and activations; batch normalisations are folded, where the model has any."""
    return f"{EIGHT_BITS}; fold" if "fold" in case.recipe else EIGHT_BITS


PEERS: Mapping[str, tuple[str, ...]] = {
    "nncodec": ("lenet-300-100", "lenet-5", "mobilenet", "resnet20", "speech-gru"),
    "torch_pruning": ("lenet-5", "resnet20"),
    "torchao": ("lenet-300-100", "lenet-5", "mobilenet", "resnet20"),
}
"""A peer -> the models that it is compared on."""

ALONE: Mapping[str, Case] = {
    case.name: case
    for case in (
        Case(name="images-cnn", task="fashion-mnist", options={"model": "cnn"}, training=_adamw(8, 3e-3)),
        Case(name="speech-lstm", task="spoken-digits", options={"model": "lstm"}, training=_adamw(20, 5e-3)),
        Case(name="sensors-cnn1d", task="activities", options={"model": "cnn1d"}, training=_adamw(8, 3e-3)),
        Case(
            name="text-transformer",
            task="reuters-r8",
            options={"model": "transformer"},
            training=_adamw(6, 3e-3),
        ),
    )
}
"""On which each technique is tried by itself."""
