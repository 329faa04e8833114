"""Journal on disk: records in the order in which they were written, each under a checksum.

    file      magic, then records
    record    length of the text, length of the body (uint32 each), checksum (uint64), text (UTF-8), body (bytes)

All numbers are little-endian. The checksum is the XXH3-64 of lengths, text and body, seeded with that of the record
before, so that a record is sound only in its place. The first damaged one ends the journal.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import xxhash

from slimfleet.compression.files import naming, sync

MAGIC = b"slimfleet journal 1\n"
LENGTHS = struct.Struct("<II")
CHECKSUM = struct.Struct("<Q")


@dataclass(frozen=True, slots=True)
class Record:
    """One record, and where it ends."""

    text: str
    body: bytes
    end: int
    """Bytes from the start of the file."""
    checksum: int


START = Record("", b"", len(MAGIC), 0)
"""The place before the first record."""


class Journal:
    """A file that records are added to.

    With `durable` a record has reached the disk when `add` returns. Without, it survives the death of this process at
    any moment, but not that of the machine.
    """

    def __init__(self, path: Path, durable: bool, after: Record | None = None) -> None:
        """Begin a journal, in place of one that is there; or go on `after` a record of it, without those behind.

        Raises DiskError where the disk refuses.
        """
        self._path, self._durable = path, durable
        self._checksum = (after or START).checksum
        with naming(path):
            if after is None:
                path.write_bytes(MAGIC)
            else:
                os.truncate(path, after.end)
            if durable:
                sync(path)
                sync(path.parent)

    def add(self, text: str, body: bytes = b"") -> None:
        """Add a record. Raises DiskError where the disk refuses; a part of it may be there then."""
        content = text.encode()
        lengths = LENGTHS.pack(len(content), len(body))
        checksum = _checksum(self._checksum, lengths, content, body)
        # Opened anew each time: nothing has to be let go of, however the run ends.
        with naming(self._path), self._path.open("r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(b"".join((lengths, CHECKSUM.pack(checksum), content, body)))
            file.flush()
            if self._durable:
                os.fsync(file.fileno())
        self._checksum = checksum


def records(path: Path) -> Iterator[Record]:
    """The sound records of a journal, up to the first that is not; none where there is no file or another's.

    Raises DiskError where it cannot be read.
    """
    with naming(path, "read"):
        if not path.is_file():
            return
        with path.open("rb") as file:
            size, last = os.fstat(file.fileno()).st_size, START
            if file.read(len(MAGIC)) != MAGIC:
                return
            while (record := _next(file, size, last)) is not None:
                yield record
                last = record


def _next(file: BinaryIO, size: int, last: Record) -> Record | None:
    begins = last.end + LENGTHS.size + CHECKSUM.size
    if begins > size:
        return None
    lengths, (stated,) = file.read(LENGTHS.size), CHECKSUM.unpack(file.read(CHECKSUM.size))
    text_bytes, body_bytes = LENGTHS.unpack(lengths)
    if begins + text_bytes + body_bytes > size:
        return None
    content, body = file.read(text_bytes), file.read(body_bytes)
    if _checksum(last.checksum, lengths, content, body) != stated:
        return None
    return Record(content.decode(), body, begins + text_bytes + body_bytes, stated)


def _checksum(before: int, lengths: bytes, content: bytes, body: bytes) -> int:
    digest = xxhash.xxh3_64(seed=before)
    for part in (lengths, content, body):
        digest.update(part)
    return digest.intdigest()
