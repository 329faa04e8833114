"""Runs killed by SIGKILL at moments drawn at random, resumed, and compared with runs that were left alone.

    python tests/benchmarks/kills.py docs/results

writes `kills.md` there. What has been found is kept in a folder, so that a second call goes on where the first was
interrupted; `--moments 4` for a part; without a folder the page is printed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from itertools import cycle, islice, product
from multiprocessing.process import BaseProcess
from pathlib import Path
from random import Random
from typing import Any, cast

from page_parts import table, when

from slimfleet.compression.files import write_atomically
from slimfleet.coordinator import Event, Planned, Saved
from slimfleet.coordinator.checkpoint import checkpoints
from slimfleet.coordinator.entries import Failed, GaveUp, Given, Received, unpacked
from slimfleet.coordinator.journal import records
from slimfleet.coordinator.keeping import JOURNAL
from slimfleet.simulations import load_scenario, simulate
from slimfleet.simulations.run import Backend, resumed_scenario

MOMENTS = 30
SEED = 0
STARTS = 3
"""Attempts at most: on a busy machine Ray does not always start in time, and then nothing has happened."""
RESUMES_KILLED = 3
"""Of so many resumptions one is killed too, and resumed again."""
COMMON = {
    "rounds": "5",
    "fleet.devices": "40",
    "fleet.dropout": "0.2",
    "fleet.speed_noise": "0.5",
    "fleet.faults": "{ truncated = 0.05, raise = 0.05, late = 0.05 }",
    "fleet.policy.battery_floor": "0.5",
    "selection.per_round": "10",
    "planner.widths": "[1.0, 0.5]",
    "run.workers": "2",
    "run.device_timeout_s": "3600.0",
}
MODES: Mapping[str, Mapping[str, str]] = {
    "synchronous": {"pacing.surplus": "5"},
    "asynchronous": {
        "pacing.mode": "asynchronous",
        "pacing.buffer": "8",
        "pacing.concurrency": "16",
        "pacing.largest_staleness": "1",
    },
}
PRELOADED = (
    "sklearn.datasets",
    "matplotlib.pyplot",
    "torch.utils.flop_counter",
    "slimfleet.simulations.grids.ray",
)
"""Imported once, before processes are forked."""
BACKENDS: Sequence[Backend] = ("local", "ray")
ENDED = "after its results"
COMPARED = ("uplink_bytes", "downlink_bytes", "energy_j", "virtual_time_s", "accuracy", "outcomes", "rounds")
"""Fields of `summary.json` that must be those of a run that was left alone; with it the models, byte for byte."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One run that is killed."""

    number: int
    mode: str
    backend: Backend
    share: float
    """Of the time between the first round's plan and the last checkpoint."""
    again: float | None
    """The same of its resumption, where that is killed too, from its begin."""


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a moment."""

    hit: str
    """Where the kill came."""
    hit_again: str
    wrong: str
    """What differs from the run that was left alone; nothing, it is to be hoped."""
    outcomes: Mapping[str, int]


def moments(count: int) -> list[Moment]:
    """The moments, drawn from the seed and dealt out in turn to the modes and backends."""
    draw = Random(SEED)
    ways = islice(cycle(product(MODES, BACKENDS)), count)
    return [
        Moment(number, mode, backend, draw.random(), draw.random() if number % RESUMES_KILLED == 0 else None)
        for number, (mode, backend) in enumerate(ways)
    ]


def begun(mode: str, backend: Backend, out: Path, resume: bool) -> BaseProcess:
    """A process, in a group of its own, that runs a scenario or resumes it."""
    process = cast("Any", multiprocessing.get_context("fork")).Process(
        target=_work, args=(mode, backend, out, resume)
    )
    process.start()
    return cast("BaseProcess", process)


def _work(mode: str, backend: Backend, out: Path, resume: bool) -> None:
    os.setpgid(0, 0)
    scenario = resumed_scenario(out) if resume else load_scenario("digits", COMMON | dict(MODES[mode]))
    simulate(scenario, out, backend=backend, resume=resume, observers=[partial(_clocked, out)])


def _clocked(out: Path, event: Event) -> None:
    """Observer that notes beside `out` when the first round was planned, and when the last checkpoint was written."""
    mark = out.with_suffix(".begun" if isinstance(event, Planned) else ".saved")
    if isinstance(event, Saved) or (isinstance(event, Planned) and not mark.exists()):
        mark.touch()


def whole(mode: str, backend: Backend, keep: Path) -> tuple[Path, float]:
    """The folder of a run that is left alone, and how long its rounds took, s."""
    out = keep / f"whole-{mode}-{backend}"
    if not (out / "summary.json").exists():
        process = begun(mode, backend, out, resume=False)
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"the run in {out} failed: remove that folder")
    return out, time_s(out)


def time_s(out: Path) -> float:
    """Between the first round's plan and the last checkpoint, s."""
    return out.with_suffix(".saved").stat().st_mtime - out.with_suffix(".begun").stat().st_mtime


