"""Operating points: error, size and speed of the codec on one update, at an error or a size."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from slimfleet.compression.codec.codec import decode
from slimfleet.compression.codec.error import nmse
from slimfleet.compression.codec.rate import encode_to
from slimfleet.compression.codec.spec import Aim, Coding
from slimfleet.compression.errors import BadInput, BudgetExceeded
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Payload, Tensors

_TURN_S = 0.1
"""Long compared with the resolution of any system's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What the codec does to one update at one setting.

    Speeds: 1e6 bytes of float32 in a second of processor time, the best of three turns. Encoding is the whole call of
    `encode_to`, with its search for the error or the size.
    """

    target_nmse: float | None
    nmse: float
    """Squared error / squared norm over the trained tensors."""
    bytes: int
    bits_per_parameter: float
    encode_mb_per_s: float
    decode_mb_per_s: float

    def as_dict(self) -> dict[str, Any]:
        """Fields by name, for JSON."""
        return asdict(self)


def meet_nmse(tensors: Tensors, target: float, coding: Coding = Coding()) -> tuple[OperatingPoint, Payload]:
    """The smallest payload found whose error is at most `target`, which lies strictly between 0 and 1.

    Raises BadInput for any other target.
    """
    if not 0 < target < 1:
        raise BadInput(f"an NMSE target of {target:g} makes no sense: give a number between 0 and 1")
    return _measure(tensors, Aim(nmse=target), coding)


def meet_bytes(tensors: Tensors, limit: int, coding: Coding = Coding()) -> tuple[OperatingPoint, Payload]:
    """The payload of least error found within `limit` bytes.

    Raises BadInput when even the sparsest does not fit.
    """
    try:
        return _measure(tensors, Aim(limit_bytes=limit), coding)
    except (BudgetExceeded, ValueError) as error:
        raise BadInput(f"no update of this model fits {limit} bytes: {error}") from error


def _measure(tensors: Tensors, aim: Aim, coding: Coding) -> tuple[OperatingPoint, Payload]:
    schema = ModelSchema.of(tensors, tensors)
    encoded = encode_to(tensors, schema, aim, coding=coding)
    payload, megabytes = encoded.payload, 4e-6 * schema.elements
    point = OperatingPoint(
        target_nmse=aim.nmse,
        nmse=nmse(tensors, encoded.decoded),
        bytes=len(payload),
        bits_per_parameter=8 * len(payload) / schema.elements,
        encode_mb_per_s=megabytes / _seconds(lambda: encode_to(tensors, schema, aim, coding=coding)),
        decode_mb_per_s=megabytes / _seconds(lambda: decode(payload, schema, coding.reference)),
    )
    return point, payload


def _seconds(action: Callable[[], object]) -> float:
    """Processor time of this thread, on which the codec runs alone: what else the machine does counts little."""
    turns = []
    for _ in range(3):
        start, calls, taken = time.thread_time(), 0, 0.0
        while taken < _TURN_S:
            action()
            calls += 1
            taken = time.thread_time() - start
        turns.append(taken / calls)
    return min(turns)
