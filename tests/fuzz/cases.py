"""Inputs of the fuzzer, and what counts as a finding.

An input is one byte and a payload: an update, a whole model, or a change of `BASE`, as its kind says. The byte's bits:

    1   the payload gets the length and the checksum that an honest one would have, and a change the fingerprint of
        `BASE`, so that the decoder behind the envelope is reached
    2   an update is decoded with `REFERENCE`
    4   and the payload's check of the guess is taken for right, whatever it is, as units may have changed
    8   not a payload at all, but a slim file: see slim_cases.py

    python tests/fuzz/cases.py unpack FOLDER       seeds and committed inputs into a folder
    python tests/fuzz/cases.py pack FOLDER MORE    the inputs of a folder into corpus.tar.xz, and what more fits in
"""

import hashlib
import io
import random
import resource
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import slim_cases
import xxhash
from numpy.typing import NDArray

from slimfleet.compression.codec import (
    Aim,
    CodecSpec,
    Coding,
    carried,
    decode,
    decode_change,
    decode_model,
    encode,
    encode_change,
    encode_model,
    encode_to,
    publish,
)
from slimfleet.compression.codec.entropy import contexts_section
from slimfleet.compression.codec.entropy.pack import left_out
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Preset, Tensors
from slimfleet.compression.wire import REASONS, Envelope, PayloadKind, Sections, unseal

CORPUS = Path(__file__).with_name("corpus.tar.xz")
"""What a fuzzer found to reach something new; `make fuzz-corpus` writes it."""
CORPUS_INPUTS = 10_500
"""It holds at least so many: what reaches all that was reached, then what did so for a while, then mutations."""
SPECS = [
    CodecSpec(bits=1, sparsity=0.97),
    CodecSpec(bits=2, sparsity=0.5),
    CodecSpec(bits=4, sparsity=0.8),
    CodecSpec(bits=8),
    CodecSpec(bits=32),
]
RESEALED, GUESSED, AGREED, SLIM = 1, 2, 4, 8
SLIM_SHARE = 0.6
"""Of the mutations that are made of honest slim files."""
LIMIT_CPU_S = 1.0
"""For a schema of six thousand bytes: a thousand times what decoding takes."""
LIMIT_GROWTH_BYTES = 64 << 20
"""The peak of resident memory may grow by this much in one run."""


class Finding(Exception):
    """Something a decoder must never do."""


