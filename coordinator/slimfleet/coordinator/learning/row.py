"""Rows: a closed round in plain numbers, which reports, checkpoints and metrics share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import fsum, isfinite
from statistics import fmean
from typing import TYPE_CHECKING

from slimfleet.compression import Cost, Evaluation, Skip
from slimfleet.compression.held_out import pooled
from slimfleet.compression.types import PHASES, PhaseCost
from slimfleet.coordinator.learning.device_evaluation import (
    evaluated_of,
    evaluation_share,
    fairness_of,
    pooled_by_class,
)
from slimfleet.coordinator.receiving.answer import Answer

if TYPE_CHECKING:
    from slimfleet.coordinator.state import OpenRound, State

TRAILING = 5
"""Rounds that an accuracy is averaged over: single rounds swing by several points under label skew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRow:
    """One round: what ended in it. Sums run over the devices whose work ended, however; means over those whose update
    was used."""

    round: int
    selected: int
    """Devices that were given work. It may end in a later round."""
    completed: int
    skipped: int
    rejected: int
    failed: int
    """Devices that gave no usable answer: the four kinds below."""
    dropped: int = 0
    """Lost, silent, or broken; or done in a round that was not applied."""
    late: int = 0
    """Done after a deadline, or after their round was closed."""
    stale: int = 0
    """Done from a model that was too old by then."""
    refused: int = 0
    applied: bool = True
    """Whether the model was moved: not by a round with too few updates."""
    staleness: float = 0.0
    """Mean number of steps between a device's model and the use of its update."""
    accuracy: float | None
    """Of the published model on held-out data, 0..1; None where it was not evaluated, or the task has none."""
    loss: float | None
    """Of the same model on the same data; None where it was not evaluated."""
    trailing_accuracy: float | None
    """Mean accuracy of the last five evaluated rounds."""
    uplink_bytes: int
    uplink_bytes_float32: int
    """What the same answers would be as plain float32 models."""
    downlink_bytes: int
    downlink_bytes_float32: int
    energy_j: float
    compute_j: float
    radio_j: float
    virtual_time_s: float
    """How long the round took, in the environment's time."""
    mean_width: float
    mean_nmse: float
    """Squared error that the plans allowed in the updates, as a share of their squared norms."""
    mean_steps: float
    predicted_energy_j: float
    """What the planner expected of the devices that reported."""
    size_error: float
    """Typical relative error of the predicted sizes of updates, as known after the round; 0 before any came."""
    violations: int
    """Constraints broken, judged by the spent costs."""
    wall_time_s: float
    evaluated_devices: int = 0
    """Devices that evaluated the model which they received."""
    evaluated_examples: int = 0
    device_accuracy: float | None = None
    """Over their examples together, of the model that the round before made, as it was sent."""
    device_loss: float | None = None
    fairness_mean: float | None = None
    """Accuracy with one vote a device."""
    fairness_worst_decile: float | None = None
    fairness_spread: float | None = None
    accuracy_by_device_class: dict[str, float] = field(default_factory=dict)
    """The same as `device_accuracy`, by class of devices; those classes alone of which one evaluated."""
    evaluation_share: float = 0.0
    """Largest share of its joules that a device of the round spent on evaluating."""
    alarm: str = ""
    """What is wrong with the model, for people; empty where nothing is."""


def alarm_of(evaluation: Evaluation | None) -> str:
    """What an evaluation says is wrong with the model: NaN or infinity, which training seldom recovers from."""
    if evaluation is None:
        return ""
    found = {"loss": evaluation.loss, "accuracy": evaluation.accuracy}
    numbers = {name: value for name, value in found.items() if value is not None}
    if all(isfinite(value) for value in numbers.values()):
        return ""
    said = ", ".join(f"{name} {value:g}" for name, value in numbers.items())
    return f"the evaluation is not finite ({said}): the global model is broken"


