"""Wire envelope of every payload: header, optional side section, body, checksum (docs/wire-format.md).

Senders are not trusted: nothing here allocates by a number that came with the payload, and every refusal is a
`PayloadError` whose `reason` is one of `REASONS`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import NamedTuple

import xxhash

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Payload

MAGIC = b"SF"
FORMAT_VERSION = 1
MAX_SIDE_BYTES = 2**16 - 1

REASONS = frozenset(
    {
        "truncated",  # fewer or more bytes than declared
        "oversized",  # more bytes than any payload of this schema needs
        "magic",  # not a slimfleet payload
        "version",  # a format version or coder this end does not know
        "header",  # a header field outside its range
        "checksum",  # bytes changed on the way
        "schema",  # made for another model
        "counts",  # declared or decoded sizes disagree with the schema
        "grid",  # an impossible quantiser step or level
        "entropy",  # impossible frequency tables or entropy-coded words
        "nonfinite",  # NaN or infinity
        "stale",  # refers to a model version that is no longer accepted
        "replay",  # this device has already delivered for this round
        "channels",  # the channels named are not those of the plan
        "norm",  # the update is implausibly large
    }
)
"""Every word that `PayloadError.reason` may hold of a payload; of a JSON text it is `message`. Bounded, so that it can
label a metric."""


class PayloadKind(IntEnum):
    """Content of a payload: an update (sent up), or the global model (sent down), whole or as a change."""

    UPDATE = 0
    MODEL = 1
    CHANGE = 2
    """A model as the change of one that the device holds."""


class Coder(IntEnum):
    """How the section of the weights is coded."""

    FLOAT32 = 0
    TABLES = 1
    """Quantised integers under static integer frequency tables, asymmetric numeral system of 64-bit state."""
    CONTEXTS = 2
    """Quantised integers under adaptive contexts and a linear prediction, binary range coder: the native coder's."""


class Sections(IntFlag):
    """Sections that are present in the body. An absent section stands for zeros."""

    WEIGHTS = 1
    BUFFERS = 2
    """And frozen tensors."""
    INTEGERS = 4
    PARTIAL = 8
    """The body begins with a bit for each tensor that is no weight: whether the sections have it."""


_HEADER = struct.Struct("<2sBBBHIII8sQH")
# magic, version, kind << 4 | coder, sections, tensors, elements, length, base version, digest, plan id, side
# length
_CHECKSUM = struct.Struct("<Q")

OVERHEAD_BYTES = _HEADER.size + _CHECKSUM.size
"""Bytes of a payload with neither side section nor body: what an all-zero update costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What a sender writes on an envelope: the fields of a header that do not follow from the tensors."""

    kind: PayloadKind = PayloadKind.UPDATE
    base_version: int = 0
    """Model version (u32) the payload refers to: the number of the round; of a change, the version changed."""
    plan_id: int = 0
    """Number (u64) of the plan, unique per device and round; of a change, the fingerprint of what is changed."""
    side: bytes = b""
    """Section beside the tensors, at most `MAX_SIDE_BYTES`; the downlink carries channel masks there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Everything that a payload says about itself."""

    schema_digest: bytes
    """`ModelSchema.digest` of the tensors inside, 8 bytes."""
    tensors: int
    elements: int
    base_version: int
    """As in `Envelope`; so are `plan_id`, `kind` and `side`."""
    plan_id: int
    kind: PayloadKind
    coder: Coder
    sections: Sections
    side: bytes = b""


def seal(header: Header, body: bytes) -> Payload:
    """Assemble header, side section, body and checksum.

    Raises ValueError when a field does not fit its place on the wire.
    """
    if len(header.side) > MAX_SIDE_BYTES:
        raise ValueError(f"side section of {len(header.side)} bytes, the limit is {MAX_SIDE_BYTES}")
    if len(header.schema_digest) != 8:
        raise ValueError(f"schema digest of {len(header.schema_digest)} bytes, it has 8")
    try:
        head = _HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            header.kind << 4 | header.coder,
            header.sections,
            header.tensors,
            header.elements,
            OVERHEAD_BYTES + len(header.side) + len(body),
            header.base_version,
            header.schema_digest,
            header.plan_id,
            len(header.side),
        )
    except struct.error as error:
        raise ValueError(f"a header field does not fit the wire: {error}") from error
    content = head + header.side + body
    return Payload(content + _CHECKSUM.pack(xxhash.xxh64_intdigest(content)))


class Opened(NamedTuple):
    """A payload whose envelope has been checked, so that it is hashed once however many look into it."""

    header: Header
    body: memoryview

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return OVERHEAD_BYTES + len(self.header.side) + len(self.body)


def unseal(payload: bytes | Opened) -> Opened:
    """Check the envelope of a payload; one that is open already is given back. The tensors are not touched.

    Raises PayloadError: truncated, magic, version, checksum or header.
    """
    if isinstance(payload, Opened):
        return payload
    if len(payload) < OVERHEAD_BYTES:
        raise PayloadError("truncated", f"payload of {len(payload)} bytes, the least is {OVERHEAD_BYTES}")
    (magic, version, how, sections, tensors, elements, length, base_version, digest, plan_id, side_bytes) = (
        _HEADER.unpack_from(payload)
    )
    if magic != MAGIC:
        raise PayloadError("magic", "not a slimfleet payload")
    if version != FORMAT_VERSION:
        raise PayloadError("version", f"format version {version}, this end speaks {FORMAT_VERSION}")
    if length != len(payload):
        raise PayloadError("truncated", f"payload of {len(payload)} bytes declares {length}")
    end = length - _CHECKSUM.size
    view = memoryview(payload)
    if _CHECKSUM.unpack_from(payload, end)[0] != xxhash.xxh64_intdigest(view[:end]):
        raise PayloadError("checksum", "the checksum does not match: bytes changed on the way")
    if side_bytes > min(MAX_SIDE_BYTES, length - OVERHEAD_BYTES):
        raise PayloadError("header", f"side section of {side_bytes} bytes does not fit")
    if sections & ~0b1111:
        raise PayloadError("header", f"unknown sections {sections:#04x}")
    body = _HEADER.size + side_bytes
    header = Header(
        schema_digest=digest,
        tensors=tensors,
        elements=elements,
        base_version=base_version,
        plan_id=plan_id,
        kind=_kind(how >> 4),
        coder=_coder(how & 0b1111),
        sections=Sections(sections),
        side=bytes(view[_HEADER.size : body]),
    )
    return Opened(header, view[body:end])


def check_schema(header: Header, schema: ModelSchema) -> None:
    """Raise PayloadError when the payload was made for another model: schema or counts."""
    if header.schema_digest != schema.digest:
        raise PayloadError(
            "schema", f"payload for schema {header.schema_digest.hex()}, expected {schema.digest.hex()}"
        )
    if (header.tensors, header.elements) != (len(schema.tensors), schema.elements):
        raise PayloadError(
            "counts",
            f"payload declares {header.tensors} tensors with {header.elements} elements, "
            f"the schema has {len(schema.tensors)} with {schema.elements}",
        )


def _kind(number: int) -> PayloadKind:
    try:
        return PayloadKind(number)
    except ValueError:
        raise PayloadError("header", f"unknown kind {number}") from None


def _coder(number: int) -> Coder:
    try:
        return Coder(number)
    except ValueError:
        raise PayloadError("version", f"unknown coder {number}: a newer slimfleet may know it") from None
