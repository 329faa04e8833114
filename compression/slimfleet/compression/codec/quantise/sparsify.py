"""Sparsification: keep the largest weights of the whole model, send the others as zero.

Only tensors of kind "weight" take part; buffers and integers pass untouched. Vectors (biases, norms) are
few and matter more, so their magnitudes count `emphasis` times, here as in the quantiser.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.stage import Stage, stateless
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.types import Tensors


def weights_of(schema: ModelSchema) -> list[TensorSpec]:
    """The tensors that are sparsified and quantised, in schema order."""
    return [spec for spec in schema.tensors if spec.kind == "weight"]


def emphasis(spec: TensorSpec, vector_shift: int) -> np.float32:
    """Power of two that multiplies a tensor's magnitudes: above 1 with fewer than two dimensions."""
    return np.float32(1 << vector_shift if len(spec.shape) < 2 else 1)


def magnitudes(tensors: Tensors, schema: ModelSchema, vector_shift: int) -> NDArray[np.float32]:
    """`abs(value) * emphasis` of all weights, flat, in schema order."""
    parts = [
        np.abs(tensors[spec.name], dtype=np.float32).ravel() * emphasis(spec, vector_shift)
        for spec in weights_of(schema)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def sparsify_threshold(
    schema: ModelSchema, threshold: float, vector_shift: int = 0
) -> Stage[Tensors, Tensors, None]:
    """Zero every weight with `abs(value) * emphasis < threshold` (Strom 2015)."""

    def encode(tensors: Tensors) -> Tensors:
        return _keep_from(tensors, schema, threshold, vector_shift)

    return stateless(encode, lambda tensors: tensors)


def sparsify_top_k(
    schema: ModelSchema, sparsity: float, vector_shift: int = 0
) -> Stage[Tensors, Tensors, None]:
    """Keep the share `1 - sparsity` of all weights together, the largest by magnitude, and at least one.

    Equal magnitudes at the edge are all kept, so that the result does not depend on the order of the
    elements.
    """

    def encode(tensors: Tensors) -> Tensors:
        flat = magnitudes(tensors, schema, vector_shift)
        if not flat.size:
            return tensors
        dropped = min(int(sparsity * flat.size), flat.size - 1)
        return _keep_from(tensors, schema, float(np.partition(flat, dropped)[dropped]), vector_shift)

    return stateless(encode, lambda tensors: tensors)


def _keep_from(tensors: Tensors, schema: ModelSchema, threshold: float, vector_shift: int) -> Tensors:
    kept = dict(tensors)
    for spec in weights_of(schema):
        x = tensors[spec.name].astype(np.float32)
        kept[spec.name] = x * (np.abs(x) * emphasis(spec, vector_shift) >= np.float32(threshold))
    return kept
