"""Sensitivity: how a model fares where one part of it alone is changed, more and more, without any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.divergence import divergence
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import Curve, Plot
from slimfleet.compression.task import Evaluation
from slimfleet.compression.validation_split import evaluate_on

__all__ = ["Sensitivity", "plots_of", "sensitivities", "sensitivities_of_tensors"]

COMPARED, BATCH = 1024, 128
"""Validation examples that are looked at, and how many at a time."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What one part of a model loses."""

    part: str
    """A tensor or a channel group, by name."""
    x: tuple[float, ...]
    """How much it is changed: bits of a weight, or the share that is removed."""
    loss: tuple[float, ...]
    """On the first 1024 validation examples, at each `x`."""
    accuracy: tuple[float | None, ...]
    divergence: tuple[float, ...]
    """Of the outputs from those of the model as it was (see `divergence`). It shows what few validation examples hide:
    their loss may even fall."""


def sensitivities(
    model: nn.Module,
    central: CentralTask,
    parts: Sequence[str],
    x: Sequence[float],
    changed: Callable[[str, float], nn.Module],
) -> tuple[Sensitivity, ...]:
    """The sensitivity of each part of `model`; `changed(part, x)` makes the one in which it alone is changed."""
    compared = _Compared(model, central)
    found = []
    for done, part in enumerate(parts):
        points = [compared.to(changed(part, at)) for at in x]
        evaluations, divergences = zip(*points, strict=True)
        found.append(
            Sensitivity(
                part,
                tuple(x),
                tuple(each.loss for each in evaluations),
                tuple(each.accuracy for each in evaluations),
                divergences,
            )
        )
        central.progress("sensitivity", done + 1, len(parts))
    return tuple(found)


class _Compared:
    """A model, and what it gives for some of the validation examples."""

    def __init__(self, model: nn.Module, central: CentralTask) -> None:
        self._task = central.task
        self._examples = central.validation.take(slice(COMPARED))
        _, self._reference = self._seen(model)

    def _seen(self, model: nn.Module) -> tuple[Evaluation, list[Any]]:
        """How good a model is, and its outputs, batch by batch, from one pass."""
        outputs: list[Any] = []
        watching = model.register_forward_hook(lambda _, given, made: outputs.append(made))
        try:
            return evaluate_on(self._task, model, self._examples, BATCH), outputs
        finally:
            watching.remove()

    def to(self, other: nn.Module) -> tuple[Evaluation, float]:
        """The other model on these examples, and its divergence."""
        evaluation, outputs = self._seen(other)
        apart = 0.0
        for number, (ours, theirs) in enumerate(zip(outputs, self._reference, strict=True)):
            targets = self._examples.targets[number * BATCH : (number + 1) * BATCH]
            apart += float(divergence(ours, theirs, targets)) * len(targets)
        return evaluation, apart / len(self._examples)


def sensitivities_of_tensors(
    slim: SlimModel,
    central: CentralTask,
    names: Sequence[str],
    x: Sequence[float],
    changed: Callable[[str, Tensor, float], Tensor],
) -> tuple[Sensitivity, ...]:
    """The sensitivity of each of the tensors of two or more dimensions; `changed(name, weight, x)` is the new one."""
    model = slim.copy().model
    weights = weights_of(model)
    original = {name: weight.detach().clone() for name, weight in weights.items()}

    def with_one(name: str, at: float) -> nn.Module:
        for other, weight in weights.items():
            weight.data.copy_(changed(name, original[name], at) if other == name else original[other])
        return model

    return sensitivities(slim.model, central, names, x, with_one)


def plots_of(title: str, x: str, found: Sequence[Sensitivity]) -> Mapping[str, Plot]:
    """Plots of the validation loss, and of accuracy where the task has one, for a report; `x` is what is changed."""
    losses = tuple(Curve(each.part, each.x, each.loss) for each in found)
    plots = {f"{title}: validation loss": Plot(x, "validation loss", losses)}
    scored = tuple(
        Curve(each.part, each.x, tuple(score for score in each.accuracy if score is not None))
        for each in found
        if None not in each.accuracy
    )
    if scored:
        plots[f"{title}: validation accuracy"] = Plot(x, "validation accuracy", scored)
    return plots
