"""What the rate controller makes of one update: error, size and speed at an error or a size asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from slimfleet.compression.codec.codec import decode
from slimfleet.compression.codec.error import nmse
from slimfleet.compression.codec.rate import Settled, settle
from slimfleet.compression.errors import BadInput, BudgetExceeded
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Payload, Preset, Tensors

_TURN_S = 0.1
"""Long beside the resolution of any system's clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What the codec does to one update at one setting.

    Speeds: 1e6 bytes of float32 in a second of processor time, the best of three turns; of one encode at the setting
    that was found, without the search for it.
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


@dataclass(frozen=True, slots=True)
class Coding:
    """How to code, and what both ends know already."""

    preset: Preset = "small"
    reference: Tensors | None = None


Met = tuple[OperatingPoint, Payload]


def meet_nmse(tensors: Tensors, target: float, coding: Coding = Coding()) -> Met:
    """The smallest payload found whose error is at most `target`, which lies strictly between 0 and 1.

    Raises BadInput for any other target.
    """
    if not 0 < target < 1:
        raise BadInput(f"an NMSE target of {target:g} makes no sense: give a number between 0 and 1")
    schema = ModelSchema.of(tensors, tensors)
    settled = settle(tensors, schema, nmse=target, preset=coding.preset, reference=coding.reference)
    return _measure(tensors, schema, settled, target, coding)


def meet_bytes(tensors: Tensors, limit: int, coding: Coding = Coding()) -> Met:
    """The payload of least error found within `limit` bytes.

    Raises BadInput when even the sparsest does not fit.
    """
    schema = ModelSchema.of(tensors, tensors)
    try:
        settled = settle(tensors, schema, limit_bytes=limit, preset=coding.preset, reference=coding.reference)
    except (BudgetExceeded, ValueError) as error:
        raise BadInput(f"no update of this model fits {limit} bytes: {error}") from error
    return _measure(tensors, schema, settled, None, coding)


def _measure(
    tensors: Tensors, schema: ModelSchema, settled: Settled, target: float | None, coding: Coding
) -> Met:
    payload = settled.encoded.payload
    megabytes = 4e-6 * schema.elements
    point = OperatingPoint(
        target_nmse=target,
        nmse=nmse(tensors, settled.encoded.decoded),
        bytes=len(payload),
        bits_per_parameter=8 * len(payload) / schema.elements,
        encode_mb_per_s=megabytes / _seconds(settled.again),
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
