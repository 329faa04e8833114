"""Entries: what changes a state between two steps, as data that a journal keeps and that can happen again.

They are bounded: a device is given work at most once a step, and answers each work at most once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from pydantic import TypeAdapter

from slimfleet.compression import Report, Skip
from slimfleet.compression.messages import MAX_TEXT, Registration, Spent
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.environment import Instant
from slimfleet.coordinator.observing.events import Planned
from slimfleet.coordinator.planning.skips import Skips
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.sending.in_flight import (
    KeptDispatch,
    kept_dispatch,
    payload_name,
    restored_dispatch,
)
from slimfleet.coordinator.state import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """A device has introduced itself."""

    node: int
    said: Registration
    overhead_s: float | None
    """Round trip of its registration less the time that the device took for it; None where that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """Devices have been given work, or have not, for a reason.

    Payloads are not kept: they are encoded again from the model, to the same bytes, which their names prove.
    """

    dispatches: tuple[KeptDispatch, ...]
    skipped: Mapping[int, Skip]
    """Those that were made one by one."""
    floor: float
    low: bytes
    """Devices of less charge than `floor`: their nodes (uint64), then their charges (float64), little-endian."""
    reasons: Mapping[int, str]
    """Node -> what the registry says of why it got its plan, or none; without those below the battery floor."""
    found_too_few: bool
    is_published: bool
    """Whether planning has made the round's model a version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A device has answered."""

    plan_id: int
    report: str
    payload: bytes
    parsed: Report | None = field(default=None, compare=False)
    """The report, where it has been parsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A device has answered that it could not, or its transport has failed."""

    plan_id: int
    reason: str
    message: str = ""
    spent: Spent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp:
    """Devices have been silent for too long."""

    plan_ids: tuple[int, ...]
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused:
    """The coordinator was dead, and counts nothing of that time."""

    later_s: float
    later_at: float
    """By the stopwatch, which may have begun anew."""


Entry = Registered | Given | Received | Failed | GaveUp | Paused

KINDS: Mapping[str, TypeAdapter[Any]] = MappingProxyType(
    {kind.__name__: TypeAdapter(kind) for kind in (Registered, Given, Received, Failed, GaveUp, Paused)}
)


def given(planned: Planned) -> tuple[Given, Instant]:
    """What `Coordinator.plan` has done, and when."""
    opened, registry = planned.state.open_round, planned.state.registry
    assert opened is not None
    skipped = planned.skipped
    nodes = (*(each.node for each in planned.dispatches), *skipped.single)
    entry = Given(
        dispatches=tuple(map(kept_dispatch, planned.dispatches)),
        skipped=skipped.single,
        floor=skipped.floor,
        low=skipped.low_bytes(),
        reasons={node: registry[node].last_reason for node in nodes},
        found_too_few=opened.found_too_few,
        is_published=opened.downlink.is_published,
    )
    return entry, planned.at


def apply(coordinator: Coordinator, entry: Entry) -> Sequence[Answer]:
    """Let an entry happen now, or at the moment of `Coordinator.at`; returns the answers that it brings.

    Raises ValueError, KeyError or PayloadError where it does not fit the state, which is then as it was.
    """
    state = coordinator.state
    match entry:
        case Registered(node=node, said=said):
            state.registry.register(node, said.profile, said.examples, said.startup)
            state.registry[node].hear(said.condition, coordinator.instant().now_s)
            if entry.overhead_s is not None:
                state.registry[node].overhead_s = entry.overhead_s
        case Given():
            _give(coordinator, entry)
        case Received():
            return [coordinator.receive(entry.plan_id, entry.payload, entry.parsed or entry.report)]
        case Failed():
            return [coordinator.fail(entry.plan_id, entry.reason, entry.message, entry.spent)]
        case GaveUp():
            return coordinator.give_up(entry.reason, entry.message, entry.plan_ids)
        case Paused():
            state.pause(entry.later_s, entry.later_at)
    return []


def packed(entry: Entry, instant: Instant, state: State) -> tuple[str, bytes]:
    """An entry as text and bytes, before it happens.

    An answer that is refused for its length alone leaves only that.
    """
    body, size = b"", 0
    if isinstance(entry, Received):
        body, size = entry.payload, len(entry.payload)
        dispatch = state.in_flight.get(entry.plan_id)
        if dispatch is None or size > dispatch.assignment.uplink_limit(dispatch.update_map.schema):
            body = b""
        report = entry.report if len(entry.report) <= MAX_TEXT else ""
        values = {"plan_id": entry.plan_id, "report": report, "report_size": len(entry.report), "size": size}
    else:
        values = KINDS[type(entry).__name__].dump_python(entry)
        body = values.pop("low", b"")
    text = {"kind": type(entry).__name__, "now_s": instant.now_s, "at": instant.at, **values}
    return json.dumps(text), body


def unpacked(text: str, body: bytes) -> tuple[Entry, Instant]:
    """The entry of `packed`. Raises ValueError or KeyError where it is none."""
    values = json.loads(text)
    kind, instant = values.pop("kind"), Instant(now_s=values.pop("now_s"), at=values.pop("at"))
    if kind == Received.__name__:
        report, size = values["report"] or " " * values["report_size"], values["size"]
        return Received(plan_id=values["plan_id"], report=report, payload=body or bytes(size)), instant
    if kind == Given.__name__:
        values["low"] = body
    entry: Entry = KINDS[kind].validate_python(values)
    return entry, instant


def _give(coordinator: Coordinator, entry: Given) -> None:
    state, opened = coordinator.state, coordinator.opened()
    now = coordinator.instant()
    if entry.is_published:
        opened.downlink.publish()
    dispatches = []
    for kept in entry.dispatches:
        payload, index_map, _ = opened.downlink.for_plan(
            kept.assignment.plan, state.registry[kept.node].holding
        )
        if payload_name(payload) != kept.payload:
            raise ValueError(
                f"the model for {state.registry.label(kept.node)} is not the one that it was sent"
            )
        dispatches.append(replace(restored_dispatch(kept, payload, index_map), handed_out_at=now.at))
    skipped = Skips.restored(entry.skipped, entry.floor, entry.low)
    rows = state.registry.columns.row_of(skipped.low)
    if (rows < 0).any():
        raise ValueError("it has devices below the floor that are not registered")
    state.registry.columns.leave_out(rows, skipped.charge, entry.floor)
    coordinator.put_in_flight(dispatches, skipped, found_too_few=entry.found_too_few)
    for node, reason in entry.reasons.items():
        state.registry[node].last_reason = reason
