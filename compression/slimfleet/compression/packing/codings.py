"""Codings: how the values of one tensor are stored. Each decodes to the same bits on every machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.packing.dtypes import BY_NAME, Dtype


@dataclass(frozen=True, slots=True)
class Lossless:
    """Bit for bit."""


@dataclass(frozen=True, slots=True)
class ToError:
    """The fewest bytes found whose squared error is at most `nmse` times the squared norm of the tensor; 0 < nmse < 1.

    Matrices and kernels go on a grid, rate-distortion optimised. Vectors, scalars and small tensors are few and act on
    whole channels: their mantissas are rounded, each value by itself, to 1/16 of the error.
    """

    nmse: float

    def __post_init__(self) -> None:
        if not 0 < self.nmse < 1:
            raise ValueError(f"nmse is {self.nmse}, it must be above 0 and below 1")


@dataclass(frozen=True, slots=True)
class ToRate:
    """The least error found within `bits` a parameter; 0 < bits <= 16. Vectors and small tensors as with an `nmse` of
    2 ** (-2 bits), that of a normal distribution at this rate."""

    bits: float

    def __post_init__(self) -> None:
        if not 0 < self.bits <= 16:
            raise ValueError(f"bits is {self.bits}, it must be above 0 and at most 16")

    @property
    def nmse(self) -> float:
        """For what is not on a grid."""
        return float(2.0 ** (-2 * self.bits))


@dataclass(frozen=True, slots=True)
class OnGrid:
    """Values that are whole multiples of a step already; decoded as float32(integer) x step, rounded once.

    `step` is one positive number or an array of them, one for each index along `axis`; integers within +-2**24. A
    negative zero comes back as zero.
    """

    step: float | NDArray[np.float32]
    axis: int = 0


@dataclass(frozen=True, slots=True)
class Codebook:
    """Values that are `centroids[indices]`: a vector of at most 65,536 values in the tensor's dtype, and unsigned
    integers in the tensor's shape. They are stored in ascending order of the centroids, unused ones left out."""

    centroids: NDArray[Any]
    indices: NDArray[np.unsignedinteger[Any]]


Coding = Lossless | ToError | ToRate | OnGrid | Codebook


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor to be stored."""

    name: str
    array: NDArray[Any]
    """Of any layout."""
    coding: Coding = Lossless()
    dtype: str = ""
    """Where numpy lacks the type: `bfloat16` of an array of uint16, `float8_e4m3fn` and such of uint8."""

    @property
    def kind(self) -> Dtype:
        """The dtype that is stored. Raises KeyError where there is none."""
        return BY_NAME[self.dtype or self.array.dtype.name]
