"""What a fuzzer feeds to the decoder, and what counts as a finding.

An input is one byte and a payload. Is the byte odd, then the payload gets the length and the checksum that an honest
one would have, so that what lies behind the envelope is reached.

    python tests/fuzz/cases.py unpack FOLDER       seeds and committed inputs into a folder
    python tests/fuzz/cases.py pack FOLDER         the inputs of a folder into corpus.tar.xz
"""

import hashlib
import io
import random
import resource
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import xxhash

from slimfleet.compression.codec import CodecSpec, decode, encode
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors
from slimfleet.compression.wire import REASONS, Kind

CORPUS = Path(__file__).with_name("corpus.tar.xz")
"""What a fuzzer found to reach something new; `make fuzz-corpus` writes it."""
SPECS = [
    CodecSpec(bits=1, sparsity=0.97),
    CodecSpec(bits=2, sparsity=0.5),
    CodecSpec(bits=4, sparsity=0.8),
    CodecSpec(bits=8),
    CodecSpec(bits=32),
]
LIMIT_CPU_S = 1.0
"""For a schema of two thousand bytes: a thousand times what decoding takes."""
LIMIT_GROWTH_BYTES = 64 << 20
"""The peak of resident memory may grow by this much in one run."""


class Finding(Exception):
    """Something a decoder must never do."""


def tensors() -> Tensors:
    """Two thousand bytes with every kind of tensor."""
    rng = np.random.default_rng(0)
    return {
        "matrix": rng.laplace(0, 0.1, (12, 30)).astype(np.float32),
        "vector": rng.laplace(0, 0.1, 9).astype(np.float32),
        "zeros": np.zeros((3, 4), np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(0.5, np.float32),
        "half": rng.laplace(0, 0.1, (4, 5)).astype(np.float16),
        "mean": rng.normal(0, 1, 5).astype(np.float32),
        "variance": rng.normal(0, 1, 3).astype(np.float32) * 1e6,
        "count": np.array(300, np.int64),
        "bytes": np.arange(7, dtype=np.uint8),
        "flags": np.array([True, False]),
    }


SCHEMA = ModelSchema.of(tensors(), {"matrix", "vector", "zeros", "empty", "scalar", "half"})


def seeds() -> list[bytes]:
    """An honest input for every spec and kind, and one with nothing in it."""
    zeros = {name: np.zeros_like(array) for name, array in tensors().items()}
    made = [(tensors(), spec, kind) for spec in SPECS for kind in Kind] + [(zeros, SPECS[0], Kind.UPDATE)]
    return [
        b"\x01" + encode(values, SCHEMA, spec, kind=kind, side=b"side").payload for values, spec, kind in made
    ]


def found() -> list[bytes]:
    """The committed inputs."""
    with tarfile.open(CORPUS) as archive:
        return [archive.extractfile(member).read() for member in archive]


def write_corpus(inputs: list[bytes]) -> None:
    """Replace the committed inputs; the same inputs give the same file."""
    with tarfile.open(CORPUS, "w:xz", preset=9) as archive:
        for i, data in enumerate(sorted(set(inputs), key=lambda data: (len(data), data))):
            member = tarfile.TarInfo(f"{i:05}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def resealed(payload: bytes) -> bytes:
    """The payload with the checksum and the length it would have were it honest."""
    content = payload[:11] + len(payload).to_bytes(4, "little") + payload[15:-8]
    return content + xxhash.xxh64_intdigest(content).to_bytes(8, "little")


def payload_of(data: bytes) -> bytes:
    """The payload that an input stands for."""
    return resealed(data[1:]) if data[:1] and data[0] & 1 else data[1:]


def mutate(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """One to four random edits, one of which may be the end of another input."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(changed))
        stretch = slice(at, at + rng.randint(1, 16))
        match rng.randrange(7):
            case 0:
                changed[at] = rng.randrange(256)
            case 1:
                changed[at] ^= 1 << rng.randrange(8)
            case 2 if len(changed) > 80:
                del changed[stretch]
            case 3:
                changed[at:at] = changed[stretch]
            case 4:
                changed[stretch] = bytes(len(changed[stretch]))
            case 5 if len(other) > at:
                changed[at:] = other[at:]
            case _:
                changed[stretch] = b"\xff" * len(changed[stretch])
    return bytes(changed)


def inputs(count: int, seed: int) -> list[bytes]:
    """Seeds, committed inputs, then mutations of both, `count` in all; the same seed gives the same inputs."""
    rng = random.Random(seed)
    known = seeds() + found()
    mutations = [mutate(rng.choice(known), rng.choice(known), rng) for _ in range(max(count - len(known), 0))]
    return (known + mutations)[:count]


def check(data: bytes) -> str | None:
    """Decode one input: the word it is refused with, or None.

    Raises Finding when that takes too long or too much memory, or gives tensors that are not the schema's; lets any
    exception but PayloadError through.
    """
    payload = payload_of(data)
    cpu_s, peak = time.process_time(), peak_bytes()
    reason = None
    try:
        decoded = decode(payload, SCHEMA).tensors
    except PayloadError as error:
        reason = error.reason
    cpu_s, growth = time.process_time() - cpu_s, peak_bytes() - peak
    if cpu_s > LIMIT_CPU_S:
        raise Finding(f"{cpu_s:.2f} s of processor time, the limit is {LIMIT_CPU_S} s")
    if growth > LIMIT_GROWTH_BYTES:
        raise Finding(f"{growth} bytes of memory in one run, the limit is {LIMIT_GROWTH_BYTES}")
    if reason is not None and reason not in REASONS:
        raise Finding(f"{reason!r} is none of the reasons")
    if reason is None and not all(np.isfinite(array).all() for array in SCHEMA.check(decoded).values()):
        raise Finding("NaN or infinity was decoded")
    return reason


def peak_bytes() -> int:
    """Peak of this process's resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "unpack":
        for data in seeds() + found():
            (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    else:
        write_corpus([path.read_bytes() for path in folder.iterdir()])
        print(f"{len(found())} inputs, {CORPUS.stat().st_size} bytes in {CORPUS}")
