"""Work in flight as a checkpoint keeps it: all that it takes to send it again.

Payloads are files of their own, named by their content; devices that were sent the same share one. Where the elements
of a shrunk model stand in the full one is written in its payload.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import xxhash
from pydantic import TypeAdapter

from slimfleet.compression import Assignment, Budget, Cost, Payload
from slimfleet.compression.pruning import IndexMap, unpack_channels
from slimfleet.compression.pruning.blueprint import Blueprint
from slimfleet.compression.wire import unseal
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.sending.versions import Holding

PAYLOAD = "payload-"
"""Prefix of the names of files that hold one payload each, and never change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptDispatch:
    """A dispatch without its payload."""

    node: int
    assignment: Assignment
    payload: str
    """Name of the file."""
    limits: Budget
    predicted: Cost
    holding_after: Holding
    sent_s: float


KEPT = TypeAdapter(tuple[KeptDispatch, ...])


def payload_name(payload: bytes) -> str:
    """Name of the file of a payload."""
    return f"{PAYLOAD}{xxhash.xxh3_128_hexdigest(payload)}.bin"


def kept_dispatches(dispatches: Iterable[Dispatch]) -> Any:
    """Dispatches as JSON values."""
    return KEPT.dump_python(tuple(map(kept_dispatch, dispatches)))


def kept_dispatch(dispatch: Dispatch) -> KeptDispatch:
    """A dispatch without its payload."""
    return KeptDispatch(
        node=dispatch.node,
        assignment=dispatch.assignment,
        payload=payload_name(dispatch.payload),
        limits=dispatch.limits,
        predicted=dispatch.predicted,
        holding_after=dispatch.holding_after,
        sent_s=dispatch.sent_s,
    )


def restored_dispatch(kept: KeptDispatch, payload: Payload, index_map: IndexMap) -> Dispatch:
    """The dispatch, with the payload that it names."""
    return Dispatch(
        node=kept.node,
        assignment=kept.assignment,
        payload=payload,
        index_map=index_map,
        limits=kept.limits,
        predicted=kept.predicted,
        holding_after=kept.holding_after,
        sent_s=kept.sent_s,
    )


def restored_dispatches(
    values: Any, read: Callable[[str], bytes], blueprint: Blueprint
) -> Sequence[Dispatch]:
    """The dispatches of `kept_dispatches`.

    `read` gives the content of a file by its name. Raises ValueError or PayloadError where something is damaged.
    """
    payloads: dict[str, Payload] = {}
    dispatches = []
    for kept in KEPT.validate_python(values):
        if kept.payload not in payloads:
            payloads[kept.payload] = _payload(kept.payload, read)
        payload = payloads[kept.payload]
        channels = unpack_channels(blueprint.groups, unseal(payload).header.side)
        dispatches.append(restored_dispatch(kept, payload, blueprint.index_map(channels)))
    return dispatches


def _payload(name: str, read: Callable[[str], bytes]) -> Payload:
    content = read(name)
    if payload_name(content) != name:
        raise ValueError(f"{name} holds another payload than its name says")
    return Payload(content)
