"""Dtypes of stored tensors: number on disk, name, how numpy holds the elements, and their name in safetensors.

numpy has neither bfloat16 nor float8: their elements are held as unsigned integers, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Dtype:
    """One type of element."""

    number: int
    """On disk."""
    name: str
    """numpy's name, or torch's where numpy has none."""
    held: str
    """numpy's type of an array of these elements, little-endian."""
    safetensors: str | None = None
    """Name in a safetensors header; None where it has none."""
    words: int = 1
    """Numbers in an element: 2 of a complex one."""

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return np.dtype(self.held).itemsize

    @property
    def floats(self) -> bool:
        """Whether a sign, an exponent and a mantissa make up a number."""
        return np.dtype(self.held).kind in "fc" or self.name == "bfloat16"

    @property
    def weights(self) -> bool:
        """Whether the elements are real numbers that a lossy coding can approximate."""
        return self.floats and self.words == 1


DTYPES = (
    Dtype(0, "bool", "|b1", "BOOL"),
    Dtype(1, "uint8", "|u1", "U8"),
    Dtype(2, "int8", "|i1", "I8"),
    Dtype(3, "uint16", "<u2", "U16"),
    Dtype(4, "int16", "<i2", "I16"),
    Dtype(5, "uint32", "<u4", "U32"),
    Dtype(6, "int32", "<i4", "I32"),
    Dtype(7, "uint64", "<u8", "U64"),
    Dtype(8, "int64", "<i8", "I64"),
    Dtype(9, "float16", "<f2", "F16"),
    Dtype(10, "bfloat16", "<u2", "BF16"),
    Dtype(11, "float32", "<f4", "F32"),
    Dtype(12, "float64", "<f8", "F64"),
    Dtype(13, "complex64", "<c8", "C64", words=2),
    Dtype(14, "complex128", "<c16", words=2),
    Dtype(15, "float8_e4m3fn", "|u1", "F8_E4M3"),
    Dtype(16, "float8_e5m2", "|u1", "F8_E5M2"),
    Dtype(17, "float8_e8m0fnu", "|u1", "F8_E8M0"),
)

BY_NAME: Mapping[str, Dtype] = {dtype.name: dtype for dtype in DTYPES}
BY_SAFETENSORS: Mapping[str, Dtype] = {
    dtype.safetensors: dtype for dtype in DTYPES if dtype.safetensors is not None
}
FLOAT32 = BY_NAME["float32"]


def to_float32(array: NDArray[Any], dtype: Dtype) -> NDArray[np.float32]:
    """The elements of a `weights` dtype as float32; exact but for float64."""
    if dtype.name == "bfloat16":  # the upper half of float32
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    with np.errstate(over="ignore"):
        return array.astype(np.float32, copy=False)


def from_float32(values: NDArray[np.float32], dtype: Dtype) -> NDArray[Any]:
    """The nearest elements of a `weights` dtype, ties to even; finite numbers stay finite."""
    if dtype.name == "bfloat16":
        bits = values.view(np.uint32)
        rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
        magnitude = np.minimum(rounded & np.uint32(0x7FFF), np.uint32(0x7F7F))
        return np.asarray(magnitude | bits >> np.uint32(16) & np.uint32(0x8000), np.uint16)
    if dtype.name == "float16":
        return np.clip(values, -65504, 65504).astype(np.float16)
    return values.astype(dtype.held)
