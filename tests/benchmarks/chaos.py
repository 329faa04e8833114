"""A federation whose processes are killed by SIGKILL at drawn moments, over and over, and started again.

    PYTHONPATH=tests/benchmarks:tests/end_to_end python tests/benchmarks/chaos.py docs/results

writes `chaos.md` there; some six minutes. Runs follow each other, each of a seed of its own, until there have been
enough kills. Every one must end with the model of a run that was left alone, byte for byte. What has been found is kept
in a folder, so that a second call goes on where the first was interrupted; `--kills 4` for a part; without a folder the
page is printed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from flower_processes import end, free_ports, logs
from gateway_processes import Fleet, started
from kills import where
from page_parts import table, when
from process_tree import kill_tree

from slimfleet.compression.files import write_atomically

KILLS = 30
ROUNDS = 20
DEVICES = ("pi-1", "pi-2", "pi-3")
BY_CLOCK = 0.5
"""Share of the kills whose moment is drawn by the clock, which often hits processes that start; the others come after
some lines of the logs, when rounds go on."""
LONGEST_GAP_S = 10.0
MOST_LINES = 10
"""Between a start and the next kill. A round is ten lines."""
LONGEST_PAUSE_S = 0.3
"""Between the last of the lines and the kill."""
LONGEST_ABSENCE_S = 1.0
"""Between a kill and the start that follows it."""
LONGEST_S = 600.0
"""For one run."""

SETTINGS = """rounds = {rounds}
round_timeout_s = 500.0
task = {task}
gateway = {{pki = "{pki}", hold_s = 2.0, wait_s = 0.1, out = "out"}}
client = {{learning_rate = 0.05}}
selection = {{policy = "uniform", per_round = {devices}, min_devices = {devices}}}
planner = {{widths = [0.5], local_steps = [100], batch_sizes = [8], nmse = [0.05]}}
"""


@dataclass(frozen=True, slots=True)
class Victim:
    """A process that may be killed."""

    name: str
    command: Sequence[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of its environment."""


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill, and where it came."""

    victim: str
    after_s: float
    """From the start of the run."""
    hit: str


@dataclass(frozen=True, slots=True)
class Found:
    """What came of a run."""

    kills: Sequence[Kill]
    seconds: float
    wrong: str
    """What is not as in a run that was left alone; empty where all is."""


class Stage:
    """The processes of a run, which write to logs in `folder`. The end of the first is the end of the run."""

    def __init__(self, folder: Path, victims: Sequence[Victim]) -> None:
        self._folder, self._victims = folder, {each.name: each for each in victims}
        self.first = victims[0].name
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._began: dict[str, int] = {}
        """Where in its log the present process of a victim begins."""

    def start(self, name: str) -> None:
        """Start a victim, for the first time or again."""
        log = self._log(name)
        self._began[name] = log.stat().st_size if log.exists() else 0
        victim = self._victims[name]
        self._processes[name] = started(victim.command, log, **victim.variables)

    def kill(self, name: str) -> str:
        """Kill a victim and what it has started; returns what it was doing."""
        process = self._processes[name]
        kill_tree(process.pid)
        process.wait()
        return doing(self._log(name).read_bytes()[self._began[name] :].decode(errors="replace"))

    def is_over(self) -> bool:
        """Whether the first has ended. SystemExit where it has failed, or another has ended."""
        codes = {name: process.poll() for name, process in self._processes.items()}
        over = codes.pop(self.first)
        if over not in (None, 0) or any(code is not None for code in codes.values()):
            raise SystemExit(f"{self.first} has ended with {over}, others with {codes}\n{logs(self._folder)}")
        return over == 0

    def lines(self) -> int:
        """How many lines there are in the logs."""
        return sum(self._log(name).read_bytes().count(b"\n") for name in self._processes)

    def close(self) -> None:
        """End all."""
        for process in self._processes.values():
            end(process)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


@contextmanager
def staged(folder: Path, victims: Sequence[Victim]) -> Iterator[Stage]:
    """All processes at work, until the end of the block."""
    stage = Stage(folder, victims)
    try:
        for victim in victims:
            stage.start(victim.name)
        yield stage
    finally:
        stage.close()


def doing(log: str) -> str:
    """What a process was at, by the lines that it had logged since its start."""
    lines = log.splitlines()
    words = {
        "has come": "at work on a plan",
        "bytes of its update are there": "handing an update in, or waiting",
        "steps, loss": "keeping an update",
        "the gateway": "waiting for the gateway",
    }
    last = next((said for line in reversed(lines) for part, said in words.items() if part in line), None)
    return last or ("starting" if not lines else "waiting")


def gateway_victims(fleet: Fleet, folder: Path, rounds: int) -> list[Victim]:
    """`serve`, which is coordinator and gateway in one, and its devices."""
    settings = folder / "federation.toml"
    settings.write_text(
        SETTINGS.format(
            rounds=rounds, task=fleet.task_table(), pki=fleet.folder / "pki", devices=len(fleet.names)
        )
    )
    return [
        Victim("serve", fleet.serving(settings)),
        *(
            Victim(name, fleet.device(number, folder / f"state-{name}", "--log-level=debug"))
            for number, name in enumerate(fleet.names)
        ),
    ]


def disturbed(
    folder: Path,
    victims: Sequence[Victim],
    seed: int,
    kills: int,
    by_clock: float = BY_CLOCK,
    spared: Sequence[str] = (),
    longest_gap_s: float = LONGEST_GAP_S,
) -> list[Kill]:
    """A run to its end, with at most so many kills; which, when and after how long a start are drawn from `seed`.

    SystemExit where it has not ended `LONGEST_S` after the last.
    """
    draw, found = Random(seed), []
    names = [each.name for each in victims if each.name not in spared]
    began_s = time.monotonic()
    with staged(folder, victims) as stage:
        for _ in range(kills):
            gap_s, lines = draw.uniform(0.0, longest_gap_s), draw.randint(1, MOST_LINES)
            pause_s, absent_s = draw.uniform(0.0, LONGEST_PAUSE_S), draw.uniform(0.0, LONGEST_ABSENCE_S)
            is_by_clock, name = draw.random() < by_clock, draw.choice(names)
            until = stage.lines() + lines
            if (
                over_within(stage, gap_s)
                if is_by_clock
                else over_within(stage, LONGEST_S, lambda until=until: stage.lines() >= until)
                or over_within(stage, pause_s)
            ):
                return found
            after_s = time.monotonic() - began_s
            hit = stage.kill(name)
            found.append(Kill(name, after_s, where(folder / "out") if name == stage.first else hit))
            time.sleep(absent_s)
            stage.start(name)
        if not over_within(stage, LONGEST_S):
            raise SystemExit(f"the run has not ended\n{logs(folder)}")
    return found


def over_within(stage: Stage, seconds: float, enough: Callable[[], bool] = lambda: False) -> bool:
    """Whether the run ends in this time, and before there is `enough`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and not enough():
        if stage.is_over():
            return True
        time.sleep(0.02)
    return stage.is_over()


