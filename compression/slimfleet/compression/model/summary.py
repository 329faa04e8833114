"""Summary of a compression: what became of the model, as plain data for a file and for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from slimfleet.compression.model.compress import Compressed
from slimfleet.compression.model.evaluation.measuring import Measured
from slimfleet.compression.model.recipes.applying import Applied
from slimfleet.compression.model.saving.stored import bytes_of_layer
from slimfleet.compression.model.target import Target
from slimfleet.compression.task import Evaluation

__all__ = ["bound_of", "lost", "missed", "summary_of"]


def summary_of(compressed: Compressed) -> dict[str, Any]:
    """The content of summary.json: `before`, `after`, `steps`, `targets`, `layers`, `met` and what stopped it.

    `accuracy` and `loss` of `before` and `after` are on test data, those of the steps on validation data.
    """
    return {
        "before": _numbers(compressed.before, compressed.tested_before),
        "after": _numbers(compressed.after, compressed.tested_after),
        "points_lost": compressed.points_lost,
        "max_loss": compressed.request.max_loss,
        "steps": [_step(step, compressed) for step in compressed.steps],
        "targets": [
            {
                "target": str(target),
                "limit": target.limit(compressed.before),
                "reached": target.of(compressed.after),
                "met": target.of(compressed.after) <= target.limit(compressed.before),
            }
            for target in compressed.request.targets
        ],
        "layers": [asdict(each) for each in compressed.layers],
        "met": compressed.met,
        "bound": bound_of(compressed),
        "seed": compressed.request.seed,
    }


def bound_of(compressed: Compressed) -> str | None:
    """What kept a compression from its targets, in one line; None where they are met."""
    for target in missed(compressed):
        reached, limit = target.of(compressed.after), target.limit(compressed.before)
        return f"{target}: {_amount(reached)} is the least that was reached, the limit is {_amount(limit)}"
    if compressed.points_lost > compressed.request.max_loss:
        return f"{lost(compressed)} at these targets, {compressed.request.max_loss:g} allowed"
    return None


def missed(compressed: Compressed) -> list[Target]:
    """Targets that were not reached."""
    before, after = compressed.before, compressed.after
    return [each for each in compressed.request.targets if each.of(after) > each.limit(before)]


def lost(compressed: Compressed) -> str:
    """What it cost on test data, in a few words."""
    points = compressed.points_lost
    if compressed.tested_before.accuracy is None:
        return f"{abs(points):.2f} % {'more' if points >= 0 else 'less'} loss"
    return f"{abs(points):.2f} points of accuracy {'lost' if points >= 0 else 'gained'}"


def _amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _numbers(measured: Measured, tested: Evaluation) -> dict[str, Any]:
    return asdict(measured) | {"accuracy": tested.accuracy, "loss": tested.loss}


def _step(step: Applied, compressed: Compressed) -> dict[str, Any]:
    changes: Mapping[str, Any] = {
        "changed": {each.layer: each.change for each in step.report.changed},
        "whole": {
            each.layer: {"why": each.change, "bytes": round(bytes_of_layer(compressed.layers, each.layer))}
            for each in step.report.whole
        },
    }
    return {
        "step": str(step.step),
        "after": asdict(step.after),
        "training_steps": step.report.steps,
        "seconds": step.seconds,
        **changes,
    }
