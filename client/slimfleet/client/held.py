"""The store of held models: the last versions of the global model that a device received, kept on disk.

A later round may send the change of one of them in place of a whole model. Two are kept: the newest, and the one that
the coordinator last built on, since a device cannot know whether its last answer arrived.

    size    little-endian
    8       b"SFMODEL" and the format version, 1
    8       digest of the full model's schema
    1       how many models follow, the newest first: 0..2
    8         int64, version: the round that published it
    2         uint16, m: bytes of the channel masks
    m         channel masks, as on the wire
    4 w       float32, unit of each weight tensor, in the order of the schema
    2 n       int16, levels of the kept channels, tensor after tensor
    8       XXH3-64 of all bytes so far
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xxhash

from slimfleet.compression.codec import Snapshot
from slimfleet.compression.codec.entropy.reader import Reader
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.files import write_atomically
from slimfleet.compression.pruning import unpack_channels
from slimfleet.compression.pruning.blueprint import Blueprint

MAGIC = b"SFMODEL\x01"
HEADER = struct.Struct("<8s8sB")
MODEL = struct.Struct("<qH")
CHECKSUM_BYTES = 8
SUFFIX = ".model"
KEPT = 2

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A version of the global model, cut to some channels."""

    version: int
    """The round that published it."""
    channels: bytes
    """Packed channel masks, as on the wire."""
    snapshot: Snapshot


def kept_with(newest: Held, held: Sequence[Held], base_version: int | None) -> tuple[Held, ...]:
    """What to keep now that `newest` has come: it, and the version that it is a change of, or the newest before it."""
    others = [one for one in held if one.version != newest.version]
    bases = [one for one in others if one.version == base_version]
    return (newest, *(bases or others)[: KEPT - 1])


@dataclass(frozen=True, slots=True)
class HeldStore:
    """One file a device under `root`.

    `fsync` makes a save survive a power cut; a simulation does without. One process at a time may handle a device.
    """

    root: Path
    blueprint: Blueprint
    fsync: bool = True

    def load(self, device_id: int) -> tuple[Held, ...]:
        """What a device holds, the newest first.

        Nothing where nothing is stored, and, with a warning that names the file, where it is damaged or made for
        another model: the coordinator then sends the whole model.
        """
        path = self.path(device_id)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return ()
        try:
            return self._parsed(content)
        except PayloadError as flaw:
            log.warning("%s: %s; this device holds no model now and will be sent a whole one", path, flaw)
            return ()

    def save(self, device_id: int, held: Sequence[Held]) -> None:
        """Store what a device holds, at most two models. A kill at any moment leaves the old file or the new one."""
        if len(held) > KEPT:
            raise ValueError(f"{len(held)} models to store, at most {KEPT} are kept")
        content = HEADER.pack(MAGIC, self.blueprint.schema.digest, len(held)) + b"".join(map(_bytes_of, held))
        sealed = content + xxhash.xxh3_64_digest(content)
        write_atomically(self.path(device_id), sealed, durable=self.fsync)

    def path(self, device_id: int) -> Path:
        """The file of a device."""
        return self.root / f"{device_id}{SUFFIX}"

    def _parsed(self, content: bytes) -> tuple[Held, ...]:
        """The models in a file; raises PayloadError where it is not sound."""
        sound = content[:-CHECKSUM_BYTES]
        if xxhash.xxh3_64_digest(sound) != content[-CHECKSUM_BYTES:]:
            raise PayloadError("checksum", "the checksum does not fit, the file is damaged")
        reader = Reader(memoryview(sound))
        magic, digest, count = HEADER.unpack(reader.take(HEADER.size))
        if magic != MAGIC:
            raise PayloadError("magic", "this is not a model of a version that is known here")
        if digest != self.blueprint.schema.digest:
            raise PayloadError("schema", "it was made for another model")
        held = tuple(self._read(reader) for _ in range(count))
        reader.finish()
        return held

    def _read(self, reader: Reader) -> Held:
        version, mask_bytes = MODEL.unpack(reader.take(MODEL.size))
        channels = bytes(reader.take(mask_bytes))
        schema = self.blueprint.index_map(unpack_channels(self.blueprint.groups, channels)).schema
        weights = schema.weights
        units = np.frombuffer(reader.take(4 * len(weights)), "<f4")
        levels = {
            spec.name: np.frombuffer(reader.take(2 * spec.size), "<i2").reshape(spec.shape)
            for spec in weights
        }
        return Held(version, channels, Snapshot(levels, tuple(map(float, units))))


def _bytes_of(held: Held) -> bytes:
    return b"".join(
        [
            MODEL.pack(held.version, len(held.channels)),
            held.channels,
            np.array(held.snapshot.units, "<f4").tobytes(),
            *(levels.astype("<i2").tobytes() for levels in held.snapshot.levels.values()),
        ]
    )
