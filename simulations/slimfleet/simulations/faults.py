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
from slimfleet.compression.codec import Aim, CodecSpec, Coding, decode, encode, encode_to
from slimfleet.compression.messages import Registration
from slimfleet.compression.pruning import unpack_channels
from slimfleet.compression.types import Phases
from slimfleet.compression.wire import Envelope, seal, unseal

__all__ = ["FAULTS", "Fault", "FaultyDevice", "Sent", "Work", "assign_faults"]

Sent = tuple[Payload, Report]
"""What a device sends at the end of its round."""

_HANG_S = 3_600.0
_OVERSIZE_BYTES = 10_000_000
_NOISE = 15.0
"""Length of the noise that is sent, in lengths of the honest update: what is 20 times the median's is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What an honest device would have sent, and to what."""

    payload: Payload
    report: Report
    assignment: Assignment
    schema: ModelSchema
    """Of the update."""

    @property
    def sent(self) -> Sent:
        """The honest answer."""
        return self.payload, self.report


Fault = Callable[[Work], Sent]
"""Makes what is sent of what an honest device would have sent."""


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
        honest, said = self.device.do_round(assignment, payload)
        blueprint = self.device.workbench.blueprint
        channels = unpack_channels(blueprint.groups, unseal(payload).header.side)
        schema = blueprint.index_map(channels).moving.schema
        work = Work(payload=honest, report=said, assignment=assignment, schema=schema)
        spoiled, report = self.fault(work)
        return spoiled, replace(report, spent=replace(report.spent, uplink_bytes=len(spoiled)))


def _raise(work: Work) -> Sent:
    raise RuntimeError("this device raises on purpose")


def _hang(work: Work) -> Sent:
    time.sleep(_HANG_S)
    return work.sent


def _late(work: Work) -> Sent:
    deadline_s, spent = work.assignment.budget.deadline_s, work.report.spent
    late_s = 2 * (spent.time_s if deadline_s is None else deadline_s)
    phases = work.report.phases or Phases.of({})
    waited_s = phases.idle.time_s + late_s - phases.time_s
    phases = replace(phases, idle=replace(phases.idle, time_s=max(waited_s, 0.0)))
    return work.payload, replace(work.report, spent=replace(spent, time_s=late_s), phases=phases)


def _truncated(work: Work) -> Sent:
    return Payload(work.payload[: len(work.payload) * 2 // 3]), work.report


def _bit_flipped(work: Work) -> Sent:
    spoiled = bytearray(work.payload)
    spoiled[len(spoiled) // 2] ^= 1
    return Payload(bytes(spoiled)), work.report


def _wrong_schema(work: Work) -> Sent:
    return _plain({"other.weight": np.ones((3, 2), np.float32)}, work.assignment), work.report


def _stale(work: Work) -> Sent:
    header, body = unseal(work.payload)
    return seal(replace(header, base_version=max(header.base_version - 1, 0)), bytes(body)), work.report


def _replayed(work: Work) -> Sent:
    header, body = unseal(work.payload)
    return seal(replace(header, plan_id=header.plan_id ^ 1), bytes(body)), work.report


def _not_a_number(work: Work) -> Sent:
    """A payload with a good checksum that starts with a NaN; our encoders refuse to make one."""
    header, _ = unseal(work.payload)
    plain, body = unseal(_plain({"x": np.ones(header.elements, np.float32)}, work.assignment))
    poisoned = np.float32(np.nan).tobytes() + bytes(body[4:])
    renamed = replace(plain, schema_digest=header.schema_digest, tensors=header.tensors)
    return seal(renamed, poisoned), work.report


def _oversized(work: Work) -> Sent:
    return Payload(work.payload + bytes(_OVERSIZE_BYTES)), work.report


def _scaled_back(work: Work) -> Sent:
    """The update times -10: it takes back what ten honest devices learn."""
    return _with_weights(work, lambda weights: {name: -10 * value for name, value in weights.items()})


def _scaled_up(work: Work) -> Sent:
    """The update times 100."""
    return _with_weights(work, lambda weights: {name: 100 * value for name, value in weights.items()})


def _noise(work: Work) -> Sent:
    """Noise in place of the update, fifteen times as long: too short to be refused for its norm."""

    def noise(weights: Tensors) -> Tensors:
        rng = np.random.default_rng((work.assignment.training.seed, work.assignment.plan_id, 0xFA17))
        drawn = {name: rng.standard_normal(value.shape) for name, value in weights.items()}
        factor = _NOISE * _length(weights) / max(_length(drawn), 1e-12)
        return {name: factor * value for name, value in drawn.items()}

    return _with_weights(work, noise)


def _with_weights(work: Work, change: Callable[[Tensors], Tensors]) -> Sent:
    """The honest update with other weights, decoded and encoded as the plan says."""
    schema, assignment = work.schema, work.assignment
    update = decode(unseal(work.payload), schema).tensors
    spoiled = change({spec.name: update[spec.name] for spec in schema.weights})
    encoded = encode_to(
        update | {name: value.astype(update[name].dtype) for name, value in spoiled.items()},
        schema,
        Aim(
            nmse=assignment.plan.nmse,
            limit_bytes=assignment.uplink_limit(schema),
            rounding=assignment.training.rounding,
        ),
        envelope=_envelope(assignment),
        coding=Coding(assignment.codec_preset),
        rng=np.random.default_rng((assignment.training.seed, assignment.plan_id, 1)),
    )
    return encoded.payload, work.report


def _length(tensors: Tensors) -> float:
    return float(np.sqrt(sum(float(np.sum(np.square(each, dtype=np.float64))) for each in tensors.values())))


def _plain(tensors: Tensors, assignment: Assignment) -> Payload:
    schema = ModelSchema.of(tensors, set(tensors))
    return encode(tensors, schema, CodecSpec(bits=32), envelope=_envelope(assignment)).payload


def _envelope(assignment: Assignment) -> Envelope:
    return Envelope(base_version=assignment.round_number, plan_id=assignment.plan_id)


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
    "scaled_back": _scaled_back,
    "scaled_up": _scaled_up,
    "noise": _noise,
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