def killed(moment: Moment, out: Path, after_s: float, resume: bool, starts: int = STARTS) -> str:
    """Begin a run, or its resumption, and kill it and its group; returns where that came."""
    began_s = time.time()
    process = begun(moment.mode, moment.backend, out, resume)
    mark = out.with_suffix(".begun")
    while process.is_alive() and not mark.exists():
        time.sleep(0.005)
    first_s = mark.stat().st_mtime if mark.exists() and not resume else began_s
    while process.is_alive() and time.time() < first_s + after_s:
        time.sleep(0.002)
    if process.is_alive() and process.pid is not None:
        os.killpg(process.pid, signal.SIGKILL)
    process.join()
    if not resume and not mark.exists() and starts > 1:
        shutil.rmtree(out)
        return killed(moment, out, after_s, resume, starts - 1)
    if process.exitcode not in (0, -signal.SIGKILL) and not resume:
        raise SystemExit(f"{moment}: the run ended with {process.exitcode}, its folder is {out}")
    return where(out)


def where(out: Path) -> str:
    """What a killed run has left, in words."""
    if (out / "summary.json").exists():
        return ENDED
    partial = ", a checkpoint half written" if list((out / "checkpoint").glob("*.partial")) else ""
    folders = checkpoints(out / "checkpoint")
    if not folders:
        return f"before anything was kept{partial}"
    kinds = [type(unpacked(each.text, each.body)[0]) for each in records(folders[-1] / JOURNAL)]
    steps = int(folders[-1].name.removeprefix("round-"))
    answers = sum(kind in (Received, Failed, GaveUp) for kind in kinds)
    planned = f"{answers} answers on" if Given in kinds or answers else "nothing given out"
    return f"step {steps}, {planned}{partial}"


def found(moment: Moment, keep: Path) -> Found:
    """Kill, resume, and compare."""
    reference, took_s = whole(moment.mode, moment.backend, keep)
    out = keep / f"killed-{moment.number}"
    for left in keep.glob(f"killed-{moment.number}[.]*"):
        left.unlink()
    shutil.rmtree(out, ignore_errors=True)
    while (hit := killed(moment, out, moment.share * took_s, resume=False)) == ENDED:
        took_s = min(took_s, time_s(out))  # this time it was faster
        shutil.rmtree(out)
        out.with_suffix(".begun").unlink()
    hit_again = ""
    if moment.again is not None:
        hit_again = killed(moment, out, moment.again * took_s, resume=True)
    for _ in range(STARTS):
        process = begun(moment.mode, moment.backend, out, resume=True)
        process.join()
        if process.exitcode == 0:
            break
    wrong = [f"exit code {process.exitcode}"] if process.exitcode else differences(out, reference)
    outcomes = {} if process.exitcode else summary(out)["outcomes"]
    return Found(hit, hit_again, ", ".join(wrong), outcomes)


