"""How messages grow: what has been released stays as it is, what is added has a default, and is never passed over.

`python tests/compression/test_message_growth.py` writes released_messages.json anew, once new fields are released.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from pydantic import TypeAdapter

from slimfleet.compression import Budget, DeviceProfile, PayloadError, Plan, messages
from slimfleet.compression.messages import Assignment, Message, Registration, Training, parse, text_of

RELEASED = Path(__file__).parent / "released_messages.json"
REQUIRED = "required"
ASSIGNMENT = Assignment(
    round_number=3,
    plan_id=2**64 - 1,
    plan=Plan(width=0.5, local_steps=8, batch_size=32, nmse=0.1),
    budget=Budget(energy_j=5.0),
    training=Training(learning_rate=0.05),
)
REGISTRATION = Registration(
    profile=DeviceProfile(
        name="pi 4", device_class="sbc-mid", ram_bytes=2**32, train_flops_per_s=5.9e9, idle_w=1.6, train_w=3.4,
        uplink_bytes_per_s=1e6, downlink_bytes_per_s=3e6,
        radio_j_per_byte_up=9e-7, radio_j_per_byte_down=4e-7, radio_j_per_burst=0.5,
    ),
    examples=600,
)  # fmt: skip


def of(kind: type, where: str = "") -> Iterator[tuple[str, Any]]:
    """Every field of a message, down to the last, and its default."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        name, hint = f"{where}.{field.name}" if where else field.name, hints[field.name]
        made = field.default_factory() if field.default_factory is not MISSING else field.default
        yield name, REQUIRED if made is MISSING else TypeAdapter(hint).dump_python(made, mode="json")
        for inner in (hint, *get_args(hint)):
            if isinstance(inner, type) and is_dataclass(inner):
                yield from of(inner, name)


def ours() -> dict[str, dict[str, Any]]:
    return {kind.__name__: dict(of(kind)) for kind in get_args(Message)}


def broken(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> Iterator[str]:
    """What an older or a newer receiver would take for something else."""
    for kind, released in before.items():
        for name, default in released.items():
            if name not in after[kind]:
                yield f"{kind}.{name} is gone"
            elif after[kind][name] != default:
                yield f"{kind}.{name} was {default!r}, it is {after[kind][name]!r}"
        for name in after[kind].keys() - released.keys():
            parent = name.rpartition(".")[0]
            if after[kind][name] == REQUIRED and (not parent or parent in released):
                yield f"{kind}.{name} has no default"


def test_what_is_released_stays_and_what_is_added_has_a_default():
    released = json.loads(RELEASED.read_text())
    assert len(released["Assignment"]) > 25
    assert list(broken(released, ours())) == []


def test_a_break_would_be_found():
    for kind, name, now, found in (
        ("Assignment", "training.momentum", 0.95, "was 0.9"),
        ("Assignment", "training.learning_rate", 0.1, "was 'required'"),
        ("Assignment", "evaluation", None, ""),
        ("Report", "loss", None, "gone"),
        ("Registration", "firmware", REQUIRED, "no default"),
        ("Registration", "firmware", "", ""),
    ):
        changed = ours()
        if found == "gone":
            del changed[kind][name]
        else:
            changed[kind][name] = now
        problems = list(broken(ours(), changed))
        assert [found in each for each in problems] == [True] * bool(found), (name, problems)


def test_what_is_at_its_default_is_not_sent():
    assert json.loads(text_of(ASSIGNMENT)) == {
        "round_number": 3,
        "plan_id": 2**64 - 1,
        "plan": {"width": 0.5, "local_steps": 8, "batch_size": 32, "nmse": 0.1},
        "budget": {"energy_j": 5.0},
        "training": {"learning_rate": 0.05},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterTraining(Training):
    warmup_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterAssignment(Assignment):
    training: LaterTraining


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterRegistration(Registration):
    accelerator: str | None = None


@pytest.fixture
def later(monkeypatch):
    """What a version after this one writes."""
    for kind in (LaterAssignment, LaterRegistration):
        monkeypatch.setitem(messages._ADAPTERS, kind, TypeAdapter(kind))
    own = {field.name: getattr(ASSIGNMENT, field.name) for field in fields(ASSIGNMENT)}

    def assignment(warmup_steps: int) -> str:
        training = LaterTraining(learning_rate=0.05, warmup_steps=warmup_steps)
        return text_of(LaterAssignment(**own | {"training": training}))

    return assignment


def test_a_later_coordinator_reaches_this_device_until_it_asks_for_more(later):
    assert parse(Assignment, later(0)) == ASSIGNMENT
    with pytest.raises(
        PayloadError, match="warmup_steps is not known here; it is made for a newer device: update"
    ):
        parse(Assignment, later(5))


def test_a_later_device_is_heard_by_this_coordinator_until_it_says_more(later):
    text = text_of(LaterRegistration(profile=REGISTRATION.profile, examples=600))
    assert parse(Registration, text) == REGISTRATION
    text = text_of(LaterRegistration(profile=REGISTRATION.profile, examples=600, accelerator="npu"))
    with pytest.raises(
        PayloadError, match="accelerator is not known here; it is made for a newer coordinator"
    ):
        parse(Registration, text)


def test_an_earlier_coordinator_and_device_are_understood():
    """Of the first version: fields at their defaults were written out."""
    before = json.dumps(messages._fields_of(replace(ASSIGNMENT, acknowledged_round=2)))
    assert parse(Assignment, before) == replace(ASSIGNMENT, acknowledged_round=2)


def test_the_device_in_node_js_takes_and_refuses_the_same(later):
    from node_client import CLIENT, node

    program = f"""
import {{ parseAssignment }} from '{CLIENT / "gateway" / "assignment.js"}';
for (const text of {json.dumps([later(0), later(5)])}) {{
  try {{ console.log(parseAssignment(text).training.momentum); }}
  catch (error) {{ console.log(`${{error.reason}}: ${{error.message}}`); }}
}}
"""
    said = subprocess.run(
        [node(), "--input-type=module", "-e", program], capture_output=True, text=True, check=True, timeout=60
    )
    took, refused = said.stdout.splitlines()
    assert took == "0.9"
    assert refused == (
        "message: training.warmup_steps is not known here; it is made for a newer device: update this one"
    )


if __name__ == "__main__":
    RELEASED.write_text(json.dumps(ours(), indent=1, sort_keys=True) + "\n")
