"""Unstructured pruning: masks over single weights.

A mask lowers bytes and nothing else: a dense kernel multiplies by zero as fast as by any other number. Work and
memory are lowered by structured pruning, in the modules beside this one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import BadInput
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

Masks = Mapping[str, NDArray[np.bool_]]
"""Tensor -> which of its elements are kept; a tensor without a mask is kept whole."""


def magnitude_masks(tensors: Tensors, schema: ModelSchema, sparsity: float) -> Masks:
    """Masks that keep the share 1 - `sparsity` (0 <= sparsity < 1) of the matrix and kernel weights together.

    The largest magnitudes of the whole model stay (Han et al. 2015, "Learning both Weights and Connections for
    Efficient Neural Networks"), so layers end up as dense as they need to be. Vectors, that is biases and the scales of
    norms, are not masked. Of equal magnitudes, zeros among them, the first ones stay, so that the share holds. Raises
    BadInput on a sparsity outside its range.
    """
    if not 0 <= sparsity < 1:
        raise BadInput(f"sparsity is {sparsity}, must be at least 0 and below 1")
    weights = {t.name: tensors[t.name] for t in schema.weights if len(t.shape) >= 2}
    if not weights:
        return {}
    magnitudes = np.concatenate([np.abs(value, dtype=np.float32).ravel() for value in weights.values()])
    dropped = int(sparsity * magnitudes.size)
    kept = np.ones(magnitudes.size, np.bool_)
    kept[np.argsort(-magnitudes, kind="stable")[magnitudes.size - dropped :]] = False
    ends = np.cumsum([value.size for value in weights.values()])[:-1]
    parts = zip(weights.items(), np.split(kept, ends), strict=True)
    return {name: part.reshape(value.shape) for (name, value), part in parts}


def masked(tensors: Mapping[str, NDArray[Any]], masks: Masks) -> Tensors:
    """Copies of `tensors` with what their masks drop at zero; shapes and dtypes are kept."""
    return {
        name: value * masks[name].astype(value.dtype) if name in masks else value.copy()
        for name, value in tensors.items()
    }


def density(masks: Masks) -> float:
    """Share of the masked elements that are kept, 0..1; 1 without any mask."""
    size = sum(mask.size for mask in masks.values())
    return sum(int(np.count_nonzero(mask)) for mask in masks.values()) / size if size else 1.0
