"""Signed levels through our own coder: how another paper's symbols get real bytes, and the same envelope as ours."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec import Encoded
from slimfleet.compression.codec.codec import sealed
from slimfleet.compression.codec.quantise.grid import FRACTION, LEAST_UNIT, Grid, Quantised
from slimfleet.compression.schema import ModelSchema


def code_levels(levels: Mapping[str, NDArray[np.int32]], steps: list[float], schema: ModelSchema) -> Encoded:
    """`levels` times `steps` (one for all tensors, or one for each) as a payload; all tensors are weights."""
    units = tuple(float(np.float32(max(step / FRACTION, LEAST_UNIT))) for step in steps)
    quantised = Quantised(dict(levels), Grid(units, (), 0), {})
    return sealed(quantised, schema)
