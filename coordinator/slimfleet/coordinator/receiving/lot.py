"""Lots: the answers of several devices, judged and added up where they were computed.

A worker that computes many devices' rounds is no device: it is trusted as the coordinator is, and applies the checks
and bounds that the coordinator would apply, to the bytes that each device sends. What it passes on is a verdict a
device, and one sum.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from pydantic import TypeAdapter

from slimfleet.compression import ModelSchema, PayloadError, Report, Tensors
from slimfleet.coordinator.learning.aggregate import shortened
from slimfleet.coordinator.learning.covered_sum import PartialSum, Scale
from slimfleet.coordinator.receiving.answer import Answer, Verdict, judged
from slimfleet.coordinator.receiving.bounds import FleetBounds
from slimfleet.coordinator.receiving.checks import Norms
from slimfleet.coordinator.sending.dispatch import Dispatch

__all__ = ["Adder", "Judged", "Lot", "Rules", "verdicts_in", "verdicts_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the answers of one round are judged and added up by."""

    bounds: FleetBounds
    scale: Scale
    in_time_s: float
    """An answer that takes longer is none of a lot."""

    def to_json(self) -> str:
        """As text; `from_json` reads it back."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Rules:
        """Raises ValueError for a text that is not from `to_json`."""
        rules: Rules = _RULES.validate_python(json.loads(text))
        return rules


_RULES = TypeAdapter(Rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The verdict on one device's update; a part of `Answer`, and named as there."""

    plan_id: int
    verdict: Verdict
    reason: str
    message: str
    report: Report | None
    received_bytes: int | None
    broken: tuple[str, ...]
    norms: Norms | None

    def answer(self, dispatch: Dispatch) -> Answer:
        """The answer to `dispatch`."""
        return Answer(
            dispatch=dispatch,
            verdict=self.verdict,
            reason=self.reason,
            message=self.message,
            report=self.report,
            received_bytes=self.received_bytes,
            broken=self.broken,
            norms=self.norms,
        )


VERDICTS = TypeAdapter(tuple[Judged, ...])


@dataclass(frozen=True, slots=True)
class Lot:
    """Devices of one payload that have answered, and the sum of those updates that are accepted."""

    judged: Sequence[Judged]
    total: PartialSum

    @property
    def took_s(self) -> float:
        """Until the last of them was done."""
        return max(each.report.spent.time_s for each in self.judged if each.report is not None)


class Adder:
    """Judges the answers of devices to one payload, and adds up the acceptable updates."""

    def __init__(self, rules: Rules, schema: ModelSchema) -> None:
        """`schema` is that of the updates, weights alone."""
        self._rules, self._schema = rules, schema
        self._judged: list[Judged] = []
        self._integers: Tensors = {}
        self._weight = self._updates = 0

    def takes(self, report: Report) -> bool:
        """Whether an answer can be part of the lot."""
        return report.spent.time_s < self._rules.in_time_s

    def add(self, dispatch: Dispatch, payload: bytes, said: str | Report) -> None:
        """Judge an answer and its report as `Coordinator.receive` does, and add its update where that is acceptable."""
        answer, update = judged(dispatch, payload, said, self._rules.bounds, {}, None)
        if update is not None:
            answer = self._added(answer, update)
        self._judged.append(
            Judged(
                plan_id=dispatch.plan_id,
                verdict=answer.verdict,
                reason=answer.reason,
                message=answer.message,
                report=answer.report,
                received_bytes=answer.received_bytes,
                broken=answer.broken,
                norms=answer.norms,
            )
        )

    def lot(self) -> Lot:
        """What has been added."""
        return Lot(self._judged, PartialSum(self._integers, self._weight, self._updates))

    def _added(self, answer: Answer, update: Tensors) -> Answer:
        assert answer.report is not None
        bounds, scale = self._rules.bounds, self._rules.scale
        examples = bounds.weight(answer.report.examples)
        update = shortened(update, self._schema, bounds.longest_at(examples))
        try:
            integers = scale.integers(update, examples)
        except PayloadError as error:
            return replace(answer, verdict="rejected", reason=error.reason, message=str(error))
        for name, values in integers.items():
            if name in self._integers:
                self._integers[name] += values
            else:
                self._integers[name] = values
        self._weight += scale.weight(examples)
        self._updates += 1
        return answer


def verdicts_text(lot: Lot) -> str:
    """The verdicts of a lot as JSON."""
    return VERDICTS.dump_json(tuple(lot.judged)).decode()


def verdicts_in(text: str) -> tuple[Judged, ...]:
    """The verdicts of `verdicts_text`. Raises ValueError for any other text."""
    verdicts: tuple[Judged, ...] = VERDICTS.validate_json(text)
    return verdicts
