"""Write the golden payloads. Only a new format version may change them.

python tests/compression/golden/make.py
"""

from pathlib import Path

import numpy as np

from slimfleet.compression.codec import CodecSpec, encode
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
    """Values from integer arithmetic, so that every machine starts from the same ones."""
    noise = (np.arange(1, 4001, dtype=np.int64) * 48271 % 2147483647 % 2001 - 1000).astype(np.float32) / 1024
    return {
        "conv.weight": (noise[:216] ** 3).reshape(8, 3, 3, 3) / 8,
        "conv.bias": noise[216:224] / 16,
        "norm.running_mean": noise[224:232],
        "norm.running_var": noise[232:240] * 100000,
        "norm.num_batches_tracked": np.array(300, np.int64),
        "head.weight": (noise[240:1440] ** 5).reshape(10, 120) / 8,
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
        for kind in Kind:
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


if __name__ == "__main__":
    for name, (payload, decoded) in payloads().items():
        (Path(__file__).parent / f"{name}.payload").write_bytes(payload)
        flat = np.concatenate([decoded[t.name].ravel() for t in schema().tensors if t.kind != "integer"])
        (Path(__file__).parent / f"{name}.float32").write_bytes(flat.astype("<f4").tobytes())
