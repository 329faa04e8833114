"""What arrives from the other end is either a sound message or a PayloadError; there is no third way."""

import dataclasses
import json
import typing
from dataclasses import replace
from typing import Any

import annotated_types
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from slimfleet.compression import (
    Budget,
    Cost,
    DeviceProfile,
    ModelSchema,
    PayloadError,
    Plan,
    Report,
    messages,
)
from slimfleet.compression.messages import (
    MAX_TEXT,
    WRAPPING_BYTES,
    Assignment,
    EvaluationLimit,
    Registration,
    Training,
    parse,
    text_of,
)
from slimfleet.compression.types import Evaluated, Pause, PhaseCost, Phases

PROFILE = DeviceProfile(
    name="pi 4",
    device_class="sbc-mid",
    ram_bytes=4 * 2**30,
    train_flops_per_s=5.9e9,
    idle_w=1.6,
    train_w=3.4,
    uplink_bytes_per_s=1e6,
    downlink_bytes_per_s=3e6,
    radio_j_per_byte_up=9e-7,
    radio_j_per_byte_down=4e-7,
    radio_j_per_burst=0.5,
    battery_j=1.0,
)
REGISTRATION = Registration(profile=PROFILE, examples=600)
ASSIGNMENT = Assignment(
    round_number=3,
    plan_id=2**64 - 1,
    plan=Plan(width=0.5, local_steps=8, batch_size=32, nmse=0.1, reason="full"),
    budget=Budget(
        energy_j=5.0,
        power_w=2.0,
        memory_bytes=10**8,
        deadline_s=60.0,
        uplink_bytes=10**4,
        downlink_bytes=10**5,
    ),
    training=Training(learning_rate=0.05),
    acknowledged_round=1,
    evaluation=EvaluationLimit(examples=10, energy_j=0.1),
)
REPORT = Report(
    spent=Cost(
        energy_j=4.0, radio_j=1.0, time_s=30.0, memory_bytes=10**8, uplink_bytes=9_000, downlink_bytes=8_000
    ),
    source="measured",
    loss=0.7,
    examples=600,
    steps=8,
    stopped_by="energy_j",
    accuracy=0.5,
    phases=Phases.of({"train": PhaseCost(time_s=3.0, energy_j=3.0, source="measured", uncertainty_j=0.5)}),
    evaluated=Evaluated(examples=4, loss_sum=9, correct=3, score_sum=2, by_class=((3, 2), (1, 1))),
    pauses=(Pause(reason="heat", times=2, time_s=40.0),),
    gross_j=9.0,
)
MESSAGES = (REGISTRATION, ASSIGNMENT, REPORT)

Path = tuple[str, ...]


def leaves(kind: type, path: Path = ()) -> list[tuple[Path, Any]]:
    """Every field of a message type down to the last, with its annotation."""
    found = []
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        hint, inner = _of_dataclass(hints[field.name]), (*path, field.name)
        found += leaves(hint, inner) if dataclasses.is_dataclass(hint) else [(inner, hint)]
    return found


def _of_dataclass(hint: Any) -> Any:
    """The dataclass of an optional one, any other annotation as it is."""
    inner = [p for p in typing.get_args(hint) if isinstance(p, type) and dataclasses.is_dataclass(p)]
    return inner[0] if inner else hint


def out_of_bounds(hint: Any) -> list[Any]:
    """Values just outside what an annotation allows, and of other types."""
    wrong: list[Any] = [[], {}, "nonsense" * 100]
    optional = type(None) in typing.get_args(hint)
    parts = [hint, *typing.get_args(hint)]
    if not optional:
        wrong.append(None)
    bounds = [b for part in parts for b in getattr(part, "__metadata__", ())]
    numeric = any(typing.get_origin(p) is typing.Annotated and typing.get_args(p)[0] is int for p in parts)
    step = 1 if numeric else 1e-6
    for bound in bounds:
        match bound:
            case annotated_types.Ge(ge):
                wrong.append(ge - step)
            case annotated_types.Gt(gt):
                wrong += [gt, gt - step]
            case annotated_types.Le(le):
                wrong.append(le + step)
            case annotated_types.Lt(lt):
                wrong += [lt, lt + step]
            case annotated_types.MaxLen(most):
                wrong.append("x" * (most + 1))
    if numeric:
        wrong += [0.5, "1", True]
    return wrong


def changed(message: Any, path: Path, value: Any) -> str:
    fields = json.loads(json.dumps(messages._fields_of(message)))  # those at their defaults, too
    place = fields
    for name in path[:-1]:
        place = place[name]
    place[path[-1]] = value
    return json.dumps(fields)


CASES = [
    pytest.param(message, path, value, id=f"{'.'.join(path)}={str(value)[:20]}")
    for message in MESSAGES
    for path, hint in leaves(type(message))
    for value in out_of_bounds(hint)
]