def differences(out: Path, reference: Path) -> list[str]:
    """What of a run's results is not as in `reference`."""
    wrong = [
        name
        for name in ("model.safetensors", "model-best.safetensors")
        if (out / name).read_bytes() != (reference / name).read_bytes()
    ]
    ours, theirs = summary(out), summary(reference)
    wrong += [name for name in COMPARED if ours[name] != theirs[name]]
    asked = sum(int(line.split(",")[1]) for line in (out / "rounds.csv").read_text().splitlines()[1:])
    if sum(ours["outcomes"].values()) != asked:
        wrong.append(f"{sum(ours['outcomes'].values())} ends of {asked} parts")
    return wrong


def summary(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return content


def main() -> None:
    """Kill, and write the page or print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--moments", type=int, default=MOMENTS)
    parser.add_argument("--keep", type=Path, default=Path("slimfleet-out/bench-kills"))
    options = parser.parse_args()
    for name in PRELOADED:
        import_module(name)
    options.keep.mkdir(parents=True, exist_ok=True)
    path = options.keep / "found.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for moment in moments(options.moments):
        if str(moment.number) not in known:
            result = found(moment, options.keep)
            known[str(moment.number)] = asdict(result)
            write_atomically(path, json.dumps(known, indent=1).encode())
            print(moment.number, moment.mode, moment.backend, result, flush=True)
    results = [(each, Found(**known[str(each.number)])) for each in moments(options.moments)]
    text = page(results, options.keep)
    if options.folder is None:
        print(text)
    else:
        write_atomically(options.folder / "kills.md", text.encode())


def page(results: Sequence[tuple[Moment, Found]], keep: Path) -> str:
    """The page, in Markdown."""
    ways = [
        [mode, backend, str(len(of)), str(sum(not each.wrong for each in of)), said(of[0].outcomes)]
        for mode, backend in product(MODES, BACKENDS)
        if (of := [f for m, f in results if (m.mode, m.backend) == (mode, backend)])
    ]
    rows = [
        [
            f"{each.mode}, {each.backend}",
            f"{each.share:.0%}",
            what.hit,
            what.hit_again,
            what.wrong or "the same",
        ]
        for each, what in results
    ]
    bytes_alike = all(
        not differences(whole(mode, "ray", keep)[0], whole(mode, "local", keep)[0])
        for mode in {each.mode for each, _ in results}
        if (keep / f"whole-{mode}-ray").exists()
    )
    settings = ", ".join(f"`{key} = {value}`" for key, value in COMMON.items())
    modes = "; ".join(
        f"{mode}: {', '.join(f'`{key} = {value}`' for key, value in changes.items())}"
        for mode, changes in MODES.items()
    )
    return "\n".join(
        [
            "# Killed runs",
            "",
            f"Written by `make bench-kills` ({when()}). A run of the scenario `digits` is killed by SIGKILL, it and",
            f"its process group, at {len(results)} of {MOMENTS} moments drawn uniformly (seed {SEED}) between the",
            "plan of the first round and the last checkpoint. `--resume` takes it up; every third is killed too.",
            "*The same*:",
            "the last and the best model are those of a run that was left alone, byte for byte, and so are "
            + ", ".join(f"`{name}`" for name in COMPARED)
            + " in `summary.json`; the outcomes",
            "sum to the devices that were given work, so that each part of a round is counted once.",
            "",
            f"Runs that were left alone give the same on both backends: {'yes' if bytes_alike else '**no**'}.",
            "",
            f"Settings: {settings}; {modes}.",
            "",
            table(["rounds", "backend", "killed", "the same", "outcomes"], ways),
            "",
            table(["run", "killed at", "where it was", "where its resumption was", "in the end"], rows),
            "",
        ]
    )


def said(outcomes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in outcomes.items())


if __name__ == "__main__":
    main()
