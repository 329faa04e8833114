"""Faults: devices that misbehave, as real code, for tests and for scenarios.

`fleet.faults = { truncated = 0.05 }` makes 5% of a fleet send truncated updates. A faulty device does its round
honestly first; then the fault spoils what it sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from slimfleet.client.device import Device
from slimfleet.compression import Assignment, BadInput, ModelSchema, Payload, Report, Tensors
from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.messages import Registration
from slimfleet.compression.types import Phases
from slimfleet.compression.wire import Envelope, seal, unseal

__all__ = ["FAULTS", "Fault", "FaultyDevice", "Sent", "assign_faults"]

Sent = tuple[Payload, Report]
"""What a device sends at the end of its round."""

Fault = Callable[[Payload, Report, Assignment], Sent]
"""Makes what is sent of what an honest device would have sent."""

_HANG_S = 3_600.0
_OVERSIZE_BYTES = 10_000_000


@dataclass(frozen=True, slots=True)
class FaultyDevice:
    """A device whose answer is spoiled by a fault."""

    device: Device
    fault: Fault

    def registration(self) -> Registration:
        """Register like any other device."""
        return self.device.registration()

    def do_round(self, assignment: Assignment, payload: Payload) -> Sent:
        """Do the round, then spoil the answer. The report says how many bytes really go out."""
        spoiled, report = self.fault(*self.device.do_round(assignment, payload), assignment)
        return spoiled, replace(report, spent=replace(report.spent, uplink_bytes=len(spoiled)))


def _raise(payload: Payload, report: Report, assignment: Assignment) -> Sent:
    raise RuntimeError("this device raises on purpose")


def _hang(payload: Payload, report: Report, assignment: Assignment) -> Sent:
    time.sleep(_HANG_S)
    return payload, report


def _late(payload: Payload, report: Report, assignment: Assignment) -> Sent:
    deadline_s = assignment.budget.deadline_s
    late_s = 10 * (report.spent.time_s if deadline_s is None else deadline_s)
    phases = report.phases or Phases.of({})
    waited_s = phases.idle.time_s + late_s - phases.time_s
    phases = replace(phases, idle=replace(phases.idle, time_s=max(waited_s, 0.0)))
    return payload, replace(report, spent=replace(report.spent, time_s=late_s), phases=phases)


def _truncated(payload: Payload, report: Report, assignment: Assignment) -> Sent:
    return Payload(payload[: len(payload) * 2 // 3]), report


def _bit_flipped(payload: Payload, report: Report, assignment: Assignment) -> Sent:
    spoiled = bytearray(payload)
    spoiled[len(spoiled) // 2] ^= 1
    return Payload(bytes(spoiled)), report


def _wrong_schema(payload: Payload, report: Report, assignment: Assignment) -> Sent:
    return _encoded({"other.weight": np.ones((3, 2), np.float32)}, assignment), report


def _stale(payload: Payload, report: Report, assignment: Assignment) -> Sent:
    header, body = unseal(payload)
    return seal(replace(header, base_version=max(header.base_version - 1, 0)), bytes(body)), report


def _replayed(payload: Payload, report: Report, assignment: Assignment) -> Sent:
    header, body = unseal(payload)
    return seal(replace(header, plan_id=header.plan_id ^ 1), bytes(body)), report


def _not_a_number(payload: Payload, report: Report, assignment: Assignment) -> Sent:
    """A payload with a good checksum that starts with a NaN; our encoders refuse to make one."""
    header, _ = unseal(payload)
    plain, body = unseal(_encoded({"x": np.ones(header.elements, np.float32)}, assignment))
    poisoned = np.float32(np.nan).tobytes() + bytes(body[4:])
    return seal(replace(plain, schema_digest=header.schema_digest, tensors=header.tensors), poisoned), report


def _oversized(payload: Payload, report: Report, assignment: Assignment) -> Sent:
    return Payload(payload + bytes(_OVERSIZE_BYTES)), report


def _encoded(tensors: Tensors, assignment: Assignment) -> Payload:
    return encode(
        tensors,
        ModelSchema.of(tensors, set(tensors)),
        CodecSpec(bits=32),
        envelope=Envelope(base_version=assignment.round_number, plan_id=assignment.plan_id),
    ).payload


FAULTS: Mapping[str, Fault] = {
    "raise": _raise,
    "hang": _hang,
    "late": _late,
    "truncated": _truncated,
    "bit_flipped": _bit_flipped,
    "wrong_schema": _wrong_schema,
    "stale": _stale,
    "replayed": _replayed,
    "not_a_number": _not_a_number,
    "oversized": _oversized,
}
"""Kinds of misbehaviour by name."""


def assign_faults(shares: Mapping[str, float], devices: int, seed: int) -> dict[int, Fault]:
    """Draw which devices are faulty: each kind gets its share of the fleet, rounded; no device has two kinds.

    Raises BadInput for an unknown kind, or for shares that sum to more than the fleet.
    """
    unknown = [name for name in shares if name not in FAULTS]
    if unknown:
        raise BadInput(f"fleet.faults names an unknown kind {unknown[0]!r}; known: {', '.join(FAULTS)}")
    kinds = [name for name in sorted(shares) for _ in range(round(shares[name] * devices))]
    if len(kinds) > devices:
        raise BadInput(f"fleet.faults makes {len(kinds)} devices faulty, the fleet has {devices}")
    chosen = np.random.default_rng([seed, 0xFA17]).permutation(devices)[: len(kinds)]
    return {int(number): FAULTS[kind] for number, kind in zip(chosen, kinds, strict=True)}