def counted_wrongly(out: Path, rounds: int, devices: int) -> list[str]:
    """What of a run's account does not come to one used update of every device in every round."""
    found = []
    with (out / "rounds.csv").open(newline="") as file:
        rows = [
            (int(row["round"]), int(row["selected"]), int(row["completed"])) for row in csv.DictReader(file)
        ]
    if rows != [(number, devices, devices) for number in range(1, rounds + 1)]:
        found.append(f"rounds, asked, done: {rows}")
    outcomes = {name: count for name, count in summary(out)["outcomes"].items() if count}
    if outcomes != {"done": rounds * devices}:
        found.append(f"outcomes: {outcomes}")
    return found


def summary(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return content


def whole(keep: Path, fleet: Fleet) -> Path:
    """The results of a run that is left alone."""
    folder = keep / "whole"
    if not (folder / "out" / "summary.json").exists():
        folder.mkdir(exist_ok=True)
        disturbed(folder, gateway_victims(fleet, folder, ROUNDS), 0, 0)
    return folder / "out"


def found_of(keep: Path, fleet: Fleet, seed: int, kills: int) -> Found:
    """A run with at most so many kills, compared."""
    folder = keep / f"seed-{seed}-{time.time_ns()}"
    folder.mkdir()
    began_s = time.monotonic()
    done = disturbed(folder, gateway_victims(fleet, folder, ROUNDS), seed, kills)
    wrong = counted_wrongly(folder / "out", ROUNDS, len(fleet.names))
    models = [(out / "model.safetensors").read_bytes() for out in (folder / "out", whole(keep, fleet))]
    if models[0] != models[1]:
        wrong.append("the model is another one")
    return Found(done, time.monotonic() - began_s, "; ".join(wrong))


def main() -> None:
    """Kill, and write the page or print it; exit code 1 where something is wrong."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=KILLS)
    parser.add_argument("--keep", type=Path, default=Path("slimfleet-out/bench-chaos"))
    options = parser.parse_args()
    keep = options.keep.absolute()
    keep.mkdir(parents=True, exist_ok=True)
    fleet = Fleet(keep, DEVICES, free_ports(1)[0])
    if not (keep / "pki").exists():
        fleet.make_keys()
    path = keep / "found.json"
    known: list[Found] = read(path)
    while (left := options.kills - sum(len(each.kills) for each in known)) > 0:
        known.append(found_of(keep, fleet, len(known), left))
        write_atomically(path, json.dumps([asdict(each) for each in known], indent=1).encode())
        print(known[-1], flush=True)
    if options.folder is None:
        print(page(known))
    else:
        write_atomically(options.folder / "chaos.md", page(known).encode())
    raise SystemExit(any(each.wrong for each in known))


def read(path: Path) -> list[Found]:
    """What is known from an earlier call."""
    content = json.loads(path.read_text()) if path.exists() else []
    return [Found(**{**each, "kills": [Kill(**kill) for kill in each["kills"]]}) for each in content]


def page(known: Sequence[Found]) -> str:
    """The page, in Markdown."""
    kills = Counter(kill.victim for found in known for kill in found.kills)
    runs = [
        [str(seed), f"{found.seconds:.0f} s", str(len(found.kills)), found.wrong or "the same"]
        for seed, found in enumerate(known)
    ]
    each = [
        [str(seed), f"{kill.after_s:.1f} s", kill.victim, kill.hit]
        for seed, found in enumerate(known)
        for kill in found.kills
    ]
    killed = ", ".join(f"{name} {count} times" for name, count in sorted(kills.items()))
    settings = SETTINGS.format(rounds=ROUNDS, task='{name = "digits"}', pki="pki", devices=len(DEVICES))
    return (
        INTRODUCTION.format(
            when=when(), cores=os.cpu_count(), devices=len(DEVICES), rounds=ROUNDS, kills=sum(kills.values()),
            absence=LONGEST_ABSENCE_S, gap=LONGEST_GAP_S, lines=MOST_LINES, pause=LONGEST_PAUSE_S, killed=killed,
            settings=settings,
        )
        + table(["seed", "the run took", "kills", "in the end"], runs)
        + "\n\n"
        + table(["seed", "killed at", "victim", "where it was"], each)
        + "\n"
    )  # fmt: skip


INTRODUCTION = """# Chaos

Written by `make bench-chaos` ({when}, {cores} cores shared with other work). `serve`, which is coordinator and gateway
in one, and {devices} devices run {rounds} rounds of `digits` on loopback, with mutual TLS. Again and again one of them
is killed by SIGKILL, with all that it has started, and begins again with the same command within {absence:g} s.
Victim, moment and absence are drawn from the seed of the run. Half of the moments are by the clock, at most {gap:g} s
after the last start; half come after at most {lines} lines of the logs, of which a round has ten, and a pause of at
most {pause:g} s. After {kills} kills the last run is left alone. Each round waits for all devices. *The same*: the
model is that of a run that was left alone, byte for byte, and every device's update is counted once in every round:
{rounds} rounds of {devices} done, and no other outcome.

```toml
{settings}```

Killed: {killed}.

"""


if __name__ == "__main__":
    main()
