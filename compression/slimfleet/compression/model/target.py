"""Targets: how small a model has to become, as a share of what it is or in units."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from types import MappingProxyType

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.evaluation.measuring import Measured

__all__ = ["Target", "target_of"]

_PLAIN = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}
_BYTES = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2.0**10, "MiB": 2.0**20}

KINDS: Mapping[str, tuple[str, Mapping[str, float]]] = MappingProxyType(
    {
        "size": ("bytes", _BYTES),
        "parameters": ("parameters", _PLAIN),
        "nonzero": ("nonzero", _PLAIN),
        "flops": ("flops", _PLAIN),
        "memory": ("peak_memory_bytes", _BYTES),
        "latency": ("latency_s", {"s": 1.0, "ms": 1e-3, "us": 1e-6}),
        "energy": ("energy_j", {"J": 1.0, "mJ": 1e-3, "uJ": 1e-6}),
    }
)
"""What a target may be about -> the field of `Measured`, and its units."""


@dataclass(frozen=True, slots=True)
class Target:
    """The most that one quantity of a model may be."""

    quantity: str
    """One of `KINDS`."""
    share: float | None = None
    """Of what the model before the recipe has."""
    absolute: float | None = None
    """In the unit of its field in `Measured`."""

    @property
    def field(self) -> str:
        """The field of `Measured` that it is about."""
        return KINDS[self.quantity][0]

    def limit(self, before: Measured) -> float:
        """The target in the unit of its field. Raises BadInput for joules without a device."""
        if self.absolute is not None:
            return self.absolute
        return (self.share or 0.0) * self.of(before)

    def of(self, measured: Measured) -> float:
        """The quantity of a model."""
        value = getattr(measured, self.field)
        if value is None:
            raise BadInput(f"target {self}: joules are those of a device, name one with --device")
        return float(value)

    def excess(self, value: float, before: Measured) -> float:
        """How many times its limit a value is; at most 1 is met."""
        return value / max(self.limit(before), 1e-30)

    def __str__(self) -> str:
        """As it is written."""
        return (
            f"{self.quantity}={self.share:g}"
            if self.share is not None
            else f"{self.quantity}={self.absolute:g}"
        )


def target_of(text: str) -> Target:
    """The target that `text` describes: `size=0.1` is a share, `size=200kB` is not. Raises BadInput."""
    quantity, equals, value = (part.strip() for part in text.partition("="))
    if not equals or quantity not in KINDS:
        raise BadInput(f"target {text!r}: must be one of {', '.join(KINDS)}, as in size=0.1 or size=200kB")
    units = KINDS[quantity][1]
    found = re.fullmatch(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-zA-Z]*)", value)
    number = _number(found[1]) if found else None
    if found is None or number is None or number <= 0 or (found[2] and found[2] not in units):
        raise BadInput(
            f"target {text!r}: must be a share such as {quantity}=0.1, or a number with one of the units "
            f"{', '.join(filter(None, units))}"
        )
    if not found[2] and number < 1:
        return Target(quantity, share=number)
    if not found[2] and "" not in units:
        raise BadInput(
            f"target {text!r}: a share must be below 1; what is no share needs a unit: {', '.join(units)}"
        )
    return Target(quantity, absolute=number * units[found[2]])


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None
