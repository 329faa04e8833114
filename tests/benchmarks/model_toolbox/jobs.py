"""Jobs of the benchmark: every measurement, with what it depends on."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slimfleet.compression.model.central import Progress

from .alone import MINUTES, RECIPES, TARGETS, alone, together
from .cases import ALONE, CASES, PEERS, Case, eight_bits
from .recipes import applied
from .trained import trained

STAGES = ("recipes", "eight_bits", "peers", "alone", "together")


@dataclass(frozen=True, slots=True)
class Job:
    """One measurement."""

    stage: str
    group: str
    """A peer or a technique; empty in the other stages."""
    case: str
    seed: int
    of: str
    """What it measures: another text is another measurement."""
    measure: Callable[[], Any]

    @property
    def name(self) -> str:
        """Name of its outcome among those of its stage."""
        words = "".join(letter if letter.isalnum() else "-" for letter in self.group)
        return "-".join(filter(None, (words, self.case, str(self.seed))))


def jobs(seeds: Sequence[int], folder: Path, progress: Progress) -> Iterator[Job]:
    """All of them, seed by seed; trained models are in `folder`, or put there."""
    for seed in seeds:
        for case in CASES.values():
            yield _recipe("recipes", case, seed, case.recipe, folder, progress)
            yield _recipe("eight_bits", case.itself(), seed, eight_bits(case), folder, progress)
        for peer, names in PEERS.items():
            for name in names:
                yield peer_job(peer, CASES[name], seed, folder, progress)
        for case in ALONE.values():
            for technique in RECIPES:
                yield _alone(technique, case, seed, folder, progress)
            yield _together(case, seed, folder, progress)


def _recipe(stage: str, case: Case, seed: int, recipe: str, folder: Path, progress: Progress) -> Job:
    of = recipe + (f"; taught by {', '.join(case.teachers)}" if case.teachers else "")
    return Job(stage, "", case.name, seed, of, lambda: applied(case, seed, recipe, folder, progress))


def peer_job(peer: str, case: Case, seed: int, folder: Path, progress: Progress) -> Job:
    """A peer on a trained model, which is in `folder`, or put there."""

    def measure() -> list[dict[str, Any]]:
        rows = importlib.import_module(f"{__package__}.peers.{peer}").measured
        return [asdict(row) for row in rows(*trained(case, seed, folder, progress))]

    return Job("peers", peer, case.name, seed, peer, measure)


def _alone(technique: str, case: Case, seed: int, folder: Path, progress: Progress) -> Job:
    return Job(
        "alone",
        technique,
        case.name,
        seed,
        RECIPES[technique],
        lambda: alone(case, seed, technique, folder, progress),
    )


def _together(case: Case, seed: int, folder: Path, progress: Progress) -> Job:
    of = f"{', '.join(TARGETS)} in {MINUTES:g} minutes"
    return Job("together", "", case.name, seed, of, lambda: together(case, seed, folder, progress))
