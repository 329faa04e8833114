"""Models made small: recipes against targets, peers beside them, each technique by itself.

    make bench-models
    make bench-models ARGS="--only lenet-5 --seeds 0"

writes `models.md` and `models.png` into the folder that it is given. Trained models and outcomes are kept; an
interrupted run goes on where it was. An outcome is measured anew where its recipe has changed, or with `--fresh`. With
`--only`, `--stages` or `--seeds` nothing else is measured, and the page is made of all that is kept; `--stages` alone
measures nothing.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from slimfleet.compression.edge.terminal import progress
from slimfleet.compression.files import write_atomically

from .cases import ALONE, CASES
from .jobs import STAGES, Job, jobs
from .kept import Kept
from .page import page
from .plot import draw

PACKAGES = ("torch", "torch-pruning", "torchao", "nncodec")
SEEDS = (0, 1, 2)


def main() -> None:
    """Measure what is missing, then write the page."""
    arguments = _arguments()
    torch.set_num_threads(1)
    console = Console(stderr=True)
    found: dict[str, dict[str, dict[tuple[str, int], Any]]] = {stage: {} for stage in STAGES}
    with progress(quiet=False) as told:
        for job in jobs(SEEDS, arguments.keep / "trained", told):
            outcome = _outcome(job, arguments, console)
            if outcome is not None:
                found[job.stage].setdefault(job.group, {})[job.case, job.seed] = outcome
    text = page(found, [f"{package} {_version(package)}" for package in PACKAGES])
    draw(found["recipes"].get("", {}), found["peers"].get("nncodec", {}), arguments.folder / "models.png")
    write_atomically(arguments.folder / "models.md", text.encode())
    print(text)


def _outcome(job: Job, arguments: argparse.Namespace, console: Console) -> Any:
    """What is kept of a job, measured where it is missing and wanted; None where there is nothing."""
    kept = Kept(arguments.keep / job.stage)
    wanted = (
        job.stage in arguments.stages
        and job.seed in arguments.seeds
        and (not arguments.only or job.case in arguments.only)
    )
    there = None if wanted and arguments.fresh else kept.get(job.name, job.of)
    if there is not None or not wanted:
        return there
    began = time.perf_counter()
    outcome = job.measure()
    kept.put(job.name, job.of, outcome)
    console.print(
        f"{job.stage} {job.name} [{time.perf_counter() - began:.0f} s]", highlight=False, markup=False
    )
    return outcome


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="model_toolbox", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the page goes")
    parser.add_argument("--only", nargs="+", metavar="MODEL", help="these models alone")
    parser.add_argument(
        "--stages", nargs="*", choices=STAGES, default=STAGES, help="these stages alone; none writes the page"
    )
    parser.add_argument(
        "--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS, help="these seeds alone"
    )
    parser.add_argument("--fresh", action="store_true", help="measure anew what is kept, too")
    parser.add_argument(
        "--keep", type=Path, default=Path("slimfleet-out/bench-models"), help="where outcomes are kept"
    )
    arguments = parser.parse_args()
    if unknown := set(arguments.only or ()) - CASES.keys() - ALONE.keys():
        print(f"error: no model {min(unknown)!r}; there are: {' '.join([*CASES, *ALONE])}", file=sys.stderr)
        sys.exit(2)
    return arguments


if __name__ == "__main__":
    main()
