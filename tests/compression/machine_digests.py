"""Print, as JSON, digests of what the codec makes of one set of tensors: SHA-256, the same on every machine.

    python tests/compression/machine_digests.py

Runs with the codec's own dependencies and nothing else: see test_native_aarch64.py.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator

import numpy as np

from slimfleet.compression.codec import CodecSpec, decode, encode, stages
from slimfleet.compression.codec.entropy import Table
from slimfleet.compression.codec.frequencies import TOTAL_BITS
from slimfleet.compression.codec.native import library
from slimfleet.compression.errors import BadInput
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors
from slimfleet.compression.wire import Kind

CODED = [
    CodecSpec(bits=32),
]
"""Encoded and decoded. What an entropy coder is needed for can stand here once there is one without constriction."""

QUANTISED = [
    CodecSpec(bits=1, sparsity=0.97),
    CodecSpec(bits=4, sparsity=0.8),
    CodecSpec(bits=6),
    CodecSpec(bits=8, sparsity=0.3),
    CodecSpec(bits=2, rounding="stochastic"),
    CodecSpec(bits=4, rounding="stochastic", sparsity=0.5),
]
"""Brought to levels and a grid, not yet to bytes."""


def tensors() -> Tensors:
    """Every kind of tensor. Integers divided by powers of two: `**`, exp or a sum may differ between machines."""
    noise = np.arange(1, 70_001, dtype=np.int64) * 48271 % 2147483647 % 2001 - 1000
    cubes = (noise * noise * noise).astype(np.float32) / 2**30
    return {
        "conv.weight": cubes[:18_432].reshape(64, 32, 3, 3) / 8,
        "conv.bias": cubes[18_432:18_496] / 16,
        "norm.running_mean": cubes[18_496:18_560] * 64,
        "norm.running_var": np.abs(cubes[18_560:18_624]) * 2**20,
        "norm.num_batches_tracked": np.array(300, np.int64),
        "norm.weight": 1 + cubes[18_624:18_688],
        "head.weight": cubes[19_000:69_000].reshape(100, 500) / 64,
        "head.half": cubes[69_000:69_300].astype(np.float16),
        "head.zeros": np.zeros(100, np.float32),
        "flags": noise[:40] > 0,
        "empty": np.zeros((0, 3), np.float32),
        "scale": np.array(0.125, np.float32),
    }


def schema() -> ModelSchema:
    """The schema of `tensors`."""
    trained = {
        name for name in tensors() if name.startswith(("conv", "head", "scale", "norm.weight", "empty"))
    }
    return ModelSchema.of(tensors(), trained)


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of the parts, one after the other."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def bytes_of(arrays: Tensors) -> Iterator[bytes]:
    """Name, dtype and little-endian contents of each array."""
    for name, array in arrays.items():
        yield f"{name} {array.dtype.name} {array.shape} ".encode()
        yield array.astype(array.dtype.newbyteorder("<")).tobytes()


def digests() -> Iterator[tuple[str, str]]:
    """What was digested, and its digest."""
    yield "inputs", digest(bytes_of(tensors()))
    for spec in QUANTISED:
        for kind in Kind:
            stage = stages(schema(), spec, kind=kind, rng=np.random.default_rng(7))
            quantised, _ = stage.encode(tensors(), stage.init(schema()))
            yield f"{kind.name} {spec} grid", digest([repr(quantised.grid).encode()])
            yield f"{kind.name} {spec} levels", digest(bytes_of(quantised.levels | quantised.plain))
    for spec in CODED:
        for kind in Kind:
            encoded = encode(tensors(), schema(), spec, kind=kind, side=b"side", rng=np.random.default_rng(7))
            yield f"{kind.name} {spec} payload", digest([encoded.payload])
            yield f"{kind.name} {spec} decoded", digest(bytes_of(decode(encoded.payload, schema()).tensors))


def portable() -> str:
    """ "works", or what a person is told where constriction is not installed."""
    try:
        Table(np.array([1 << TOTAL_BITS - 1] * 2))
    except BadInput as error:
        return str(error)
    return "works"


if __name__ == "__main__":
    machine = {
        "machine": platform.machine(),
        "native": library.require().slimcodec_abi(),
        "portable": portable(),
        "digests": dict(digests()),
    }
    print(json.dumps(machine, indent=1))
