"""Lots: the answers of several devices, judged and added up where they were computed.

A worker that computes many devices' rounds is no device: it is trusted as the coordinator is, and applies the checks
and bounds that the coordinator would apply, to the bytes that each device sends. What it passes on is a verdict a
device, and one sum.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from pydantic import TypeAdapter

from slimfleet.compression import ModelSchema, Report, Tensors
from slimfleet.coordinator.learning.covered_sum import PartialSum, RowSum, Scale
from slimfleet.coordinator.receiving.answer import Answer, Arrived, Verdict, judged
from slimfleet.coordinator.receiving.bounds import FleetBounds
from slimfleet.coordinator.receiving.checks import Norms, norms_of_rows
from slimfleet.coordinator.sending.dispatch import Dispatch

__all__ = ["Adder", "Judged", "Lot", "Rules", "verdicts_in", "verdicts_text"]


BLOCK = 2**18
"""Elements of the updates that are judged and added up at once: as many as caches hold."""


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

    @classmethod
    def of(cls, answer: Answer) -> Judged:
        """The verdict of an answer to a dispatch."""
        assert answer.dispatch is not None
        return cls(
            plan_id=answer.dispatch.plan_id,
            verdict=answer.verdict,
            reason=answer.reason,
            message=answer.message,
            report=answer.report,
            received_bytes=answer.received_bytes,
            broken=answer.broken,
            norms=answer.norms,
        )

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
        self._sum = RowSum(rules.scale)

    def takes(self, report: Report) -> bool:
        """Whether an answer can be part of the lot."""
        return report.spent.time_s < self._rules.in_time_s

    def add(self, came: Sequence[tuple[Dispatch, Arrived]]) -> None:
        """Judge answers as `Coordinator.receive` does, and add the acceptable updates."""
        at_once = max(BLOCK // self._schema.elements, 1)
        for begin in range(0, len(came), at_once):
            self._judged.extend(map(Judged.of, self._added(came[begin : begin + at_once])))

    def lot(self) -> Lot:
        """What has been added."""
        return Lot(self._judged, self._sum.total(self._schema))

    def _added(self, came: Sequence[tuple[Dispatch, Arrived]]) -> list[Answer]:
        bounds = self._rules.bounds
        known = _with_norms([arrived for _, arrived in came], self._schema)
        answers, places, updates = list[Answer](), list[int](), list[Tensors]()
        for (dispatch, _), arrived in zip(came, known, strict=True):
            answer, update = judged(dispatch, arrived, bounds, {}, None)
            if update is not None:
                places.append(len(answers))
                updates.append(update)
            answers.append(answer)
        if not updates:
            return answers
        examples = [_examples(answers[place], bounds) for place in places]
        rows = _rows(updates, self._schema)
        for row, (place, weight) in enumerate(zip(places, examples, strict=True)):
            _shorten(rows, row, answers[place].norms, bounds.longest_at(weight))
        for place, error in zip(places, self._sum.add(rows, examples), strict=True):
            if error is not None:
                answers[place] = replace(
                    answers[place], verdict="rejected", reason=error.reason, message=str(error)
                )
        return answers


def _examples(answer: Answer, bounds: FleetBounds) -> int:
    assert answer.report is not None
    return bounds.weight(answer.report.examples)


def _rows(updates: Sequence[Tensors], schema: ModelSchema) -> Tensors:
    """Updates as [n, elements] a tensor."""
    return {
        spec.name: np.stack([update[spec.name] for update in updates]).reshape(len(updates), -1)
        for spec in schema.tensors
    }


def _with_norms(came: Sequence[Arrived], schema: ModelSchema) -> list[Arrived]:
    """The same with the norms of updates that are decoded already."""
    updates = [each.update for each in came if each.update is not None]
    if not updates:
        return list(came)
    norms = iter(norms_of_rows(_rows(updates, schema), schema))
    return [each if each.update is None else replace(each, norms=next(norms)) for each in came]


def _shorten(rows: Tensors, row: int, norms: Norms | None, longest: Norms) -> None:
    """Scale an update down where it is longer than `longest`, as `aggregate.shortened` does."""
    assert norms is not None
    if norms.weights > longest.weights:
        for array in rows.values():
            array[row] = array[row] * (longest.weights / norms.weights)


def verdicts_text(lot: Lot) -> str:
    """The verdicts of a lot as JSON, without fields at their defaults."""
    return VERDICTS.dump_json(tuple(lot.judged), exclude_defaults=True).decode()


def verdicts_in(text: str) -> tuple[Judged, ...]:
    """The verdicts of `verdicts_text`. Raises ValueError for any other text."""
    verdicts: tuple[Judged, ...] = VERDICTS.validate_json(text)
    return verdicts
