"""What the runs of one method say together: means over seeds with their standard errors, and pairs with float32."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from cache import Run
from methods import REFERENCE

TARGET_BELOW = 0.01
"""The accuracy to be reached lies this far below the final accuracy of float32 on the same seed."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and its standard error (NaN for a single seed)."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """From one value a seed; NaN of none."""
        if not values:
            return cls(math.nan, math.nan)
        many = len(values) > 1
        return cls(
            float(np.mean(values)),
            float(np.std(values, ddof=1)) / math.sqrt(len(values)) if many else math.nan,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """One method on all seeds."""

    method: str
    accuracy: Estimate
    gap: Estimate
    """Accuracy minus that of float32 on the same seed, split and clients."""
    bits_per_parameter: Estimate
    bytes_to_target: Estimate
    """Over the seeds that reached the target."""
    reached: int
    seeds: int
    nmse: float
    residual: float


def final_accuracy(run: Run) -> float:
    """The last measurement."""
    return accuracies(run)[-1]


def accuracies(run: Run) -> list[float]:
    """Every measurement, in order."""
    return [r.accuracy for r in run.rounds if r.accuracy is not None]


def sent_so_far(run: Run) -> list[int]:
    """For each measurement the uplink bytes of all clients up to it."""
    sent = np.cumsum([r.uplink_bytes for r in run.rounds])
    return [int(n) for n, r in zip(sent, run.rounds, strict=True) if r.accuracy is not None]


def bytes_to(run: Run, target: float) -> int | None:
    """Uplink bytes up to the first measurement that reaches `target`; None where none does."""
    pairs = zip(accuracies(run), sent_so_far(run), strict=True)
    return next((sent for accuracy, sent in pairs if accuracy >= target), None)


def outcomes(runs: Sequence[Run], elements: int, payloads_a_round: int) -> list[Outcome]:
    """One outcome a method, in the order in which the runs come; float32 must be among them on every seed."""
    float32 = {run.seed: final_accuracy(run) for run in runs if run.method == REFERENCE}
    by_method: dict[str, list[Run]] = {}
    for run in runs:
        by_method.setdefault(run.method, []).append(run)
    return [_outcome(name, group, float32, elements * payloads_a_round) for name, group in by_method.items()]


def _outcome(name: str, runs: list[Run], float32: dict[int, float], sent_elements: int) -> Outcome:
    reached = [sent for run in runs if (sent := bytes_to(run, float32[run.seed] - TARGET_BELOW)) is not None]
    rounds = [r for run in runs for r in run.rounds]
    bits = [8 * np.mean([r.uplink_bytes for r in run.rounds]) / sent_elements for run in runs]
    return Outcome(
        method=name,
        accuracy=Estimate.of([final_accuracy(run) for run in runs]),
        gap=Estimate.of([final_accuracy(run) - float32[run.seed] for run in runs]),
        bits_per_parameter=Estimate.of([float(b) for b in bits]),
        bytes_to_target=Estimate.of([float(sent) for sent in reached]),
        reached=len(reached),
        seeds=len(runs),
        nmse=float(np.mean([r.nmse for r in rounds])),
        residual=float(np.mean([r.residual for r in rounds])),
    )
