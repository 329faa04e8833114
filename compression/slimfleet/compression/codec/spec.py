"""Encoder settings: how lossy a payload is, the bound that a search has to meet, and which coder writes it."""

from __future__ import annotations

from dataclasses import dataclass

from slimfleet.compression.types import Preset, Rounding, Tensors

FLOAT32_BITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecSpec:
    """How lossy a payload is."""

    bits: int
    """1..8: `2 ** (bits - 1)` levels per sign; 32: plain float32."""
    sparsity: float = 0.0
    """Share of the weights, over all tensors together, that is sent as zero; 0 <= sparsity < 1."""
    rounding: Rounding = "deadzone"
    """Least error for the bytes, or unbiased."""

    def __post_init__(self) -> None:
        if self.bits not in (*range(1, 9), FLOAT32_BITS):
            raise ValueError(f"bits is {self.bits}, it can be 1..8 or {FLOAT32_BITS}")
        if not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity is {self.sparsity}, it must be at least 0 and below 1")


PLAIN = CodecSpec(bits=FLOAT32_BITS)
"""The float32 baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """What the rate controller has to meet: an error, a size, or both.

    `nmse` bounds the squared error over the squared norm of the trained tensors: 0 sends plain float32, None takes the
    least error that `limit_bytes` has room for. Where both cannot be met, the size wins.

    With `rounding` "stochastic" the update is unbiased, `nmse` bounds the mean error over the draws and may be 1 or
    more. Raises ValueError for a bound outside its range, or for none at all.
    """

    nmse: float | None = None
    limit_bytes: int | None = None
    """Bound on the whole payload."""
    rounding: Rounding = "deadzone"

    def __post_init__(self) -> None:
        if self.nmse is None and self.limit_bytes is None:
            raise ValueError("give an error (nmse), a size (limit_bytes) or both: there is nothing to aim at")
        most = float("inf") if self.rounding == "stochastic" else 1.0
        if self.nmse is not None and not 0 <= self.nmse < most:
            raise ValueError(
                f"nmse is {self.nmse}, with {self.rounding} rounding it must be at least 0 and below {most:g}"
            )
        if self.limit_bytes is not None and self.limit_bytes < 0:
            raise ValueError(f"limit_bytes is {self.limit_bytes}, it must be at least 0")

    def fits(self, payload: bytes) -> bool:
        """Whether the size allows this payload."""
        return self.limit_bytes is None or len(payload) <= self.limit_bytes


@dataclass(frozen=True, slots=True)
class Coding:
    """Which coder writes the levels, and what both ends know already."""

    preset: Preset = "small"
    """Without the native coder, every preset is the portable one."""
    reference: Tensors | None = None
    """Tensors that resemble the coded ones, such as the last global update; `decode` needs the same ones."""
