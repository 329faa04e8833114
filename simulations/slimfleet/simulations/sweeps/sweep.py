"""Sweep: every cell of a grid of settings on every seed, and what they come to beside each other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

from slimfleet.compression.errors import BadInput
from slimfleet.compression.files import LOCK, locked, naming, read_file, write_atomically
from slimfleet.simulations.sweeps.cells import Cell, cells_of
from slimfleet.simulations.sweeps.folders import finished_run
from slimfleet.simulations.sweeps.outcomes import Comparison, Point, scale_notes
from slimfleet.simulations.sweeps.outputs import write_comparison
from slimfleet.simulations.sweeps.sweep_file import Sweep
from slimfleet.simulations.sweeps.work import Execute, in_turn, is_finished, on_ray, side_by_side

__all__ = ["SweepProgress", "run_sweep"]

UNTRAINED = "not one update was used"


class SweepProgress(Protocol):
    """Shows how far a sweep is."""

    def begin(self, cells: Sequence[Cell]) -> None:
        """All cells, those that are finished already included."""
        ...

    def look(self) -> None:
        """Look at the folders of the cells again."""
        ...

    def ended(self, cell: Cell, problem: str) -> None:
        """A cell is finished, or has failed with a problem."""
        ...


class _Silent:
    def begin(self, cells: Sequence[Cell]) -> None:
        pass

    def look(self) -> None:
        pass

    def ended(self, cell: Cell, problem: str) -> None:
        pass


def run_sweep(
    sweep: Sweep,
    out: Path,
    *,
    backend: Literal["local", "ray"] = "local",
    jobs: int = 1,
    progress: SweepProgress | None = None,
) -> Comparison:
    """Run the cells of `sweep` that are not finished in `out`, and write `sweep.csv` and `report.html` there.

    Each cell is an ordinary run in a folder of its own; one that was interrupted goes on from its last checkpoint.
    The cells run one after another, in `jobs` processes, or in `jobs` worker processes of Ray (0: one per core). One
    that fails is named in the comparison and does not end the others.

    Raises BadInput where settings or folders cannot be used, before anything is run.
    """
    cells, shown = cells_of(sweep, out), progress or _Silent()
    with _held(out, Path(sweep.path)):
        finished: list[Cell] = []
        left: list[Cell] = []
        for cell in cells:
            (finished if is_finished(cell) else left).append(cell)
        shown.begin(cells)
        problems: dict[str, str] = {}
        for cell in finished:
            shown.ended(cell, "")
        for cell, problem in _executor(backend, jobs)(left, shown.look):
            if problem:
                problems[cell.name] = problem
            shown.ended(cell, problem)
        comparison = _compared(sweep, cells, problems, out)
        write_comparison(out, "sweep.csv", comparison)
    return comparison


def _executor(backend: Literal["local", "ray"], jobs: int) -> Execute:
    if backend == "ray":
        return on_ray(jobs)
    return in_turn if jobs == 1 else side_by_side(jobs)


@contextmanager
def _held(out: Path, path: Path) -> Iterator[None]:
    """Make `out`, hold it for this process, and keep the sweep's file in it."""
    kept = out / "sweep.toml"
    with naming(out, "use"):
        used = out.exists() and any(each.name != LOCK for each in out.iterdir())
        if used and not kept.exists():
            raise BadInput(f"{out} holds something else than a sweep: give another --out")
        out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        with naming(path, "read"):
            text = read_file(path)
        write_atomically(kept, text)
        yield


def _compared(sweep: Sweep, cells: Iterable[Cell], problems: Mapping[str, str], out: Path) -> Comparison:
    """The outcome of a sweep, from the folders of its cells."""
    by_point: dict[str, list[Cell]] = {}
    for cell in cells:
        by_point.setdefault(cell.point, []).append(cell)
    failed, points = dict(problems), []
    for label, group in by_point.items():
        runs = []
        for cell in group:
            if not (cell.folder / "summary.json").exists():
                continue
            run = finished_run(cell.folder, cell.name, out)
            if not run.summary["participations"]:
                failed.setdefault(cell.name, UNTRAINED)
            elif cell.name not in failed:
                runs.append(run)
        first = group[0]
        points.append(Point(label=label, settings=first.settings, varied=first.varied, runs=tuple(runs)))
    seeds = ", ".join(map(str, sweep.seeds))
    return Comparison(
        title=sweep.name,
        about=f"{len(points)} points of {sweep.scenario}, on the seeds {seeds}",
        points=tuple(points),
        problems=failed,
        notes=scale_notes(points),
        source=Path(sweep.path).read_text(encoding="utf-8"),
    )
