"""Threshold: how far a change may go before a model loses more than is allowed, found by halving, without training."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import Curve
from slimfleet.compression.model.training.tuning import Tuning, tune
from slimfleet.compression.task import Evaluation

__all__ = ["largest_kept", "largest_share", "points_lost"]

HALVINGS = 8


def points_lost(now: Evaluation, before: Evaluation) -> float:
    """Points of accuracy lost, at most 100; percent of the loss gained where a task has no accuracy."""
    if now.accuracy is not None and before.accuracy is not None:
        return 100 * (before.accuracy - now.accuracy)
    return 100 * (now.loss - before.loss) / max(abs(before.loss), 1e-12)


def largest_share(
    model: nn.Module, central: CentralTask, changed: Callable[[float], nn.Module], points: float
) -> tuple[float, Curve]:
    """The largest share in 0..1 at which `changed(share)` loses at most `points` on the validation data, to 1/256; and
    what was tried. 0 where even the least share loses more."""
    before = central.validated(model)
    tried = {0.0: 0.0}

    def keeps(share: float) -> bool:
        _, settled = tune(SlimModel(changed(share)), central, Tuning(epochs=0))
        tried[share] = points_lost(settled.validation, before)
        return tried[share] <= points

    found = largest_kept(keeps, central, "finding the share")
    shares = tuple(sorted(tried))
    return found, Curve("share removed, points lost", shares, tuple(tried[share] for share in shares))


def largest_kept(keeps: Callable[[float], bool], central: CentralTask, what: str) -> float:
    """The largest share in 0..1 for which `keeps` holds, to 1/256, where it holds up to some share; 0 is not tried."""
    low, high = 0.0, 1.0
    for done in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if keeps(middle) else (low, middle)
        central.progress(what, done + 1, HALVINGS)
    return low
