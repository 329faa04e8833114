"""Published versions: the global model on a grid, each version close to the one before.

A level moves only where the model has left it by clearly more than half a step, so that rounding noise is never sent.
The model is always compared with what was published, so what is held back now counts in full against the next version:
that is error feedback on the server's side (Tang et al. 2019, "DoubleSqueeze", algorithm 1), without a residual to
keep.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.downlink.snapshot import Snapshot
from slimfleet.compression.codec.quantise.grid import FRACTION, LARGEST_TABLE_LEVEL, LARGEST_VALUE
from slimfleet.compression.codec.quantise.uniform import model_units
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

HYSTERESIS = 0.15
"""Steps beyond the half that a value must be off its level before the level moves."""
_NEW_UNIT = 2.0
"""A tensor gets a new unit when the one that would suit it is this many times larger or smaller."""
_VECTOR_SHIFT = 2
"""Biases and norms act on whole channels: their steps are four times finer."""


def publish(tensors: Tensors, schema: ModelSchema, bits: int, before: Snapshot | None) -> Snapshot:
    """The next version to publish of the model `tensors`, given the one `before`; None starts afresh.

    `bits` sets the steps as in `quantise_deadzone`. Every value is within half a step of the model, or half a step and
    `HYSTERESIS` where its level was kept. Raises PayloadError: schema or nonfinite.
    """
    checked = schema.check(tensors)
    for spec in schema.weights:
        # Written so that NaN fails too.
        if not float(np.abs(checked[spec.name]).max(initial=0)) <= LARGEST_VALUE:
            raise PayloadError(
                "nonfinite", f"tensor {spec.name!r} holds NaN or more than {LARGEST_VALUE:.3g}"
            )
    units = list(model_units(checked, schema, bits, _VECTOR_SHIFT))
    levels = {}
    for index, spec in enumerate(schema.weights):
        values, kept = checked[spec.name], None
        if before is not None and _suits(before.units[index], units[index]):
            kept = _followed(values, before.levels[spec.name], before.units[index])
        if before is not None and kept is not None:
            units[index] = before.units[index]
        levels[spec.name] = _nearest(values, units[index]).astype(np.int16) if kept is None else kept
    return Snapshot(levels, tuple(units))


def _suits(held: float, ideal: float) -> bool:
    return ideal / _NEW_UNIT < held < ideal * _NEW_UNIT


def _followed(
    values: NDArray[np.floating], levels: NDArray[np.int16], unit: float
) -> NDArray[np.int16] | None:
    """Levels that have moved where they had to; None where one would leave the grid."""
    steps = _steps(values, unit)
    moves = np.abs(steps - levels) > 0.5 + HYSTERESIS
    moved = np.where(moves, np.rint(steps), levels)
    return None if np.abs(moved).max(initial=0) > LARGEST_TABLE_LEVEL else moved.astype(np.int16)


def _nearest(values: NDArray[np.floating], unit: float) -> NDArray[np.float32]:
    return np.clip(np.rint(_steps(values, unit)), -LARGEST_TABLE_LEVEL, LARGEST_TABLE_LEVEL)


def _steps(values: NDArray[np.floating], unit: float) -> NDArray[np.float32]:
    steps: NDArray[np.float32] = values.astype(np.float32) / np.float32(unit * FRACTION)
    return steps
