"""Checks of what a device sends back, before any of it is used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isclose, sqrt

import numpy as np

from slimfleet.compression import Assignment, Budget, Cost, ModelSchema, PayloadError, Report, Tensors
from slimfleet.compression.codec import decode
from slimfleet.compression.difference import moved, unset
from slimfleet.compression.messages import EvaluationLimit
from slimfleet.compression.pruning import IndexMap
from slimfleet.compression.schema import TensorSpec
from slimfleet.compression.types import (
    LARGEST_JOULES,
    LARGEST_LOSS,
    LARGEST_SECONDS,
    UNIT,
    Evaluated,
    Phases,
    Startup,
)
from slimfleet.compression.wire import PayloadKind, unseal

LARGEST_EXAMPLES = 2**20
"""More local examples than this count as this many, whatever the fleet."""

PHASES_TOLERANCE = 0.01
"""How far the sum of a report's phases may be from what it says of the whole, as a share."""

FIELD_OF = {"deadline_s": "time_s"}
"""Quantities that the spent cost names differently from the budget."""

VARIANCE = re.compile(r"(^|_)(var|variance|std)($|_)")
"""Last parts of the names of buffers that hold variances: `running_var` in torch."""

LIMITS = ("energy_j", "memory_bytes", "deadline_s", "uplink_bytes", "downlink_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Norms:
    """L2 norms of an update: how far it moves the model."""

    weights: float
    statistics: float
    """Of float buffers, which the model observes rather than trains: their scale is that of the data."""


def check_report(report: Report, assignment: Assignment, *, uplink_bytes: int, downlink_bytes: int) -> None:
    """Compare a report with what the coordinator knows itself: the plan and the payloads' sizes.

    Raises PayloadError("message") where they disagree, or where the report contradicts itself or is implausible.
    """
    spent, planned = report.spent, assignment.plan.local_steps
    if not 1 <= report.steps <= planned:
        raise PayloadError("message", f"{report.steps} local steps reported, {planned} planned")
    if spent.uplink_bytes != uplink_bytes:
        raise PayloadError("message", f"{spent.uplink_bytes} bytes up reported, {uplink_bytes} received")
    if spent.downlink_bytes != downlink_bytes:
        raise PayloadError("message", f"{spent.downlink_bytes} bytes down reported, {downlink_bytes} sent")
    if spent.radio_j > spent.energy_j:
        raise PayloadError(
            "message", f"{spent.radio_j:g} J of radio in {spent.energy_j:g} J overall reported"
        )
    startup = report.startup
    if startup.energy_j > spent.energy_j or startup.time_s > spent.time_s:
        raise PayloadError(
            "message",
            f"{startup.energy_j:g} J in {startup.time_s:g} s before the first step reported, "
            f"{spent.energy_j:g} J in {spent.time_s:g} s overall",
        )
    if report.phases is not None:
        _check_phases(report.phases, spent)
    if report.evaluated is not None:
        _check_evaluated(report.evaluated, assignment.evaluation)
    if not is_plausible(spent, startup):
        raise PayloadError(
            "message", f"{spent.energy_j:g} J in {spent.time_s:g} s reported: no device does that"
        )


def _check_evaluated(found: Evaluated, limit: EvaluationLimit | None) -> None:
    """Raise PayloadError("message") for counts that contradict each other, or of more examples than were asked for."""
    asked = 0 if limit is None else limit.examples
    if found.examples > asked:
        raise PayloadError("message", f"{found.examples} examples evaluated, asked were {asked}")
    if found.correct is not None and found.correct > found.examples:
        raise PayloadError("message", f"{found.correct} of {found.examples} examples reported as right")
    if found.score_sum is not None and found.score_sum > UNIT * found.examples:
        raise PayloadError("message", f"a score of {found.score_sum / UNIT:g} over {found.examples} examples")
    if abs(found.loss_sum) > LARGEST_LOSS * found.examples:
        raise PayloadError("message", f"a loss of {found.loss:g} an example reported")
    if found.by_class is not None:
        counted, right = sum(n for n, _ in found.by_class), sum(n for _, n in found.by_class)
        if any(right_of > of for of, right_of in found.by_class):
            raise PayloadError("message", "more right answers than examples of a class reported")
        if counted > found.examples or right != found.correct:
            raise PayloadError(
                "message",
                f"{right} right of {counted} examples of all classes, {found.correct} of {found.examples} overall",
            )


def _check_phases(phases: Phases, spent: Cost) -> None:
    """Raise PayloadError("message") where the phases do not sum to what was spent."""
    for what, by_phase, overall in (
        ("J", phases.energy_j, spent.energy_j),
        ("J of radio", phases.radio_j, spent.radio_j),
        ("s", phases.time_s, spent.time_s),
    ):
        if not isclose(by_phase, overall, rel_tol=PHASES_TOLERANCE, abs_tol=1e-6):
            raise PayloadError("message", f"{by_phase:g} {what} in all phases reported, {overall:g} overall")


def is_plausible(spent: Cost, startup: Startup) -> bool:
    """Whether one device can have spent this on a round."""
    return (
        spent.radio_j <= spent.energy_j <= LARGEST_JOULES
        and spent.time_s <= LARGEST_SECONDS
        and startup.energy_j <= spent.energy_j
        and startup.time_s <= spent.time_s
    )


def decoded_update(payload: bytes, assignment: Assignment, schema: ModelSchema) -> Tensors:
    """Decode an update (shrunk shapes) and make sure that it answers this assignment.

    Raises PayloadError with a bounded reason: oversized, stale, replay, header, and whatever the decoder finds.
    """
    limit = assignment.uplink_limit(schema)
    if len(payload) > limit:
        raise PayloadError("oversized", f"{len(payload)} bytes, the limit is {limit}")
    opened = unseal(payload)
    header = opened.header
    if header.kind is not PayloadKind.UPDATE:
        raise PayloadError("header", "a whole model in place of an update")
    if header.base_version != assignment.round_number:
        raise PayloadError(
            "stale", f"an update of model version {header.base_version}, expected {assignment.round_number}"
        )
    if header.plan_id != assignment.plan_id:
        raise PayloadError(
            "replay", f"an answer to plan {header.plan_id:#x}, expected {assignment.plan_id:#x}"
        )
    return decode(opened, schema).tensors


def is_over(phases: Phases | None, limit: EvaluationLimit | None) -> bool:
    """Whether a device says that it spent more on evaluating than it was allowed to, rounding apart."""
    allowed_j = 0.0 if limit is None else limit.energy_j
    return phases is not None and phases.evaluate.energy_j > allowed_j * (1 + 1e-9)


def broken_constraints(spent: Cost, budget: Budget) -> list[str]:
    """The constraints of `budget` that the spent cost exceeds.

    Reports do not tell training from waiting, so mean power is taken over the whole round.
    """
    broken = []
    for name in LIMITS:
        limit = getattr(budget, name)
        if limit is not None and getattr(spent, FIELD_OF.get(name, name)) > limit:
            broken.append(name)
    mean_w = (spent.energy_j - spent.radio_j) / spent.time_s if spent.time_s > 0 else 0.0
    if budget.power_w is not None and mean_w > budget.power_w * (1 + 1e-9):
        broken.append("power_w")
    return broken


def norms_of(update: Tensors, schema: ModelSchema) -> Norms:
    """The norms of an update. Counters have none: they may move as far as the sum has room.

    Raises PayloadError("nonfinite") for a float tensor that holds NaN or infinity.
    """
    for spec in schema.of_kind("weight", "buffer"):
        if not np.isfinite(update[spec.name]).all():
            raise PayloadError("nonfinite", f"tensor {spec.name!r} holds values that are not finite")
    return Norms(weights=norm(update, schema.weights), statistics=norm(update, schema.of_kind("buffer")))


def norms_of_rows(rows: Tensors, schema: ModelSchema) -> list[Norms | None]:
    """The norms of updates of weights alone, [n, elements of a tensor]: those of `norms_of`. None for one that is not
    finite."""
    finite = np.logical_and.reduce([np.isfinite(rows[spec.name]).all(axis=1) for spec in schema.weights])
    squares = [np.square(rows[spec.name], dtype=np.float64).sum(axis=1).tolist() for spec in schema.weights]
    return [
        Norms(weights=sqrt(sum(parts)), statistics=0.0) if is_finite else None
        for is_finite, *parts in zip(finite.tolist(), *squares, strict=True)
    ]


def norm(tensors: Tensors, specs: Sequence[TensorSpec]) -> float:
    """L2 norm over some tensors."""
    return sqrt(sum(float(np.sum(np.square(tensors[spec.name], dtype=np.float64))) for spec in specs))


def check_norms(norms: Norms, largest: Norms) -> None:
    """Raise PayloadError("norm") for an update that moves the model further than `largest`."""
    for what, found, limit in (
        ("norm", norms.weights, largest.weights),
        ("norm over running statistics", norms.statistics, largest.statistics),
    ):
        if found > limit:
            raise PayloadError("norm", f"the update's {what} is {found:.4g}, the limit is {limit:.4g}")


def is_variance(name: str) -> bool:
    """Whether a buffer of this name holds variances, which are never below zero."""
    return VARIANCE.search(name.rpartition(".")[2]) is not None


def check_variances(update: Tensors, index_map: IndexMap, model: Tensors) -> None:
    """Raise PayloadError("norm") for an update that makes a variance of `model` (full shapes) negative.

    A buffer that is negative somewhere already is no variance, whatever its name.
    """
    for spec in index_map.schema.of_kind("buffer"):
        before = index_map.cut(spec.name, model[spec.name]).astype(np.float64)
        if not is_variance(spec.name) or (before < 0).any():
            continue
        after = moved(before, update[spec.name].astype(np.float64))
        # The difference of two floats is rounded, so a variance that falls to zero may end a little below it.
        if (after < -1e-3 * np.where(unset(before), 0.0, before)).any():
            raise PayloadError("norm", f"tensor {spec.name!r}: a variance would fall below zero")
