"""The format is frozen: golden payloads are written byte for byte, read value for value, here and by hand.

`Plain` is a second decoder of the format that docs/wire-format.md describes, in plain Python.
"""

from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from plain_decoder.payload import Plain

from slimfleet.compression.codec import decode, decode_change, decode_model
from slimfleet.compression.wire import Coder

GOLDEN = Path(__file__).parent / "golden"
MAKE = run_path(str(GOLDEN / "make.py"))
SCHEMA = MAKE["schema"]()
CHANGED = "changed"
"""The change that makes the next version of the model `published`."""
LARGE = MAKE["large_schema"]()
CONTEXTS = sorted(path.stem for path in GOLDEN.glob("contexts_*.payload"))
"""Of the native coder, for the schema `LARGE`."""
FROZEN = {name: MAKE["frozen_schema"]() for name in ("frozen_model", "frozen_change")}
FROZEN["frozen_update"] = FROZEN["frozen_model"].moving
"""Of a model with tensors that stay as they are."""
OTHERS = (CHANGED, *CONTEXTS, *FROZEN)
NAMES = sorted(path.stem for path in GOLDEN.glob("*.payload") if path.stem not in OTHERS)


def floats_of(tensors, schema=SCHEMA):
    return np.concatenate([tensors[t.name].ravel() for t in schema.tensors if t.kind != "integer"])


def test_payloads_are_written_as_ever():
    made = {**MAKE["payloads"](), **MAKE["change"](), **MAKE["partial"](), **MAKE["contexts"]()}
    assert sorted(made) == sorted([*NAMES, *OTHERS])
    assert (len(NAMES), len(CONTEXTS)) == (9, 7)
    for name, (payload, _) in made.items():
        assert payload == (GOLDEN / f"{name}.payload").read_bytes(), name


@pytest.mark.parametrize("name", NAMES)
def test_payloads_are_read_as_ever(name):
    decoded = decode((GOLDEN / f"{name}.payload").read_bytes(), SCHEMA)
    assert floats_of(decoded.tensors).astype("<f4").tobytes() == (GOLDEN / f"{name}.float32").read_bytes()
    assert decoded.tensors["norm.num_batches_tracked"] == 300
    assert decoded.header.side == b"\xa5\x5a"


def test_a_change_is_read_as_ever():
    base = decode_model((GOLDEN / "published.payload").read_bytes(), SCHEMA).snapshot
    changed = decode_change((GOLDEN / f"{CHANGED}.payload").read_bytes(), SCHEMA, base)
    assert floats_of(changed.tensors).astype("<f4").tobytes() == (GOLDEN / f"{CHANGED}.float32").read_bytes()


@pytest.mark.parametrize("name", FROZEN)
def test_payloads_that_leave_tensors_out_are_read_as_ever(name):
    payload = (GOLDEN / f"{name}.payload").read_bytes()
    held = decode_model((GOLDEN / "frozen_model.payload").read_bytes(), FROZEN["frozen_model"]).snapshot
    if name == "frozen_change":
        tensors = decode_change(payload, FROZEN[name], held).tensors
    else:
        tensors = decode(payload, FROZEN[name]).tensors
    expected = (GOLDEN / f"{name}.float32").read_bytes()
    assert floats_of(tensors, FROZEN[name]).astype("<f4").tobytes() == expected
    # By hand, what a change leaves out is zeros.
    by_hand = Plain(payload, FROZEN[name])
    values = np.array(by_hand.decode(), "<f4")
    assert by_hand.unread == 0
    if name != "frozen_change":
        assert values.tobytes() == expected


def known_of(name):
    return MAKE["reference"]() if name.endswith("guess") else None


@pytest.mark.parametrize("name", CONTEXTS)
def test_payloads_of_the_native_coder_are_read_as_ever(name):
    decoded = decode((GOLDEN / f"{name}.payload").read_bytes(), LARGE, known_of(name))
    assert decoded.header.coder is Coder.CONTEXTS
    values = floats_of(decoded.tensors, LARGE)
    assert values.astype("<f4").tobytes() == (GOLDEN / f"{name}.float32").read_bytes()


@pytest.mark.parametrize("name", [*NAMES, *CONTEXTS])
def test_a_decoder_written_from_the_page_agrees(name):
    plain = Plain(
        (GOLDEN / f"{name}.payload").read_bytes(), LARGE if name in CONTEXTS else SCHEMA, known_of(name)
    )
    assert np.array(plain.decode()).astype("<f4").tobytes() == (GOLDEN / f"{name}.float32").read_bytes()
    assert plain.unread == 0


def test_a_change_is_decoded_by_hand():
    """Levels are added where the unit is that of the model held; in doubles, every sum of them is exact."""
    base, change = (Plain((GOLDEN / f"{n}.payload").read_bytes(), SCHEMA) for n in ("published", CHANGED))
    held, values, at, shared = base.decode(), change.decode(), 0, []
    for t in SCHEMA.tensors:
        if t.kind == "weight" and base.units[t.name] == change.units[t.name]:
            shared.append(t.name)
            for i in range(at, at + t.size):
                values[i] += held[i]
        at += 0 if t.kind == "integer" else t.size
    assert 0 < len(shared) < len(base.units)
    assert np.array(values).astype("<f4").tobytes() == (GOLDEN / f"{CHANGED}.float32").read_bytes()
