"""Sparsification: keep the largest weights of the whole model, send the others as zero.

Only tensors of kind "weight" take part; buffers and integers pass untouched. Vectors (biases, norms) are
small and matter more, so their magnitudes count `emphasis` times, here as in the quantiser.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.types import Tensors


def emphasis(spec: TensorSpec, vector_shift: int) -> np.float32:
    """Power of two that multiplies a tensor's magnitudes: above 1 with fewer than two dimensions."""
    return np.float32(1 << vector_shift if len(spec.shape) < 2 else 1)


def magnitudes(tensors: Tensors, schema: ModelSchema, vector_shift: int) -> NDArray[np.float32]:
    """`abs(value) * emphasis` of all weights, flat, in schema order."""
    parts = [
        np.abs(tensors[spec.name], dtype=np.float32).ravel() * emphasis(spec, vector_shift)
        for spec in schema.weights
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def sparsify_top_k(tensors: Tensors, schema: ModelSchema, sparsity: float, vector_shift: int = 0) -> Tensors:
    """Keep the share `1 - sparsity` of all weights together, the largest by magnitude, and at least one.

    Equal magnitudes at the edge are all kept, so that the result does not depend on the order of the
    elements. All weights of the result are float32.
    """
    flat = magnitudes(tensors, schema, vector_shift)
    if not flat.size:
        return tensors
    dropped = min(int(sparsity * flat.size), flat.size - 1)
    threshold = np.partition(flat, dropped)[dropped]
    kept = dict(tensors)
    for spec in schema.weights:
        x = tensors[spec.name].astype(np.float32)
        kept[spec.name] = x * (np.abs(x) * emphasis(spec, vector_shift) >= threshold)
    return kept
