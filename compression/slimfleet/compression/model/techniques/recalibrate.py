"""Batch-norm recalibration: the statistics of batch normalisations are estimated anew, see `recalibration`. It trains
nothing, and takes some forward passes. Techniques that train nothing do it themselves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge, Le

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.technique import LayerChange, TechniqueReport
from slimfleet.compression.model.training.recalibration import has_statistics, recalibrated

__all__ = ["Recalibrate", "recalibrate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recalibrate:
    """Settings of `recalibrate`."""

    examples: Annotated[int, Ge(2), Le(1_000_000)] = 512
    """Training examples that the statistics are taken from."""


def recalibrate(
    slim: SlimModel, central: CentralTask, settings: Recalibrate
) -> tuple[SlimModel, TechniqueReport]:
    """New statistics, whether they are better or not. Raises BadInput where the model has no batch normalisation."""
    if not has_statistics(slim.model):
        raise BadInput("recalibrate finds no batch normalisation with statistics in the model: leave it out")
    model = recalibrated(slim.model, central, settings.examples)
    change = LayerChange("", f"statistics of {min(settings.examples, len(central.training)):,} examples")
    return replace(slim, model=model), TechniqueReport(changed=(change,))
