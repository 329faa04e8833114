"""Decoding: payloads, and the tensors that they hold to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from making.models import (
    GOLDEN_FOLDER,
    GROUPS,
    SCHEMAS,
    odd_tensors,
    wide_groups,
    wide_schema,
    wide_tensors,
)
from making.text import text_of
from making.writing import Document, Files, float_bytes, groups_json, integers_json
from slimfleet.client.anatomy import schema_record
from slimfleet.compression import PayloadError
from slimfleet.compression.codec import (
    CodecSpec,
    Coding,
    Snapshot,
    carried,
    decode,
    decode_change,
    decode_model,
    encode,
    encode_change,
    encode_model,
    publish,
)
from slimfleet.compression.pruning import IndexMap, index_map, pack_channels, unpack_channels
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Preset, Tensors
from slimfleet.compression.wire import Envelope, PayloadKind, unseal

KINDS = {
    "small": [
        *((f"{how}_update", "update") for how in ("sparse", "ternary", "dense", "float32")),
        *((f"{how}_model", "model") for how in ("sparse", "ternary", "dense", "float32")),
        ("published", "model"),
        ("changed", "change"),
    ],
    "frozen": [("frozen_model", "model"), ("frozen_change", "change")],
    "moving": [("frozen_update", "update")],
    "large": [
        (f"contexts_{how}", "update") for how in ("small", "small_fine", "small_scalar", "fast", "fast_runs")
    ],
}
"""Golden payloads by schema. Those with a guess are left out: no device is sent one."""
HELD = {"changed": "published", "frozen_change": "frozen_model"}


def decoding() -> Files:
    files: Files = {}
    cases = [_golden(name, schema, kind) for schema, names in KINDS.items() for name, kind in names]
    for name, (schema, kind, payload, held) in {**_odd(), **_wide()}.items():
        files[f"bytes/{name}.payload"] = payload
        case, values = _case(name, schema, kind, payload, held)
        files[f"bytes/{name}.float32"] = values
        cases.append(
            {**case, "payload": f"bytes/{name}.payload", "expected_float32": f"bytes/{name}.float32"}
        )
    document: Document = {
        "schemas": {name: schema_record(schema) for name, schema in SCHEMAS.items()},
        "groups": {name: groups_json(groups) for name, groups in GROUPS.items()},
        "cases": cases,
    }
    return {**files, "decode.json": text_of(document)}


def _golden(name: str, schema: str, kind: str) -> Document:
    payload = (GOLDEN_FOLDER / f"{name}.payload").read_bytes()
    held = HELD.get(name)
    case, _ = _case(name, schema, kind, payload, held)
    at = f"../../compression/golden/{name}"
    return {**case, "payload": f"{at}.payload", "expected_float32": f"{at}.float32"}


def _case(name: str, schema: str, kind: str, payload: bytes, held: str | None) -> tuple[Document, bytes]:
    header = unseal(payload).header
    tensors, cut = tensors_of(schema, kind, payload, held)
    case: Document = {
        "name": name,
        "schema": schema,
        "kind": kind,
        "header": {
            "base_version": header.base_version,
            "plan_id": str(header.plan_id),
            "side": header.side.hex(),
        },
        "expected_integers": integers_json(tensors, cut),
    }
    return case | ({} if held is None else {"held": held}), float_bytes(tensors, cut)


def tensors_of(schema: str, kind: str, payload: bytes, held: str | None) -> tuple[Tensors, ModelSchema]:
    """The tensors of a payload as this client decodes them, and the schema that they are in."""
    full, groups = SCHEMAS[schema], GROUPS.get(schema)
    if kind == "update":
        decoded = decode(payload, full)
        if decoded.header.kind is not PayloadKind.UPDATE:
            raise PayloadError("header", "no update")
        return decoded.tensors, full
    cut = full if groups is None else _map(payload).schema
    if kind == "model":
        return decode_model(payload, cut).tensors, cut
    assert held is not None
    whole, header = held_payload(held), unseal(payload).header
    base = decode_model(whole, full).snapshot
    if base is None or header.base_version != unseal(whole).header.base_version:
        raise PayloadError("stale", f"version {header.base_version} is not held")
    if groups is not None:
        base = base.cut(_map(payload))
    return decode_change(payload, cut, base).tensors, cut


def held_payload(name: str) -> bytes:
    made = {**_odd(), **_wide()}
    return made[name][2] if name in made else (GOLDEN_FOLDER / f"{name}.payload").read_bytes()


def _map(payload: bytes) -> IndexMap:
    return index_map(
        wide_schema(), wide_groups(), unpack_channels(wide_groups(), unseal(payload).header.side)
    )


Made = dict[str, tuple[str, str, bytes, str | None]]
"""Name -> schema, kind, payload, and the case whose model it changes."""


def _odd() -> Made:
    tensors, schema = odd_tensors(), SCHEMAS["odd"]
    moving = schema.moving
    finite: Tensors = {
        t.name: np.where(np.isfinite(tensors[t.name]), tensors[t.name], 0).astype(t.dtype)
        for t in moving.tensors
    }
    zeros = {t.name: np.zeros(t.shape, t.dtype) for t in moving.tensors}

    def model(spec: CodecSpec, preset: Preset) -> bytes:
        envelope = Envelope(kind=PayloadKind.MODEL, base_version=2**32 - 1)
        return encode(tensors, schema, spec, envelope=envelope, coding=Coding(preset)).payload

    def update(of: Tensors, spec: CodecSpec, preset: Preset = "portable") -> bytes:
        envelope = Envelope(base_version=3, plan_id=2**64 - 1)
        return encode(of, moving, spec, envelope=envelope, coding=Coding(preset)).payload

    return {
        "odd_model_tables": ("odd", "model", model(CodecSpec(bits=8), "portable"), None),
        "odd_model_contexts": ("odd", "model", model(CodecSpec(bits=6), "small"), None),
        "odd_model_float32": ("odd", "model", model(CodecSpec(bits=32), "portable"), None),
        "odd_update": ("odd update", "update", update(finite, CodecSpec(bits=6)), None),
        "zero_update": ("odd update", "update", update(zeros, CodecSpec(bits=6)), None),
    }


def _wide() -> Made:
    """A whole model, and a change that comes narrower: of the model held, four of six channels."""
    groups, schema = wide_groups(), wide_schema()
    held = _published(wide_tensors(), None)
    later = wide_tensors()
    later["first.weight"] = later["first.weight"] * np.float32(1.25)
    later["norm.num_batches_tracked"] = np.array(8, np.int64)
    now = _published(later, held)
    every, four = {"first": np.arange(6)}, {"first": np.array([0, 2, 3, 5])}
    cut = index_map(schema, groups, four)
    part, base = now.cut(cut), held.cut(cut)
    made: Made = {}
    for preset in ("portable", "small", "fast"):
        name = {"portable": "tables"}.get(preset, preset)
        whole = encode_model(
            held, held.plain, schema, version=4, side=pack_channels(groups, every), preset=preset
        )
        made[f"wide_model_{name}"] = ("wide", "model", whole, None)
        side = pack_channels(groups, four)
        change = encode_change(part, base, part.plain, cut.schema, base_version=4, side=side, preset=preset)
        assert change is not None
        made[f"narrow_change_{name}"] = ("wide", "change", change, f"wide_model_{name}")
        narrow = encode_model(part, part.plain, cut.schema, version=5, side=side, preset=preset)
        made[f"narrow_model_{name}"] = ("wide", "model", narrow, None)
    return made


def _published(tensors: Tensors, before: Snapshot | None) -> Snapshot:
    schema = wide_schema()
    return replace(publish(tensors, schema, 6, before), plain=carried(tensors, schema))
