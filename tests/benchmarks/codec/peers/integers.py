"""Uniform quantisation (UQ) to integers of one step, coded by general compressors: zstd at level 19 and pcodec.

Rounding to nearest, one stream for all tensors, four bytes for the step; int8 where the integers fit for zstd, else
int16.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pcodec
import zstandard
from measure import Arrays
from numpy.typing import NDArray
from pcodec import standalone

from peers.peer import Peer, Shapes, flat, unflat

_STEP = struct.Struct("<fB")


def _quantise(arrays: Arrays, step: float) -> NDArray[np.int16]:
    integers = np.rint(flat(arrays) / np.float32(step))
    if np.abs(integers).max(initial=0) > np.iinfo(np.int16).max:
        raise ValueError(f"a step of {step:g} needs more than 16 bits")
    return integers.astype(np.int16)


def _dequantise(integers: NDArray[Any], step: float, known: Shapes) -> Arrays:
    return unflat(integers.astype(np.float32) * np.float32(step), known)


def _encode_zstd(arrays: Arrays, step: float) -> bytes:
    integers = _quantise(arrays, step)
    narrow = bool(np.abs(integers).max(initial=0) <= np.iinfo(np.int8).max)
    raw = integers.astype(np.int8) if narrow else integers
    return _STEP.pack(step, narrow) + zstandard.ZstdCompressor(level=19).compress(raw.tobytes())


def _decode_zstd(payload: bytes, known: Shapes) -> Arrays:
    step, narrow = _STEP.unpack_from(payload)
    raw = zstandard.ZstdDecompressor().decompress(payload[_STEP.size :])
    return _dequantise(np.frombuffer(raw, np.int8 if narrow else np.int16), step, known)


def _encode_pcodec(arrays: Arrays, step: float) -> bytes:
    config = pcodec.ChunkConfig(compression_level=12)
    return _STEP.pack(step, 0) + standalone.simple_compress(_quantise(arrays, step), config)


def _decode_pcodec(payload: bytes, known: Shapes) -> Arrays:
    step, _ = _STEP.unpack_from(payload)
    return _dequantise(standalone.simple_decompress(payload[_STEP.size :]), step, known)


PEERS = (
    Peer("UQ + zstd-19", _encode_zstd, _decode_zstd),
    Peer("UQ + pcodec", _encode_pcodec, _decode_pcodec),
)
