"""Write the golden payloads. Only a new format version may change them.

python tests/compression/golden/make.py
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from slimfleet.compression.codec import (
    CodecSpec,
    Coding,
    Snapshot,
    carried,
    decode_change,
    decode_model,
    encode,
    encode_change,
    encode_model,
    publish,
)
from slimfleet.compression.codec.codec import sealed
from slimfleet.compression.codec.quantise.native_rate import NativeQuantiser
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors
from slimfleet.compression.wire import Envelope, PayloadKind

SPECS = {
    "sparse": CodecSpec(bits=4, sparsity=0.8),
    "ternary": CodecSpec(bits=1, sparsity=0.9),
    "dense": CodecSpec(bits=6),
    "float32": CodecSpec(bits=32),
}


def tensors() -> Tensors:
    """Values from integers and float32 products, so that every machine starts from the same ones (powers differ)."""
    noise = (np.arange(1, 4001, dtype=np.int64) * 48271 % 2147483647 % 2001 - 1000).astype(np.float32) / 1024
    cubes = noise * noise * noise
    return {
        "conv.weight": cubes[:216].reshape(8, 3, 3, 3) / 8,
        "conv.bias": noise[216:224] / 16,
        "norm.running_mean": noise[224:232],
        "norm.running_var": noise[232:240] * 100000,
        "norm.num_batches_tracked": np.array(300, np.int64),
        "head.weight": (cubes * noise * noise)[240:1440].reshape(10, 120) / 8,
        "head.bias": np.zeros(10, np.float32),
        "scale": np.array(0.125, np.float32),
    }


def schema() -> ModelSchema:
    """The schema of `tensors`."""
    trained = {"conv.weight", "conv.bias", "head.weight", "head.bias", "scale"}
    return ModelSchema.of(tensors(), trained)


def payloads() -> dict[str, tuple[bytes, Tensors]]:
    """Payload and decoded tensors by file name."""
    result = {}
    for name, spec in SPECS.items():
        for kind in (PayloadKind.UPDATE, PayloadKind.MODEL):
            encoded = encode(
                tensors(),
                schema(),
                spec,
                envelope=Envelope(kind=kind, base_version=7, plan_id=0x0123456789ABCDEF, side=b"\xa5\x5a"),
                coding=Coding("portable"),
            )
            result[f"{name}_{kind.name.lower()}"] = (encoded.payload, encoded.decoded)
    return result


def versions() -> tuple[Snapshot, Snapshot]:
    """Two versions of a model: most levels stay, one tensor gets a new unit."""
    before = publish(tensors(), schema(), 6, None)
    later = {**tensors(), "scale": np.array(0.5, np.float32)}
    later["conv.weight"] = later["conv.weight"] * np.float32(1.125)
    return before, publish(later, schema(), 6, before)


def change() -> dict[str, tuple[bytes, Tensors]]:
    """A whole model and the change that makes the next version of it, with what their decoder has."""
    before, after = versions()
    whole = encode_model(before, tensors(), schema(), version=7, side=b"\xa5\x5a", preset="portable")
    changed = encode_change(
        after, before, tensors(), schema(), base_version=7, side=b"\xa5\x5a", preset="portable"
    )
    assert changed is not None
    return {
        "published": (whole, decode_model(whole, schema()).tensors),
        "changed": (changed, decode_change(changed, schema(), before).tensors),
    }


def frozen_tensors() -> Tensors:
    """`tensors`, a frozen matrix and a mask."""
    matrix = tensors()["head.weight"].reshape(-1)[:300].reshape(10, 30)
    return {**tensors(), "frozen.weight": matrix, "mask": np.triu(np.full((8, 8), -np.inf, np.float32), 1)}


def frozen_schema() -> ModelSchema:
    """The schema of `frozen_tensors`."""
    trained = [spec.name for spec in schema().weights]
    return ModelSchema.of(frozen_tensors(), trained, ["frozen.weight"])


def partial() -> dict[str, tuple[bytes, Tensors]]:
    """A whole model with tensors that stay, a change and an update in which one statistic has moved."""
    whole, moving = frozen_schema(), frozen_schema().moving
    held = replace(publish(frozen_tensors(), whole, 6, None), plain=carried(frozen_tensors(), whole))
    later = {**frozen_tensors(), "norm.running_mean": tensors()["norm.running_mean"] + np.float32(0.5)}
    model = encode_model(held, frozen_tensors(), whole, version=7, side=b"", preset="portable")
    change = encode_change(held, held, later, whole, base_version=7, side=b"", preset="portable")
    assert change is not None
    zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in moving.tensors}
    moved = {**zeros, "norm.running_mean": np.full(8, 0.5, np.float32)}
    update = encode(moved, moving, CodecSpec(bits=6), envelope=Envelope(base_version=7, plan_id=5))
    return {
        "frozen_model": (model, decode_model(model, whole).tensors),
        "frozen_change": (change, decode_change(change, whole, held).tensors),
        "frozen_update": (update.payload, update.decoded),
    }


def large_tensors() -> Tensors:
    """More rows than either preset looks back on, rows alike and rows of zeros, windows, large and small values."""
    noise = (np.arange(1, 12001, dtype=np.int64) * 48271 % 2147483647 % 2001 - 1000).astype(np.float32) / 1024
    rows, columns = noise[:300].reshape(300, 1), noise[300:324].reshape(1, 24)
    tall = rows * columns + noise[324:7524].reshape(300, 24) / 16
    tall[5:9] = 0
    cubes = noise * noise * noise
    return {
        "conv.weight": cubes[7524:8172].reshape(8, 9, 3, 3) / 4,
        "conv.bias": noise[8172:8180] / 16,
        "tall.weight": tall,
        "head.weight": (cubes * noise * noise)[8180:9380].reshape(10, 120) / 2,
        "zero.weight": np.zeros((4, 30), np.float32),
        "narrow.weight": noise[9380:9440].reshape(20, 3) / 4,
        "scale": np.array(3.0, np.float32),
    }


def thin_tensors() -> Tensors:
    """The same with few large values, so that the fast preset codes runs of zeros."""
    return {name: array * array * array for name, array in large_tensors().items()}


def large_schema() -> ModelSchema:
    """The schema of `large_tensors`, all of them trained."""
    return ModelSchema.of(large_tensors(), large_tensors())


def reference() -> Tensors:
    """What both ends know already: much of `large_tensors`, scaled, with something else in it."""
    return {name: array * np.float32(0.5) + np.float32(1 / 64) for name, array in large_tensors().items()}


def contexts() -> dict[str, tuple[bytes, Tensors]]:
    """Payloads of the native coder, with fixed steps: a search for one would depend on how a machine sums."""
    result = {}
    large, thin = large_tensors(), thin_tensors()
    for name, tensors, small, trellis, step, known in (
        ("small", large, True, True, 0.05, None),
        ("small_fine", large, True, True, 0.002, None),
        ("small_scalar", large, True, False, 0.3, None),
        ("small_guess", large, True, True, 0.1, reference()),
        ("fast", large, False, False, 0.1, None),
        ("fast_guess", large, False, False, 0.1, reference()),
        ("fast_runs", thin, False, False, 0.1, None),
    ):
        quantiser = NativeQuantiser(tensors, large_schema(), small, trellis, 0.15, known)
        encoded = sealed(
            quantiser.at(step).quantised,
            large_schema(),
            Envelope(base_version=7),
            Coding("small" if small else "fast", known),
        )
        result[f"contexts_{name}"] = encoded.payload, encoded.decoded
    return result


if __name__ == "__main__":
    for made, of in (
        ({**payloads(), **change()}, schema()),
        (partial(), frozen_schema()),
        (contexts(), large_schema()),
    ):
        for name, (payload, decoded) in made.items():
            (Path(__file__).parent / f"{name}.payload").write_bytes(payload)
            floats = [t.name for t in of.tensors if t.kind != "integer" and t.name in decoded]
            flat = np.concatenate([decoded[name].ravel() for name in floats])
            (Path(__file__).parent / f"{name}.float32").write_bytes(flat.astype("<f4").tobytes())
