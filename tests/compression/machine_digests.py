"""Print, as JSON, digests of what the codec makes of one set of tensors: SHA-256, the same on every machine.

    python tests/compression/machine_digests.py

Runs with the codec's own dependencies and nothing else: see test_native_aarch64.py.
"""

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from runpy import run_path

import numpy as np

from slimfleet.compression.codec import (
    CodecSpec,
    Coding,
    decode,
    decode_change,
    decode_model,
    encode,
    encode_change,
    encode_model,
    publish,
)
from slimfleet.compression.codec.codec import quantise, sealed
from slimfleet.compression.codec.entropy.ans import Table, encode_levels
from slimfleet.compression.codec.entropy.frequencies import TOTAL_BITS
from slimfleet.compression.codec.native import library
from slimfleet.compression.codec.quantise.native_rate import NativeQuantiser
from slimfleet.compression.errors import BadInput
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors
from slimfleet.compression.wire import Envelope, PayloadKind

WHOLE = (PayloadKind.UPDATE, PayloadKind.MODEL)
GOLDEN = Path(__file__).parent / "golden"
PRESETS = ("small", "fast")
CODED = [
    CodecSpec(bits=32),
    CodecSpec(bits=1, sparsity=0.97),
    CodecSpec(bits=4, sparsity=0.8),
    CodecSpec(bits=5),
]
"""Encoded and decoded, without and with a reference. Below 32 levels, since above them constriction has a say."""
STEPS = [0.3, 0.08, 0.004, 0.0005]
"""Steps of the quantiser that knows prices, for an NMSE of 0.26, 0.09, 0.001 and 0.00002. A search would depend on how
a machine sums."""

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
        for kind in WHOLE:
            quantised = quantise(tensors(), schema(), spec, kind, np.random.default_rng(7))
            yield f"{kind.name} {spec} grid", digest([repr(quantised.grid).encode()])
            yield f"{kind.name} {spec} levels", digest(bytes_of(quantised.levels | quantised.plain))
    for name, payload, known in (*coded(), *priced()):
        yield f"{name} payload", digest([payload])
        yield f"{name} decoded", digest(bytes_of(decode(payload, schema(), known).tensors))
    for preset in PRESETS:
        yield from changed(preset)
    yield from golden()


def reference() -> Tensors:
    """What both ends know already."""
    return {name: (array * 0.75).astype(array.dtype) for name, array in tensors().items()}


def coded() -> Iterator[tuple[str, bytes, Tensors | None]]:
    """Name, payload and reference, of levels as a spec gives them."""
    for spec in CODED:
        for kind in WHOLE:
            for preset in PRESETS:
                for known in (None, reference()):
                    envelope, coding = Envelope(kind=kind, side=b"side"), Coding(preset, known)
                    made = encode(tensors(), schema(), spec, envelope=envelope, coding=coding)
                    yield f"{kind.name} {spec} {preset} {named(known)}", made.payload, known


def priced() -> Iterator[tuple[str, bytes, Tensors | None]]:
    """The same of levels that were chosen by their price, with a trellis and without."""
    for step in STEPS:
        for preset, trellis in (("small", True), ("small", False), ("fast", False)):
            for known in (None, reference()):
                small = preset == "small"
                trial = NativeQuantiser(tensors(), schema(), small, trellis, 0.15, known).at(step)
                made = sealed(trial.quantised, schema(), coding=Coding(preset, known))
                name = f"step {step} {preset}{' trellis' * trellis} {named(known)}"
                yield name, made.payload, known


def named(known: Tensors | None) -> str:
    """With or without a reference."""
    return "alone" if known is None else "with reference"


def changed(preset: str) -> Iterator[tuple[str, str]]:
    """A model, the change to the next, and what a device that holds the first makes of that."""
    before = publish(tensors(), schema(), 5, None)
    later = {name: (array * 1.0625).astype(array.dtype) for name, array in tensors().items()}
    after = publish(later, schema(), 5, before)
    whole = encode_model(before, tensors(), schema(), version=1, side=b"", preset=preset)
    change = encode_change(after, before, later, schema(), base_version=1, side=b"", preset=preset)
    held = decode_model(whole, schema()).snapshot
    assert change is not None
    assert held is not None
    yield f"model {preset} payload", digest([whole])
    yield f"change {preset} payload", digest([change])
    yield f"change {preset} decoded", digest(bytes_of(decode_change(change, schema(), held).tensors))


def golden() -> Iterator[tuple[str, str]]:
    """Committed payloads decoded: those of the native coder, made once more too, and two of the portable one."""
    make = run_path(str(GOLDEN / "make.py"))
    for name, (made, _) in make["contexts"]().items():
        payload = (GOLDEN / f"{name}.payload").read_bytes()
        assert made == payload, name
        known = make["reference"]() if name.endswith("guess") else None
        values = decode(payload, make["large_schema"](), known).tensors.values()
        flat = np.concatenate([array.ravel() for array in values]).astype("<f4").tobytes()
        assert flat == (GOLDEN / f"{name}.float32").read_bytes(), name
        yield f"golden {name}", digest([payload, flat])
    for name in ("sparse_update", "dense_model"):
        payload = (GOLDEN / f"{name}.payload").read_bytes()
        yield f"portable {name}", digest(bytes_of(decode(payload, make["schema"]()).tensors))


def portable() -> str:
    """ "works", or the message for encoding where constriction is not installed."""
    try:
        encode_levels([(np.array([0, 1], np.int32), Table(np.array([1 << TOTAL_BITS - 1] * 2)))])
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