def round_row(
    state: State,
    opened: OpenRound,
    answers: Sequence[Answer],
    silent: Iterable[Cost],
    evaluation: Evaluation | None,
    virtual_time_s: float,
    wall_time_s: float,
) -> RoundRow:
    """The row of a round, from the answers to its dispatches in order of node, already folded into `state`.

    `silent` is what devices spent that gave no report.
    """
    reported = [(a.dispatch, a.report) for a in answers if a.dispatch is not None and a.report is not None]
    used = [(a.dispatch, a.report) for a in answers if a.verdict == "accepted" and a.dispatch and a.report]
    plans = [dispatch.assignment.plan for dispatch, _ in used]
    sizes = [a.received_bytes for a in answers if a.received_bytes is not None]
    outcomes = Counter(a.outcome for a in answers)
    own = evaluated_of(a for a in answers if a.staleness == 0)  # of this round's model
    found, fairness = pooled(own), fairness_of(own)
    by_class = pooled_by_class(
        (state.registry[a.dispatch.node].profile.device_class, part)
        for a in answers
        if a.staleness == 0 and a.dispatch is not None
        for part in evaluated_of([a])
    )
    if evaluation is None and found is not None:  # a task without test data
        evaluation = Evaluation(found.loss, found.accuracy)
    accuracy = None if evaluation is None else evaluation.accuracy
    known = [r.accuracy for r in state.rows if r.accuracy is not None] + (
        [] if accuracy is None else [accuracy]
    )
    spent = [*(report.spent for _, report in reported), *silent]
    radio_j = fsum(cost.radio_j for cost in spent)
    energy_j = fsum(cost.energy_j for cost in spent)
    return RoundRow(
        round=opened.number,
        selected=opened.selected,
        completed=outcomes["done"],
        skipped=len(opened.skipped),
        rejected=outcomes["rejected"],
        failed=sum(outcomes[each] for each in ("dropped", "late", "stale", "refused")),
        dropped=outcomes["dropped"],
        late=outcomes["late"],
        stale=outcomes["stale"],
        refused=outcomes["refused"],
        applied=outcomes["done"] > 0,
        staleness=_mean([a.staleness for a in answers if a.verdict == "accepted"]),
        accuracy=accuracy,
        loss=None if evaluation is None else evaluation.loss,
        trailing_accuracy=fmean(known[-TRAILING:]) if known else None,
        uplink_bytes=sum(sizes),
        uplink_bytes_float32=state.schema.moving.nbytes * len(sizes),
        downlink_bytes=sum(len(a.dispatch.payload) for a in answers if a.dispatch is not None),
        downlink_bytes_float32=state.schema.nbytes * len(answers),
        energy_j=energy_j,
        compute_j=energy_j - radio_j,
        radio_j=radio_j,
        virtual_time_s=virtual_time_s,
        mean_width=_mean([plan.width for plan in plans]),
        mean_nmse=_mean([plan.nmse for plan in plans]),
        mean_steps=_mean([report.steps for _, report in used]),
        predicted_energy_j=fsum(dispatch.predicted.energy_j for dispatch, _ in reported),
        size_error=state.sizes.error,
        violations=sum(len(a.broken) for a in answers),
        wall_time_s=wall_time_s,
        evaluated_devices=len(own),
        evaluated_examples=0 if found is None else found.examples,
        device_accuracy=None if found is None else found.accuracy,
        device_loss=None if found is None else found.loss,
        fairness_mean=None if fairness is None else fairness.mean,
        fairness_worst_decile=None if fairness is None else fairness.worst_decile,
        fairness_spread=None if fairness is None else fairness.spread,
        accuracy_by_device_class={
            name: part.accuracy for name, part in by_class.items() if part.accuracy is not None
        },
        evaluation_share=evaluation_share(report for _, report in reported),
        alarm=alarm_of(evaluation),
    )


@dataclass(slots=True, kw_only=True)
class PhaseTotal:
    """One phase over the run, as far as devices told."""

    time_s: float = 0.0
    energy_j: float = 0.0
    uncertainty_j: float = 0.0
    """The sum of the reports': their errors may be alike."""
    sources: dict[str, int] = field(default_factory=dict)
    """Where its joules come from -> reports."""

    def add(self, cost: PhaseCost) -> None:
        """Add a report's."""
        self.time_s += cost.time_s
        self.energy_j += cost.energy_j
        self.uncertainty_j += cost.uncertainty_j
        if cost.time_s or cost.energy_j:
            self.sources[cost.source] = self.sources.get(cost.source, 0) + 1


@dataclass(slots=True, kw_only=True)
class Totals:
    """How often each thing happened over the run."""

    skipped: dict[str, int] = field(default_factory=dict)
    """Constraint that bound -> devices without a plan."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Reason -> updates not used."""
    failed: dict[str, int] = field(default_factory=dict)
    """Reason -> devices that gave no usable answer."""
    outcomes: dict[str, int] = field(default_factory=dict)
    """How it ended -> devices' parts of rounds."""
    violations: dict[str, int] = field(default_factory=dict)
    """Constraint -> times that a spent cost broke it."""
    energy_sources: dict[str, int] = field(default_factory=dict)
    """Where reported joules come from -> reports."""
    phases: dict[str, PhaseTotal] = field(default_factory=lambda: {phase: PhaseTotal() for phase in PHASES})
    """By phase of a round, what devices report of it."""

    def add(self, answers: Sequence[Answer], skips: Mapping[int, Skip]) -> None:
        """Count a round: its answers, unsolicited ones included, and the devices without a plan."""
        for words, counts in (
            ([skip.constraint for skip in skips.values()], self.skipped),
            ([a.reason for a in answers if a.verdict == "rejected"], self.rejected),
            ([a.reason for a in answers if a.verdict == "failed"], self.failed),
            ([a.outcome for a in answers if a.dispatch is not None], self.outcomes),
            ([constraint for a in answers for constraint in a.broken], self.violations),
            ([a.report.source for a in answers if a.report is not None], self.energy_sources),
        ):
            for word in words:
                counts[word] = counts.get(word, 0) + 1
        for answer in answers:
            for phase, cost in (answer.report and answer.report.phases) or ():
                self.phases[phase].add(cost)


def why_nothing_was_used(state: State) -> str | None:
    """In one sentence, why no update was used in any round; None where one was, or no round is over."""
    if not state.rows or any(row.completed for row in state.rows):
        return None
    totals = state.totals
    counts = Counter({f"no plan fits ({word})": n for word, n in totals.skipped.items()})
    counts.update({f"failed ({word})": n for word, n in totals.failed.items()})
    counts.update({f"rejected ({word})": n for word, n in totals.rejected.items()})
    rounds = f"not one update was used in {len(state.rows)} round{'s' if len(state.rows) > 1 else ''}"
    if not counts:
        return f"{rounds}: no device could be reached"
    what = ", ".join(f"{word} {n} time{'s' if n > 1 else ''}" for word, n in counts.most_common(3))
    [(most, _)] = counts.most_common(1)
    is_skipped = most.startswith("no plan")
    said = [(r.last_reason if is_skipped else r.last_problem, r.node) for r in state.registry]
    last = next((f"; {state.registry.label(node)}: {text}" for text, node in said if text), "")
    return f"{rounds}: {what}{last}"


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else 0.0
