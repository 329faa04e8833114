"""Sparse ternary compression (Sattler et al. 2019, IEEE TNNLS, arXiv 1903.02891), the way up.

The largest share `p` of all values together becomes plus or minus their mean magnitude (algorithm 1). Of two
real encodings the shorter one counts, so that the comparison is not one of entropy coders: the paper's Golomb
code with 4 bytes for the magnitude and no envelope at all, or our coder in our envelope.
"""

from __future__ import annotations

import struct

import golomb
import numpy as np
from levels import code_levels
from uplink import Compressor

from slimfleet.compression.codec import Encoded
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Payload, Tensors


def sparse_ternary(share: float) -> Compressor:
    """The compressor that keeps `share` of the values."""

    def compress(update: Tensors, schema: ModelSchema, rng: np.random.Generator) -> Encoded:
        flat = np.concatenate([array.ravel() for array in update.values()])
        kept = max(int(share * flat.size), 1)
        largest = np.argpartition(np.abs(flat), -kept)[-kept:]
        levels = np.zeros(flat.size, np.int32)
        levels[largest] = np.sign(flat[largest]).astype(np.int32)
        ours = code_levels(_by_name(levels, schema), [float(np.abs(flat[largest]).mean())], schema)
        magnitude = max((float(np.abs(a).max()) for a in ours.decoded.values()), default=0.0)
        theirs = struct.pack("<f", magnitude) + golomb.write(levels, share)
        return Encoded(Payload(min(ours.payload, theirs, key=len)), ours.decoded)

    return compress


def _by_name(flat: np.ndarray[tuple[int], np.dtype[np.int32]], schema: ModelSchema) -> dict[str, np.ndarray]:
    cuts = np.cumsum([tensor.size for tensor in schema.tensors])[:-1]
    parts = np.split(flat, cuts)
    return {t.name: part.reshape(t.shape) for t, part in zip(schema.tensors, parts, strict=True)}
