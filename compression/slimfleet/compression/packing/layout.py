"""Layout of a slim file: head, sections, index, tail."""

from __future__ import annotations

import struct

import xxhash

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.packing.index import MOST_INDEX_BYTES

MAGIC = b"SLIM"
VERSION = 1

HEAD = struct.Struct("<4sHH")
"""Magic, format version, 0."""
TAIL = struct.Struct("<IIQ")
"""Bytes of the index as stored and as inflated, checksum."""
LEAST_BYTES = HEAD.size + TAIL.size
FREE_BYTES = 1 << 30
LARGEST_EXPANSION = 1000
"""Tensors may take so many times the bytes of the file, or FREE_BYTES: beyond that it is taken for a bomb."""


def most_expanded(file_bytes: int) -> int:
    """The most bytes that the tensors in a file of that size may take."""
    return max(FREE_BYTES, LARGEST_EXPANSION * file_bytes)


def head_bytes() -> bytes:
    """What a file begins with."""
    return HEAD.pack(MAGIC, VERSION, 0)


def check_head(data: bytes) -> None:
    """Raise PayloadError: magic or version."""
    if len(data) < HEAD.size or data[:4] != MAGIC:
        raise PayloadError("magic", "not a slim file")
    _, version, reserved = HEAD.unpack(data[: HEAD.size])
    if (version, reserved) != (VERSION, 0):
        raise PayloadError(
            "version", f"slim file of version {version}.{reserved}, this end reads {VERSION}.0"
        )


def tail_bytes(index: bytes, inflated: int) -> bytes:
    """What a file ends with, after its stored index.

    The checksum, XXH3-64, is over head, index and the two lengths. The index has the checksums of the sections, so that
    it stands for all of the file.
    """
    lengths = struct.pack("<II", len(index), inflated)
    return lengths + xxhash.xxh3_64_intdigest(head_bytes() + index + lengths).to_bytes(8, "little")


def read_tail(data: bytes, file_bytes: int) -> tuple[int, int]:
    """Bytes of the index as stored and as inflated. Raises PayloadError: truncated or oversized."""
    stored, inflated, _ = TAIL.unpack(data)
    if stored > file_bytes - LEAST_BYTES:
        raise PayloadError("truncated", f"the file has {file_bytes:,} bytes and no whole index at its end")
    if inflated > MOST_INDEX_BYTES:
        raise PayloadError("oversized", f"an index of {inflated:,} bytes, the limit is {MOST_INDEX_BYTES:,}")
    return stored, inflated
