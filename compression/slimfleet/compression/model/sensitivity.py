"""Sensitivity: how a model fares where one part of it alone is changed, more and more, without any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import Curve

__all__ = ["Sensitivity", "curves", "sensitivities", "sensitivities_of_tensors"]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What one part of a model loses."""

    part: str
    """A tensor or a channel group, by name."""
    x: tuple[float, ...]
    """How much it is changed: bits of a weight, or the share that is removed."""
    loss: tuple[float, ...]
    """On the validation data, at each `x`."""
    accuracy: tuple[float | None, ...]


def sensitivities(
    central: CentralTask,
    parts: Sequence[str],
    x: Sequence[float],
    changed: Callable[[str, float], nn.Module],
    what: str,
) -> tuple[Sensitivity, ...]:
    """The sensitivity of each part; `changed(part, x)` makes the model in which it alone is changed."""
    found = []
    for done, part in enumerate(parts):
        evaluations = [central.validated(changed(part, at)) for at in x]
        found.append(
            Sensitivity(
                part, tuple(x), tuple(e.loss for e in evaluations), tuple(e.accuracy for e in evaluations)
            )
        )
        central.progress(what, done + 1, len(parts))
    return tuple(found)


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

    return sensitivities(central, names, x, with_one, "sensitivity of each tensor")


def curves(title: str, found: Sequence[Sensitivity]) -> Mapping[str, tuple[Curve, ...]]:
    """Plots of the validation loss, and of accuracy where the task has one, for a report."""
    plots = {f"{title}: validation loss": tuple(Curve(each.part, each.x, each.loss) for each in found)}
    scored = tuple(
        Curve(each.part, each.x, tuple(score for score in each.accuracy if score is not None))
        for each in found
        if None not in each.accuracy
    )
    return plots | ({f"{title}: validation accuracy": scored} if scored else {})
