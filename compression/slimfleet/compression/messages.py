"""Messages between coordinator and device, independent of the transport.

Everything but the binary payload travels as one short JSON text. `parse` takes nothing on trust: a wrong type, a
missing or unknown field, a value outside the bounds that `types` states, or a number that is not finite raises
`PayloadError("message")`. `text_of` leaves out what is at its default, so that a field that is added reaches an older
receiver only where it changes something (docs/device-api.md, Changing it).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Le, Lt
from pydantic import TypeAdapter, ValidationError

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.foreign_text import foreign_text
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import (
    MOST_EVALUATED,
    UNKNOWN,
    USUAL_STARTUP,
    Budget,
    Condition,
    Cost,
    Count,
    DeviceProfile,
    ExampleCount,
    Joules,
    NotNegative,
    Plan,
    Positive,
    Preset,
    Report,
    Rounding,
    Share,
    Startup,
)
from slimfleet.compression.validation import first_problem

MAX_TEXT = 16_384
"""Longest JSON text accepted from the other end, in characters."""

LONGEST_NAME = 60
"""Characters of an unknown field's name that are told."""

WRAPPING_BYTES = 8_192
"""Bytes that an answer may take beyond its plain arrays, where the budget sets no limit: headers and tables."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """How a device trains and encodes; the same for every device of a round."""

    learning_rate: Positive
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    proximal: NotNegative = 0.0
    """Weight mu of FedProx's term mu/2 * |w - w_received|^2 (Li et al. 2020, arXiv 1812.06127, eq. 2)."""
    rounding: Rounding = "deadzone"
    feedback: bool = True
    """Whether what the codec drops is kept on the device and added to its next update."""
    feedback_decay: Share = 1.0
    """Factor on the kept residual for every further round that it waits."""
    feedback_max_age: Count = 1_000
    """Rounds after which a residual is dropped."""
    feedback_max_norm: Positive = 4.0
    """Largest norm of the residual, in norms of the update that it is added to."""
    seed: Count = 0
    held_out: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of its examples that a device never trains on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationLimit:
    """How much of its held-out examples a device may evaluate in a round, before it trains."""

    examples: Annotated[int, Ge(1), Le(MOST_EVALUATED)]
    energy_j: Joules


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What a device says about itself when it joins."""

    profile: DeviceProfile
    examples: ExampleCount
    """Number of local examples."""
    startup: Startup = USUAL_STARTUP
    """What this message took before it could be answered; a round takes about as much before its first step."""
    condition: Condition = UNKNOWN


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What a device had spent on a round that it refused, up to the refusal."""

    cost: Cost
    startup: Startup
    condition: Condition = UNKNOWN
    """At the refusal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """One device's work for one round; the encoded model travels beside it."""

    round_number: Count
    plan_id: Annotated[int, Ge(0), Lt(2**64)]
    """Unique for every device and round: an answer to another plan is a replay."""
    plan: Plan
    budget: Budget
    training: Training
    codec_preset: Preset = "small"
    """Codec preset of the answer. A device without the native coder answers in the portable preset."""
    acknowledged_round: Count | None = None
    """Last round whose update from this device was accepted: tells the device which residual holds."""
    evaluation: EvaluationLimit | None = None
    """None where the device is to evaluate nothing."""

    def uplink_limit(self, schema: ModelSchema) -> int:
        """Most bytes of the answer, the update of a model of `schema`: the budget's, else its plain arrays and
        `WRAPPING_BYTES`. The device keeps to this limit, and the coordinator enforces it."""
        limit = self.budget.uplink_bytes
        return schema.nbytes + WRAPPING_BYTES if limit is None else limit


Message = Registration | Assignment | Report | Spent | Condition
M = TypeVar("M", Registration, Assignment, Report, Spent, Condition)

_ADAPTERS: Mapping[type[Message], TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (Registration, Assignment, Report, Spent, Condition)
}


def text_of(message: Message) -> str:
    """A message as JSON, without fields at their defaults. Raises ValueError where a number is not finite."""
    fields = _ADAPTERS[type(message)].dump_python(message, warnings=False, exclude_defaults=True)
    return json.dumps(fields, allow_nan=False)


def as_received(message: M) -> M:
    """A message of this process as `parse` would give it to the other end: within the bounds, or PayloadError."""
    adapter = _ADAPTERS[type(message)]
    try:
        received: M = adapter.validate_json(adapter.dump_json(message, warnings=False), strict=True)
    except ValidationError as error:
        what = type(message).__name__
        raise PayloadError("message", f"not an acceptable {what}: {first_problem(error)}") from error
    return received


def parse(kind: type[M], text: str) -> M:
    """Rebuild a message from JSON that may be hostile."""
    what = kind.__name__
    if len(text) > MAX_TEXT:
        raise PayloadError("message", f"a {what} of {len(text)} characters: the limit is {MAX_TEXT}")
    try:
        fields = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_finite)
        message: M = _ADAPTERS[kind].validate_json(text, strict=True)
    except (ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
        problem = first_problem(error) if isinstance(error, ValidationError) else error
        raise PayloadError("message", f"not an acceptable {what}: {problem}") from error
    if not isinstance(fields, dict):
        raise PayloadError("message", f"not an acceptable {what}: it is no object")
    unknown = next(_unknown(fields, _fields_of(message)), None)
    if unknown is not None:
        receiver = "device" if kind is Assignment else "coordinator"
        raise PayloadError(
            "message",
            f"not an acceptable {what}: {foreign_text(unknown, LONGEST_NAME)} is not known here; "
            f"it is made for a newer {receiver}: update this one",
        )
    return message


def _fields_of(message: Message) -> dict[str, Any]:
    """As `dataclasses.asdict` gives them, in a fraction of its time."""
    fields: dict[str, Any] = _ADAPTERS[type(message)].dump_python(message, warnings=False)
    return fields


def _finite(digits: str) -> float:
    value = float(digits)
    if not isfinite(value):
        raise ValueError(f"{digits[:20]} is not a finite number")
    return value


def _unknown(given: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    for key, value in given.items():
        if key not in known:
            yield key
        elif isinstance(value, dict):
            yield from _unknown(value, known[key])
