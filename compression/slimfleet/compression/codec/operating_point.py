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

STAGES = 3
"""Stages of finding an operating point: encoding, timing the encoder, timing the decoder."""

_TURN_S = 0.1
"""Long compared with the resolution of any system's clock."""
_ENOUGH_S = 1.0
"""After so long a turn its speed is known well enough, and another one would only keep a person waiting."""


def _unwatched() -> None:
    """Nobody looks at the progress."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What the codec does to one update at one setting.

    Speeds: 1e6 bytes of tensors in a second of processor time, the best of three turns or of fewer long ones. Encoding
    is the whole call of `encode_to`, with its search for the error or the size.
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


def meet_nmse(
    tensors: Tensors,
    target: float,
    coding: Coding = Coding(),
    stage_done: Callable[[], None] = _unwatched,
) -> tuple[OperatingPoint, Payload]:
    """The smallest payload found whose error is at most `target`, which lies strictly between 0 and 1.

    `stage_done` is called after each of the STAGES. Raises BadInput for any other target.
    """
    if not 0 < target < 1:
        raise BadInput(f"an NMSE target of {target:g} makes no sense: give a number between 0 and 1")
    return _measure(tensors, Aim(nmse=target), coding, stage_done)


def meet_bytes(
    tensors: Tensors,
    limit: int,
    coding: Coding = Coding(),
    stage_done: Callable[[], None] = _unwatched,
) -> tuple[OperatingPoint, Payload]:
    """The payload of least error found within `limit` bytes.

    `stage_done` is called after each of the STAGES. Raises BadInput when even the sparsest does not fit.
    """
    try:
        return _measure(tensors, Aim(limit_bytes=limit), coding, stage_done)
    except (BudgetExceeded, ValueError) as error:
        raise BadInput(f"no update of this model fits {limit} bytes: {error}") from error


def _measure(
    tensors: Tensors, aim: Aim, coding: Coding, stage_done: Callable[[], None]
) -> tuple[OperatingPoint, Payload]:
    schema = ModelSchema.of(tensors, tensors)
    encoded = encode_to(tensors, schema, aim, coding=coding)
    payload = encoded.payload
    stage_done()
    encode_s = _seconds(lambda: encode_to(tensors, schema, aim, coding=coding))
    stage_done()
    decode_s = _seconds(lambda: decode(payload, schema, coding.reference))
    stage_done()
    point = OperatingPoint(
        target_nmse=aim.nmse,
        nmse=nmse(tensors, encoded.decoded),
        bytes=len(payload),
        bits_per_parameter=8 * len(payload) / schema.elements,
        encode_mb_per_s=schema.nbytes / 1e6 / encode_s,
        decode_mb_per_s=schema.nbytes / 1e6 / decode_s,
    )
    return point, payload


def _seconds(action: Callable[[], object]) -> float:
    """Processor time of this thread, on which the codec runs alone: what else the machine does counts little."""
    turns: list[float] = []
    while len(turns) < 3 and sum(turns) < _ENOUGH_S:
        start, calls, taken = time.thread_time(), 0, 0.0
        while taken < _TURN_S:
            action()
            calls += 1
            taken = time.thread_time() - start
        turns.append(taken / calls)
    return min(turns)
