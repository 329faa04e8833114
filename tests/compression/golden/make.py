"""Write the golden payloads. Only a new format version may change them.

python tests/compression/golden/make.py
"""

from pathlib import Path

import numpy as np

from slimfleet.compression.codec import (
    CodecSpec,
    Snapshot,
    decode_change,
    decode_model,
    encode,
    encode_change,
    encode_model,
    publish,
)
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors
from slimfleet.compression.wire import Kind

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
        for kind in (Kind.UPDATE, Kind.MODEL):
            encoded = encode(
                tensors(),
                schema(),
                spec,
                kind=kind,
                base_version=7,
                plan_id=0x0123456789ABCDEF,
                side=b"\xa5\x5a",
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
    whole = encode_model(before, tensors(), schema(), version=7, side=b"\xa5\x5a")
    changed = encode_change(after, before, tensors(), schema(), base_version=7, side=b"\xa5\x5a")
    assert changed is not None
    return {
        "published": (whole, decode_model(whole, schema()).tensors),
        "changed": (changed, decode_change(changed, schema(), before).tensors),
    }


if __name__ == "__main__":
    for name, (payload, decoded) in {**payloads(), **change()}.items():
        (Path(__file__).parent / f"{name}.payload").write_bytes(payload)
        flat = np.concatenate([decoded[t.name].ravel() for t in schema().tensors if t.kind != "integer"])
        (Path(__file__).parent / f"{name}.float32").write_bytes(flat.astype("<f4").tobytes())
