"""Our own codec, brought to an error. All that the benchmark knows of its interface is in this file.

Where `slimfleet.compression.codec.rate` is not there yet, the search that `slimfleet-compress` uses stands in, with one
profile and no side information.
"""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from measure import Arrays, nmse

from slimfleet.compression.codec import codec, search
from slimfleet.compression.schema import ModelSchema

try:
    from slimfleet.compression.codec import rate
except ImportError:
    rate = None

_ACCEPTED = set(inspect.signature(rate.encode_to).parameters) if rate else set()
PROFILES = ("small", "fast") if "profile" in _ACCEPTED else ("small",)
KNOWS_REFERENCE = "reference" in _ACCEPTED


@dataclass(frozen=True, slots=True)
class Coded:
    """An update at a target. `again` codes it once more without a search, `decode` reads it."""

    bytes: int
    nmse: float
    decoded: Arrays
    encode_to: Callable[[], object] | None
    again: Callable[[], object]
    decode: Callable[[], object]


def encode_to(
    arrays: Arrays, target: float, profile: str = "small", reference: Arrays | None = None
) -> Coded:
    """Our payload of at most `target` NMSE."""
    schema = ModelSchema.of(arrays, arrays)
    if rate is None:
        return _searched(arrays, schema, target)
    options: dict[str, Any] = {"profile": profile} if "profile" in _ACCEPTED else {}
    side = {"reference": reference} if reference is not None else {}

    def encode() -> Any:
        return rate.encode_to(arrays, schema, nmse=target, **options, **side)

    settled = rate.settle(arrays, schema, nmse=target, **options, **side) if hasattr(rate, "settle") else None
    encoded = settled.encoded if settled else encode()
    read = getattr(rate, "decode", codec.decode)
    return Coded(
        bytes=len(encoded.payload),
        nmse=nmse(arrays, encoded.decoded),
        decoded=encoded.decoded,
        encode_to=encode,
        again=settled.again if settled else encode,
        decode=lambda: read(encoded.payload, schema, **side),
    )


def all_zero(arrays: Arrays) -> int:
    """Bytes of an update that changes nothing."""
    zeros = {name: 0 * array for name, array in arrays.items()}
    if rate is None:
        return len(codec.encode(zeros, ModelSchema.of(zeros, zeros), codec.CodecSpec(bits=4)).payload)
    return min(encode_to_zero(zeros, profile) for profile in PROFILES)


def encode_to_zero(zeros: Arrays, profile: str) -> int:
    """As `encode_to`, without the error of nothing, which is 0 / 0."""
    options: dict[str, Any] = {"profile": profile} if "profile" in _ACCEPTED else {}
    return len(rate.encode_to(zeros, ModelSchema.of(zeros, zeros), nmse=0.1, **options).payload)


def _searched(arrays: Arrays, schema: ModelSchema, target: float) -> Coded:
    def works(encoded: codec.Encoded) -> bool:
        return nmse(arrays, encoded.decoded) <= target

    specs = search._frontier(arrays, schema, works, search._MOST_KEPT, search._LEAST_KEPT)
    spec = min(specs, key=lambda s: len(codec.encode(arrays, schema, s).payload))
    encoded = codec.encode(arrays, schema, spec)
    return Coded(
        bytes=len(encoded.payload),
        nmse=nmse(arrays, encoded.decoded),
        decoded=encoded.decoded,
        encode_to=None,
        again=lambda: codec.encode(arrays, schema, spec),
        decode=lambda: codec.decode(encoded.payload, schema),
    )


_FIRST_CALL = """
import time
import numpy as np
generator = np.random.default_rng(0)
arrays = {"a": generator.normal(size=(56, 1568)).astype(np.float32), "b": np.zeros(56, np.float32)}
start = time.perf_counter()
from slimfleet.compression.codec import codec
from slimfleet.compression.schema import ModelSchema
try:
    from slimfleet.compression.codec.rate import encode_to
except ImportError:
    def encode_to(arrays, schema, nmse):
        return codec.encode(arrays, schema, codec.CodecSpec(bits=4))
schema = ModelSchema.of(arrays, arrays)
loaded, before = time.perf_counter(), time.process_time()
encode_to(arrays, schema, nmse=0.1)
print(time.perf_counter() - loaded, time.process_time() - before, loaded - start)
"""


@dataclass(frozen=True, slots=True, order=True)
class FirstCall:
    """Seconds of the first `encode_to` of a fresh process, and of the imports before it (numpy is loaded already)."""

    wall: float
    processor: float
    imports: float


def first_call() -> FirstCall:
    """On 87,864 values. The least of seven processes: others on the machine only add to wall time."""
    runs = []
    for _ in range(7):
        done = subprocess.run([sys.executable, "-c", _FIRST_CALL], capture_output=True, text=True, check=True)
        runs.append(FirstCall(*map(float, done.stdout.split())))
    return min(runs)