def tensors() -> Tensors:
    """Six thousand bytes with every kind of tensor; two have more rows than a preset looks back on."""
    rng = np.random.default_rng(0)
    return {
        "matrix": rng.laplace(0, 0.1, (12, 30)).astype(np.float32),
        "window": rng.laplace(0, 0.1, (2, 3, 3, 3)).astype(np.float32),
        "tall": rng.laplace(0, 0.02, (67, 9)).astype(np.float32),
        "taller": rng.laplace(0, 0.1, (258, 1)).astype(np.float32),
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


WEIGHTS = {"matrix", "window", "tall", "taller", "vector", "zeros", "empty", "scalar", "half"}
SCHEMA = ModelSchema.of(tensors(), WEIGHTS)
REFERENCE = {name: (array * 0.7).astype(array.dtype) for name, array in tensors().items()}
"""The last update, say."""
BASE = replace(publish(tensors(), SCHEMA, 6, None), plain=carried(tensors(), SCHEMA))
"""The model that is held and changed."""


def seeds() -> list[bytes]:
    """Honest inputs: under every preset an update, a model and a change of every coarseness, and one of nothing."""
    zeros = {name: np.zeros_like(array) for name, array in tensors().items()}
    made = [encode(zeros, SCHEMA, SPECS[0], envelope=Envelope(side=b"side")).payload]
    guessed = []
    update, model = Envelope(side=b"side"), Envelope(kind=PayloadKind.MODEL)
    for preset in ("small", "fast", "portable"):
        alone, beside = Coding(preset), Coding(preset, REFERENCE)
        for spec in SPECS:
            made.append(encode(tensors(), SCHEMA, spec, envelope=update, coding=alone).payload)
            made.append(encode(tensors(), SCHEMA, spec, envelope=model, coding=alone).payload)
            guessed.append(encode(tensors(), SCHEMA, spec, coding=beside).payload)
        for aim in (Aim(nmse=0.02), Aim(nmse=0.2), Aim(nmse=0.7)):
            made.append(encode_to(tensors(), SCHEMA, aim, coding=alone).payload)
            guessed.append(encode_to(tensors(), SCHEMA, aim, coding=beside).payload)
        made += published(preset)
    payloads = [bytes([RESEALED]) + p for p in made] + [
        bytes([RESEALED | GUESSED | AGREED]) + p for p in guessed
    ]
    return payloads + slim_seeds()


def slim_seeds() -> list[bytes]:
    """Honest slim files."""
    return [bytes([SLIM]) + data for data in slim_cases.seeds()]


def published(preset: Preset) -> list[bytes]:
    """`BASE` as a whole, and changes to models near it: one tensor gets another unit, and in one most buffers stay."""
    later = {name: (array * 1.1).astype(array.dtype) for name, array in tensors().items()}
    later["vector"] = later["vector"] * np.float32(4)
    later["bytes"], later["flags"] = tensors()["bytes"] + np.uint8(1), ~tensors()["flags"]
    after = publish(later, SCHEMA, 6, BASE)
    whole = encode_model(BASE, later, SCHEMA, version=7, side=b"side", preset=preset)
    change = encode_change(after, BASE, later, SCHEMA, base_version=7, side=b"", preset=preset)
    some = {
        **later,
        "mean": tensors()["mean"],
        "variance": tensors()["variance"],
        "bytes": tensors()["bytes"],
    }
    partial = encode_change(after, BASE, some, SCHEMA, base_version=7, side=b"", preset=preset)
    assert change is not None
    assert partial is not None
    assert not unseal(change).header.sections & Sections.PARTIAL
    assert unseal(partial).header.sections & Sections.PARTIAL
    return [whole, change, partial]


def found() -> list[bytes]:
    """The committed inputs."""
    with tarfile.open(CORPUS) as archive:
        return [archive.extractfile(member).read() for member in archive]


def filled_up(needed: set[bytes], more: set[bytes]) -> set[bytes]:
    """`needed`, with the shortest of `more` and then mutations of both up to `CORPUS_INPUTS`."""
    rng = random.Random(1)
    kept = needed | set(in_order(more - needed)[: max(CORPUS_INPUTS - len(needed), 0)])
    known = in_order(kept)
    while len(kept) < CORPUS_INPUTS:
        kept.add(plain(mutate(rng.choice(known), rng.choice(known), rng)))
    return kept


def in_order(inputs: set[bytes]) -> list[bytes]:
    """The shortest first."""
    return sorted(inputs, key=lambda data: (len(data), data))


def write_corpus(inputs: set[bytes]) -> None:
    """Replace the committed inputs; the same inputs give the same file."""
    with tarfile.open(CORPUS, "w:xz", preset=9) as archive:
        for i, data in enumerate(in_order(inputs)):
            member = tarfile.TarInfo(f"{i:05}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def resealed(payload: bytes) -> bytes:
    """The payload with the length, the checksum and, of a change, the fingerprint it would have were it honest."""
    content = payload[:11] + len(payload).to_bytes(4, "little") + payload[15:-8]
    if kind_of(payload) == PayloadKind.CHANGE and len(payload) >= 45:
        content = content[:27] + fingerprint_of(payload).to_bytes(8, "little") + content[35:]
    return content + xxhash.xxh64_intdigest(content).to_bytes(8, "little")


def fingerprint_of(change: bytes) -> int:
    """That of what a change leaves out of `BASE`; of its weights alone where it is too short to say."""
    side = int.from_bytes(change[35:37], "little")
    try:
        missing = left_out(memoryview(change)[37 + side : -8], Sections(change[4] & 15), SCHEMA)
    except PayloadError:
        missing = []
    return BASE.fingerprint_with(missing)


def kind_of(payload: bytes) -> int:
    """The kind that a payload says it has, -1 where it is too short to say so."""
    return payload[3] >> 4 if len(payload) > 3 else -1


def flags_of(data: bytes) -> int:
    """The first byte of an input."""
    return data[0] if data else 0


def payload_of(data: bytes) -> bytes:
    """The payload that an input stands for."""
    return resealed(data[1:]) if flags_of(data) & RESEALED else data[1:]


def plain(data: bytes) -> bytes:
    """The same input without what `resealed` fills in anyway, which would be most of what an archive of many takes."""
    if not flags_of(data) & RESEALED or len(data) < 46:
        return data
    return data[:12] + bytes(4) + data[16:-8] + bytes(8)


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
    known, slim = seeds() + found(), slim_seeds()
    mutations = []
    for _ in range(max(count - len(known), 0)):
        of = slim if rng.random() < SLIM_SHARE else known
        mutations.append(mutate(rng.choice(of), rng.choice(of), rng))
    return (known + mutations)[:count]


class Agreeable:
    """Differs from nothing."""

    def __ne__(self, other: object) -> bool:
        return False


@contextmanager
def agreeing(flags: int) -> Iterator[None]:
    """With `AGREED`, any check of the guess in a payload is right."""
    honest = contexts_section.check_of
    if flags & AGREED:
        contexts_section.check_of = lambda guess: Agreeable()
    try:
        yield
    finally:
        contexts_section.check_of = honest


def decoded(data: bytes) -> Tensors:
    """The tensors of an input. Raises PayloadError."""
    if flags_of(data) & SLIM:
        return slim_cases.decoded(data[1:])
    payload, flags = payload_of(data), flags_of(data)
    with agreeing(flags):
        match kind_of(payload):
            case PayloadKind.MODEL:
                return decode_model(payload, SCHEMA).tensors
            case PayloadKind.CHANGE:
                return decode_change(payload, SCHEMA, BASE).tensors
            case _:
                return decode(payload, SCHEMA, REFERENCE if flags & GUESSED else None).tensors


def check(data: bytes) -> str | None:
    """Decode one input: the word it is refused with, or None.

    Raises Finding when that takes too long or too much memory, or gives tensors that are not the schema's; lets any
    exception but PayloadError through.
    """
    cpu_s, peak = time.process_time(), peak_bytes()
    reason = None
    try:
        tensors = decoded(data)
    except PayloadError as error:
        reason = error.reason
    cpu_s, growth = time.process_time() - cpu_s, peak_bytes() - peak
    if cpu_s > LIMIT_CPU_S:
        raise Finding(f"{cpu_s:.2f} s of processor time, the limit is {LIMIT_CPU_S} s")
    if growth > LIMIT_GROWTH_BYTES:
        raise Finding(f"{growth} bytes of memory in one run, the limit is {LIMIT_GROWTH_BYTES}")
    if reason is not None and reason not in REASONS:
        raise Finding(f"{reason!r} is none of the reasons")
    if reason is None and not all(np.isfinite(array).all() for array in finite(data, tensors)):
        raise Finding("NaN or infinity was decoded")
    return reason


def finite(data: bytes, tensors: Tensors) -> list[NDArray[Any]]:
    """The tensors that have to be finite: the weights of a model, all of an update, those of a slim file on a grid."""
    if flags_of(data) & SLIM:
        return slim_cases.finite(data[1:])
    SCHEMA.check(tensors)
    model = kind_of(payload_of(data)) in (PayloadKind.MODEL, PayloadKind.CHANGE)
    return [tensors[t.name] for t in (SCHEMA.weights if model else SCHEMA.tensors)]


def peak_bytes() -> int:
    """Peak of this process's resident memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    command, folder = sys.argv[1], Path(sys.argv[2])
    if command == "unpack":
        for data in seeds() + found():
            (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    else:
        needed, more = ({plain(path.read_bytes()) for path in Path(f).iterdir()} for f in sys.argv[2:4])
        print(f"{len(needed)} inputs reach all that was reached, {len(more)} were new at some time")
        write_corpus(filled_up(needed, more))
        print(f"{len(found())} inputs, {CORPUS.stat().st_size} bytes in {CORPUS}")
