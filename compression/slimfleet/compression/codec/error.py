"""Error of a coded update: squared error over squared norm, in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.quantise.grid import FRACTION, Grid
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

Arrays = Mapping[str, NDArray[Any]]


def nmse(tensors: Arrays, decoded: Arrays) -> float:
    """Sum of squared errors over the sum of squares of `tensors`; 0 for an all-zero update without error."""
    return _share(sum(_squares(array - decoded[name]) for name, array in tensors.items()), tensors)


def expected_nmse(tensors: Tensors, schema: ModelSchema, grid: Grid) -> float:
    """The mean of `nmse` over the draws of stochastic rounding on `grid`, by tensors of kind "weight".

    A magnitude at the fraction f of a step above its lower level errs by step^2 f (1 - f) on average
    (QSGD, Alistarh et al. 2017, proof of lemma 3.1).
    """
    error = 0.0
    for index, spec in enumerate(schema.weights):
        step = float(grid.unit(index, spec)) * FRACTION
        steps = np.abs(tensors[spec.name].astype(np.float64)) / step
        above = steps - np.floor(steps)
        error += step**2 * float(np.sum(above * (1 - above)))
    return _share(error, {spec.name: tensors[spec.name] for spec in schema.weights})


def _share(error: float, tensors: Arrays) -> float:
    energy = sum(_squares(array) for array in tensors.values())
    return error / energy if energy else 0.0


def _squares(array: NDArray[Any]) -> float:
    return float(np.sum(np.square(array, dtype=np.float64)))
