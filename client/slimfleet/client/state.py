"""The residual store: what each device left unsent, kept on disk between rounds for error feedback.

A device learns only with its next assignment whether its last update was accepted. So a file keeps two
generations: `before`, what held when the round started, and `after`, what holds once its update is accepted.

    offset  size      little-endian
    0       8         b"SFRESID" and the format version, 1
    8       8         digest of the model schema
    16      8         int64, the round in which the file was written
    24      8         uint64, n: elements of the full model
    32      4 n       float32, before, tensors in the order of the schema
    32+4n   4 n       float32, after
    32+8n   8         XXH3-64 of all bytes so far
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from slimfleet.compression.files import write_atomically
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

MAGIC = b"SFRESID\x01"
HEADER = struct.Struct("<8s8sqQ")
CHECKSUM_BYTES = 8
SUFFIX = ".residual"

Flat = NDArray[np.float32]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResidualStore:
    """One file a device under `root`, each holding the residual of the full model twice, in float32.

    A residual loses value while it waits, as the model moves on: it is multiplied by `decay` for every round
    that passed it by, and dropped once more than `max_age` rounds old. `fsync` makes a save survive a power
    cut; a simulation does without. One process at a time may handle a device.
    """

    root: Path
    schema: ModelSchema
    decay: float = 1.0
    max_age: int = 1_000
    fsync: bool = True

    def load(self, device_id: int, acknowledged_round: int | None, round_number: int) -> Tensors:
        """The residual that holds for `device_id` at the start of round `round_number`.

        `acknowledged_round` is the last round whose update of this device the coordinator accepted. If that
        is the round of the file, `after` holds; else the update was rejected or lost, or this round is being
        run again, and `before` holds. Zeros where nothing is stored, where the file comes from a later round
        than this one, and, with a warning that names the file, where it is damaged or made for another model.

        Returns float32 arrays in full shapes for every tensor of the schema; the caller may change them.
        """
        stored = self._read(self.path(device_id))
        if stored is None or not 0 <= round_number - stored.round_number <= self.max_age:
            return self._named(np.zeros(self.schema.elements, np.float32))
        age = round_number - stored.round_number
        if acknowledged_round == stored.round_number and age > 0:
            return self._named(stored.after * np.float32(self.decay ** (age - 1)))
        return self._named(stored.before * np.float32(self.decay**age))

    def save(
        self,
        device_id: int,
        round_number: int,
        before: Mapping[str, NDArray[Any]],
        after: Mapping[str, NDArray[Any]],
    ) -> None:
        """Store what `load` gave for this round, and what was left unsent at its end.

        A kill at any moment leaves the old file or the new one. Raises ValueError when a tensor is missing or
        has another shape than the schema says.
        """
        header = HEADER.pack(MAGIC, self.schema.digest, round_number, self.schema.elements)
        content = header + self._flat(before).tobytes() + self._flat(after).tobytes()
        sealed = content + xxhash.xxh3_64_digest(content)
        write_atomically(self.path(device_id), sealed, durable=self.fsync)

    def forget_older_than(self, round_number: int) -> int:
        """Delete the files written before `round_number`; return how many."""
        forgotten = 0
        for path in self.root.glob(f"*{SUFFIX}"):
            with path.open("rb") as file:
                header = file.read(HEADER.size)
            if len(header) < HEADER.size or HEADER.unpack(header)[2] < round_number:
                path.unlink()
                forgotten += 1
        return forgotten

    def path(self, device_id: int) -> Path:
        """The file of a device."""
        return self.root / f"{device_id}{SUFFIX}"

    def _read(self, path: Path) -> _Generations | None:
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        flaw = self._flaw(content)
        if flaw:
            log.warning("%s: %s; this device starts again without its residual", path, flaw)
            return None
        generations = np.frombuffer(content, "<f4", 2 * self.schema.elements, HEADER.size)
        before, after = generations.astype(np.float32, copy=False).reshape(2, -1)
        return _Generations(HEADER.unpack_from(content)[2], before, after)

    def _flaw(self, content: bytes) -> str | None:
        """What is wrong with the bytes of a file, or None."""
        if xxhash.xxh3_64_digest(content[:-CHECKSUM_BYTES]) != content[-CHECKSUM_BYTES:]:
            return "the checksum does not fit, the file is damaged"
        if len(content) < HEADER.size + CHECKSUM_BYTES or not content.startswith(MAGIC):
            return "this is not a residual of a version that is known here"
        _, digest, _, elements = HEADER.unpack_from(content)
        if digest != self.schema.digest:
            return f"it was made for another model ({digest.hex()}, this one is {self.schema.digest.hex()})"
        expected = HEADER.size + 8 * self.schema.elements + CHECKSUM_BYTES
        if elements != self.schema.elements or len(content) != expected:
            return f"it has {len(content)} bytes, {expected} are needed"
        return None

    def _flat(self, tensors: Mapping[str, NDArray[Any]]) -> Flat:
        flat = np.empty(self.schema.elements, "<f4")
        start = 0
        for spec in self.schema.tensors:
            tensor = tensors.get(spec.name)
            if tensor is None or tensor.shape != spec.shape:
                found = "is missing" if tensor is None else f"has shape {list(tensor.shape)}"
                raise ValueError(f"residual {spec.name!r} {found}, the schema says {list(spec.shape)}")
            flat[start : start + spec.size] = tensor.ravel()
            start += spec.size
        return flat

    def _named(self, flat: Flat) -> Tensors:
        ends = np.cumsum([spec.size for spec in self.schema.tensors])
        parts = np.split(flat, ends[:-1])
        return {
            spec.name: part.reshape(spec.shape) for spec, part in zip(self.schema.tensors, parts, strict=True)
        }


@dataclass(frozen=True, slots=True)
class _Generations:
    round_number: int
    before: Flat
    after: Flat
