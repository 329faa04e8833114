"""Search for the spec that meets an error or a size, and what it gives."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from slimfleet.compression.codec.codec import CodecSpec, Encoded, decode, encode
from slimfleet.compression.errors import BadInput
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

_BITS = (8, 6, 4)
_TRIES = 18
_MOST_KEPT, _LEAST_KEPT = 0.98, 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingPoint:
    """What one spec does to one update. Speeds: 1e6 bytes of float32 a second, best of three."""

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


def nmse(tensors: Tensors, decoded: Tensors) -> float:
    """Sum of squared errors over the sum of squares, in float64; 0 for an all-zero update without error."""
    error = sum(float(np.sum((tensors[name].astype(np.float64) - decoded[name]) ** 2)) for name in tensors)
    energy = sum(float(np.sum(tensors[name].astype(np.float64) ** 2)) for name in tensors)
    return error / energy if energy else 0.0


def meet_nmse(tensors: Tensors, target: float) -> OperatingPoint:
    """The smallest payload found whose error is at most `target`, which lies strictly between 0 and 1.

    Raises BadInput for any other target, and for one below what 8 bits reach.
    """
    if not 0 < target < 1:
        raise BadInput(f"an NMSE target of {target:g} makes no sense: give a number between 0 and 1")
    schema = ModelSchema.of(tensors, tensors)

    def works(encoded: Encoded) -> bool:
        return nmse(tensors, encoded.decoded) <= target

    found = _frontier(tensors, schema, works, _MOST_KEPT, _LEAST_KEPT)
    if not found:
        raise BadInput(f"an NMSE of {target:g} is below what 8 bits reach on this update")
    best = min(found, key=lambda spec: len(encode(tensors, schema, spec).payload))
    return _measure(tensors, schema, best, target)


def meet_bytes(tensors: Tensors, limit: int) -> OperatingPoint:
    """The payload of least error found within `limit` bytes.

    Raises BadInput when even the sparsest does not fit.
    """
    schema = ModelSchema.of(tensors, tensors)

    def works(encoded: Encoded) -> bool:
        return len(encoded.payload) <= limit

    found = _frontier(tensors, schema, works, _LEAST_KEPT, _MOST_KEPT)
    if not found:
        raise BadInput(f"no update of this model fits {limit} bytes")
    best = min(found, key=lambda spec: nmse(tensors, encode(tensors, schema, spec).decoded))
    return _measure(tensors, schema, best, None)


def _frontier(
    tensors: Tensors, schema: ModelSchema, works: Callable[[Encoded], bool], inside: float, outside: float
) -> list[CodecSpec]:
    """For some numbers of bits, the spec that works with the share of kept weights nearest to `outside`.

    Bisection of the logarithm, starting from the share `inside`; also the dense spec, where it works.
    """
    found = []
    for bits in _BITS:
        if works(encode(tensors, schema, CodecSpec(bits=bits))):
            found.append(CodecSpec(bits=bits))
        near, far = np.log(inside), np.log(outside)
        kept, best = near, None
        for _ in range(_TRIES):
            spec = CodecSpec(bits=bits, sparsity=float(1 - np.exp(kept)))
            if works(encode(tensors, schema, spec)):
                near, best = kept, spec
            elif best is None:
                break
            else:
                far = kept
            kept = (near + far) / 2
        if best is not None:
            found.append(best)
    return found


def _measure(tensors: Tensors, schema: ModelSchema, spec: CodecSpec, target: float | None) -> OperatingPoint:
    encoded = encode(tensors, schema, spec)
    megabytes = 4e-6 * schema.elements
    return OperatingPoint(
        target_nmse=target,
        nmse=nmse(tensors, encoded.decoded),
        bytes=len(encoded.payload),
        bits_per_parameter=8 * len(encoded.payload) / schema.elements,
        encode_mb_per_s=megabytes / _seconds(lambda: encode(tensors, schema, spec)),
        decode_mb_per_s=megabytes / _seconds(lambda: decode(encoded.payload, schema)),
    )


def _seconds(action: Callable[[], object]) -> float:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return max(min(times), 1e-9)