def test_there_are_bounds_to_test():
    """Guards the introspection above: it must find each numeric field's bounds."""
    ids = {case.id for case in CASES}
    assert {"examples=0", "examples=2147483649", "plan.width=0", "plan.nmse=1", "steps=-1"} <= ids
    assert {"plan_id=18446744073709551616", "spent.energy_j=-1e-06", "training.momentum=1"} <= ids
    assert len(CASES) > 250


@pytest.mark.parametrize(("message", "path", "value"), CASES)
def test_every_bound_and_type_is_enforced(message, path, value):
    with pytest.raises(PayloadError) as refusal:
        parse(type(message), changed(message, path, value))
    assert refusal.value.reason == "message"


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_survive_the_way(message):
    assert parse(type(message), text_of(message)) == message


def test_what_is_left_out_takes_its_default():
    bare = replace(ASSIGNMENT, budget=Budget(), acknowledged_round=None)
    fields = json.loads(text_of(bare))
    assert fields["budget"] == {}
    assert "acknowledged_round" not in fields
    assert parse(Assignment, json.dumps(fields)) == bare


@pytest.mark.parametrize("digits", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" + "0" * 400])
@pytest.mark.parametrize("path", [p for p, hint in leaves(Report) if p[0] in ("spent", "loss", "accuracy")])
def test_numbers_that_are_not_finite_are_refused(digits, path):
    text = changed(REPORT, path, "HERE").replace('"HERE"', digits)
    with pytest.raises(PayloadError) as refusal:
        parse(Report, text)
    assert refusal.value.reason == "message"


@pytest.mark.parametrize("path", [("root",), ("spent", "root"), ("spent", "energy_J")])
def test_unknown_fields_are_refused_at_every_depth(path):
    with pytest.raises(PayloadError, match="not known"):
        parse(Report, changed(REPORT, path, 1))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "0",
        '"text"',
        "{}",
        "{" * 5_000,
        "[" * 16_000,
        '{"spent":' * 1_700 + "1" + "}" * 1_700,
        "\ud800",
        '{"loss": "\\ud800"}',
        text_of(REPORT) + "x",
        text_of(REPORT)[:-1],
        text_of(REPORT) + " " * MAX_TEXT,
        "1" * 10_000,
    ],
    ids=lambda text: repr(text[:12]),
)
def test_what_is_no_report_is_refused(text):
    with pytest.raises(PayloadError) as refusal:
        parse(Report, text)
    assert refusal.value.reason == "message"
    assert len(str(refusal.value)) < 500


def test_a_field_given_twice_counts_once_and_within_its_bounds():
    """JSON leaves open which one holds; what matters is that the bounds are checked on the one that does."""
    twice = text_of(REPORT).replace('"loss": 0.7', '"loss": 0.7, "loss": 0.2')
    assert parse(Report, twice) == replace(REPORT, loss=0.2)
    with pytest.raises(PayloadError):
        parse(Report, text_of(REPORT).replace('"loss": 0.7', '"loss": 0.7, "loss": "low"'))


def sound(message: Any) -> None:
    """Every leaf of a parsed message is finite and re-parses to itself."""
    assert parse(type(message), text_of(message)) == message


@settings(max_examples=300)
@given(
    message=st.sampled_from(MESSAGES),
    position=st.integers(0, 10_000),
    cut=st.integers(0, 12),
    insertion=st.text(max_size=12)
    | st.sampled_from(["NaN", "1e999", "-", "{", "}", ",", '"', "null", "[[", "0"]),
)
@example(message=REPORT, position=0, cut=10_000, insertion="")
def test_text_changed_anywhere_is_a_sound_message_or_refused(message, position, cut, insertion):
    text = text_of(message)
    start = position % (len(text) + 1)
    try:
        parsed = parse(type(message), text[:start] + insertion + text[start + cut :])
    except PayloadError as error:
        if error.reason != "message":
            raise
        return
    sound(parsed)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    st.sampled_from([(message, path) for message in MESSAGES for path, _ in leaves(type(message))]),
    json_values,
)
def test_any_value_in_any_field_is_a_sound_message_or_refused(place, value):
    message, path = place
    try:
        parsed = parse(type(message), changed(message, path, value))
    except PayloadError as error:
        if error.reason != "message":
            raise
        return
    sound(parsed)


def test_text_with_a_number_that_is_not_finite_is_never_sent():
    with pytest.raises(ValueError, match="not JSON compliant"):
        text_of(replace(REPORT, loss=float("nan")))


def test_without_an_uplink_budget_an_answer_may_have_the_plain_arrays_and_a_little(schema: ModelSchema):
    assert ASSIGNMENT.uplink_limit(schema) == 10**4
    free = replace(ASSIGNMENT, budget=Budget())
    assert free.uplink_limit(schema) == schema.nbytes + WRAPPING_BYTES
