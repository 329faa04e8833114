"""QSGD with one level (Alistarh et al. 2017, section 3.1): ternary, unbiased.

Scaled by each tensor's largest magnitude rather than by its Euclidean norm, as in that paper's own experiments
and in TernGrad (Wen et al. 2017): over tensors this long the norm would leave next to no symbol and
a variance that no mean over five clients brings down.
"""

from __future__ import annotations

import numpy as np
from levels import code_levels

from slimfleet.compression.codec import Encoded
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors


def ternary(update: Tensors, schema: ModelSchema, rng: np.random.Generator) -> Encoded:
    """Each value becomes 0 or plus or minus its tensor's largest magnitude, so that the mean is the value."""
    steps = [float(np.abs(array).max()) for array in update.values()]
    levels = {
        name: (np.sign(array) * (rng.random(array.shape) * step < np.abs(array))).astype(np.int32)
        for (name, array), step in zip(update.items(), steps, strict=True)
    }
    return code_levels(levels, steps, schema)
