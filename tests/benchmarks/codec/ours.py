"""Our own codec, brought to an error. All that the benchmark knows of its interface is in this file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from measure import Arrays, nmse

from slimfleet.compression.codec import Aim, CodecSpec, Coding, Encoded, decode, encode, encode_to
from slimfleet.compression.codec.codec import read_quantised, sealed
from slimfleet.compression.codec.quantise.grid import FRACTION
from slimfleet.compression.codec.quantise.native_rate import quantiser_for
from slimfleet.compression.codec.spec import FLOAT32_BITS
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Preset

PRESETS: tuple[Preset, ...] = ("small", "fast")


@dataclass(frozen=True, slots=True)
class Coded:
    """An update at a target. `search` finds the operating point anew, `again` codes there, `decode` reads it."""

    bytes: int
    nmse: float
    decoded: Arrays
    search: Callable[[], object]
    again: Callable[[], Encoded]
    decode: Callable[[], object]


def code(arrays: Arrays, target: float, preset: Preset, reference: Arrays | None = None) -> Coded:
    """Our payload of at most `target` NMSE."""
    schema = ModelSchema.of(arrays, arrays)
    aim, coding = Aim(nmse=target), Coding(preset, reference)
    encoded = encode_to(arrays, schema, aim, coding=coding)
    again = _without_search(arrays, schema, aim, coding, encoded.payload)
    assert again().payload == encoded.payload, "the operating point is not where the payload says"
    return Coded(
        bytes=len(encoded.payload),
        nmse=nmse(arrays, encoded.decoded),
        decoded=encoded.decoded,
        search=lambda: encode_to(arrays, schema, aim, coding=coding),
        again=again,
        decode=lambda: decode(encoded.payload, schema, reference),
    )


def _without_search(
    arrays: Arrays, schema: ModelSchema, aim: Aim, coding: Coding, payload: bytes
) -> Callable[[], Encoded]:
    """Codes `payload` anew with the step that it names; native presets only."""
    grid = read_quantised(payload, schema, coding.reference)[1].grid
    if grid is None:
        return lambda: encode(arrays, schema, CodecSpec(bits=FLOAT32_BITS), coding=coding)
    quantiser, step = quantiser_for(arrays, schema, aim, coding), grid.units[0] * FRACTION
    return lambda: sealed(quantiser.at(step).quantised, schema, coding=coding)


def all_zero(arrays: Arrays) -> int:
    """Bytes of an update that changes nothing, the larger of both presets."""
    zeros = {name: 0 * array for name, array in arrays.items()}
    schema = ModelSchema.of(zeros, zeros)
    return max(
        len(encode_to(zeros, schema, Aim(nmse=0.1), coding=Coding(preset)).payload) for preset in PRESETS
    )


_FIRST_CALL = """
import time
import numpy as np
generator = np.random.default_rng(0)
arrays = {"a": generator.normal(size=(56, 1568)).astype(np.float32), "b": np.zeros(56, np.float32)}
start = time.process_time()
from slimfleet.compression.codec import Aim, encode_to
from slimfleet.compression.schema import ModelSchema
schema = ModelSchema.of(arrays, arrays)
imported = time.process_time()
encode_to(arrays, schema, Aim(nmse=0.1))
first = time.process_time()
encode_to(arrays, schema, Aim(nmse=0.1))
print(imported - start, first - imported, time.process_time() - first)
"""


@dataclass(frozen=True, slots=True)
class FirstCall:
    """Processor seconds in a fresh process that has numpy."""

    imports: float
    first: float
    """The first call, its search included."""
    second: float
    """The same call once more."""

    @property
    def extra(self) -> float:
        """What being the first costs."""
        return self.first - self.second


def first_call() -> FirstCall:
    """On 87,864 values, the median of nine processes by what being the first costs."""
    runs = []
    for _ in range(9):
        done = subprocess.run([sys.executable, "-c", _FIRST_CALL], capture_output=True, text=True, check=True)
        runs.append(FirstCall(*map(float, done.stdout.split())))
    return sorted(runs, key=lambda run: run.extra)[len(runs) // 2]
