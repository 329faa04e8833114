"""Speed of simulations: slimfleet beside its peers, on the same work, in one run on one machine.

    python tests/benchmarks/simulation docs/results --peers .venv-peers/bin

writes `simulation.md` there. Every engine runs in a process of its own, one after the other, over and over; a figure
is the median over all rounds but each run's first. `--peers` is the `bin` of an environment that has pfl and fedjax; a
peer that is not there is missing from the page. `--rounds`, `--repeats` and `--models` for a part. `--shapes [NAME]`
prints the table of shapes alone, of all models or of those whose name holds NAME.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np
from page_parts import table, when
from shapes import shapes
from work import COHORT, DEVICES

from slimfleet.compression.files import write_atomically

HERE = Path(__file__).parent
LARGE = 10_000
"""Devices of a larger fleet."""

TIMEOUT_S = 600.0
"""Of one engine: Flower's, with a large fleet, may take longer than all others together."""
NAMES = {
    "plain": "plain loop, one process",
    "flower": "Flower's simulation, 2 actors",
    "pfl": "pfl 0.6.0, 2 processes",
    "fedjax": "fedjax 0.0.17",
    "slimfleet-loop-local": "slimfleet, loop, local",
    "slimfleet-loop-ray": "slimfleet, loop, 2 Ray workers",
    "slimfleet-cohort-local": "slimfleet, cohort, local",
    "slimfleet-cohort-ray": "slimfleet, cohort, 2 Ray workers",
    "slimfleet-cohort+fast-ray": "the same with energy, budgets and codec, preset fast",
    "slimfleet-cohort+small-ray": "the same with energy, budgets and codec, preset small",
}


@dataclass(slots=True)
class Measured:
    """What one engine did with one model."""

    rounds_s: list[float] = field(default_factory=list)
    apart: float | None = None
    """Largest difference of its last weights from the plain loop's."""

    @property
    def devices_per_s(self) -> float:
        """Median over rounds."""
        return COHORT / median(self.rounds_s)


@dataclass(frozen=True, slots=True)
class Amount:
    """How much is measured."""

    rounds: int
    repeats: int
    devices: int = DEVICES
    """Of the fleet."""


def commands(
    model: str, amount: Amount, cohorts: Path, folder: Path, peers: Path | None
) -> Mapping[str, list[str]]:
    """How each engine is started."""
    told = [model, str(cohorts), str(folder)]

    def ours(engine: str, backend: str) -> list[str]:
        words = [engine, model, backend, str(amount.rounds), str(cohorts), str(folder), str(amount.devices)]
        return [sys.executable, str(HERE / "ours.py"), *words]

    flower = [sys.executable, str(HERE / "flower_peer.py"), *told, str(amount.devices)]
    if amount.devices > DEVICES:
        return {"slimfleet-cohort-ray": ours("cohort", "ray"), "flower": flower}

    started = {
        f"slimfleet-{engine}-{backend}": ours(engine, backend)
        for engine, backend in (
            *(("loop", "local"), ("cohort", "ray"), ("cohort", "local"), ("loop", "ray")),
            *(("cohort+fast", "ray"), ("cohort+small", "ray")),
        )
    }
    started["plain"] = [sys.executable, str(HERE / "plain_loop.py"), *told]
    started["flower"] = flower
    if peers is not None:
        started["pfl"] = [str(peers / "torchrun"), "--nproc-per-node", "2", str(HERE / "pfl_peer.py"), *told]
        started["fedjax"] = [str(peers / "python"), str(HERE / "fedjax_peer.py"), *told]
    return started


def measured(model: str, amount: Amount, peers: Path | None, folder: Path) -> dict[str, Measured]:
    """Run all engines on one model, one after the other, over and over; of a larger fleet two of them."""
    found: dict[str, Measured] = {}
    folder.mkdir(exist_ok=True)
    cohorts = folder / f"cohorts-{model}.npz"
    for repeat in range(amount.repeats):
        for engine, command in commands(model, amount, cohorts, folder, peers).items():
            print(
                f"{model}, {amount.devices} devices, {repeat + 1} of {amount.repeats}: {engine}", flush=True
            )
            for old in folder.glob(f"{engine}/{model}"):
                subprocess.run(["rm", "-r", str(old)], check=True)
            log = folder / f"{engine}-{model}.log"
            began = os.times()
            with log.open("w") as output:
                environment = os.environ | {"OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
                try:
                    subprocess.run(
                        command, env=environment, stdout=output, stderr=output, timeout=TIMEOUT_S, check=True
                    )
                except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as failed:
                    why = f"{failed}"[-100:]
                    print(f"##### {engine} FAILED: {why}: {log.read_text()[-600:]} #####", file=sys.stderr)
                    continue
            ended = os.times()
            busy_s = sum(ended[2:4]) - sum(began[2:4])
            print(f"  {busy_s:.1f} s of processor time", flush=True)
            ends_s = json.loads((folder / f"{engine}-{model}.json").read_text())
            found.setdefault(engine, Measured()).rounds_s += np.diff(ends_s).tolist()
    for engine, each in found.items():
        if "plain" in found and "+" not in engine:
            each.apart = _apart(folder / f"{engine}-{model}.npz", folder / f"plain-{model}.npz")
    return found


def _apart(one: Path, other: Path) -> float:
    with np.load(one) as mine, np.load(other) as plain:
        return max(float(np.abs(mine[name] - plain[name]).max()) for name in plain)


def section(model: str, found: Mapping[str, Measured]) -> str:
    """The table of one model."""
    rows = []
    for engine, name in NAMES.items():
        if engine not in found:
            continue
        each = found[engine]
        ratios = [
            f"{each.devices_per_s / found[peer].devices_per_s:.2f}x" if peer in found else "-"
            for peer in ("flower", "pfl", "fedjax", "plain")
        ]
        apart = "-" if each.apart is None else f"{each.apart:.1e}"
        rows.append([name, f"{each.devices_per_s:,.1f}", *ratios, apart])
    head = ("engine", "devices/s", "Flower's", "pfl's", "fedjax's", "plain loop's", "weights apart")
    return table(head, rows)


@dataclass(slots=True)
class Found:
    """All that goes on the page."""

    models: dict[str, Mapping[str, Measured]] = field(default_factory=dict)
    large: Mapping[str, Measured] | None = None
    shapes: str = ""
    raw_s: float | None = None
    """Of a device's convolutions alone."""

    @property
    def raw_share(self) -> float | None:
        """How much of the convolutions' own speed one process reaches."""
        local = self.models.get("cnn", {}).get("slimfleet-cohort-local")
        return None if self.raw_s is None or local is None else local.devices_per_s * self.raw_s


OURS = "slimfleet-cohort-ray"
TARGETS = (
    *(
        ("cnn", OURS, "flower", 4.5),
        ("cnn", OURS, "pfl", 1.1),
        ("cnn", "slimfleet-cohort+fast-ray", OURS, 0.5),
    ),
    *(("mlp", OURS, "flower", 18.0), ("mlp", OURS, "pfl", 1.8), ("mlp", OURS, "fedjax", 1.5)),
    ("mlp", "slimfleet-cohort+fast-ray", OURS, 0.5),
)
"""Model, engine, the engine that it is compared with, and the least ratio of devices a second."""
LARGE_TARGET = 40.0
"""The same with the larger fleet, beside Flower."""
RAW_TARGET = 0.6
"""Share of the speed of the convolutions alone."""


def targets(found: Found) -> str:
    """The table of targets, of what has been measured."""
    rows = [
        _target(f"{model}: {NAMES[engine]}, beside {NAMES[other]}", f"{least:g}x", least, each, engine, other)
        for model, engine, other, least in TARGETS
        if (each := found.models.get(model)) is not None
    ]
    if (share := found.raw_share) is not None:
        met = "met" if share >= RAW_TARGET else "missed"
        rows.append(
            ["cnn: one process, beside the convolutions alone", f"{RAW_TARGET:.0%}", f"{share:.0%}", met]
        )
    if found.large is not None:
        what = f"mlp, {LARGE:,} devices: {NAMES[OURS]}, beside {NAMES['flower']}"
        rows.append(_target(what, f"{LARGE_TARGET:g}x", LARGE_TARGET, found.large, OURS, "flower"))
    return table(("what", "target", "result", ""), rows)


def _target(
    what: str, text: str, least: float, each: Mapping[str, Measured], engine: str, other: str
) -> list[str]:
    if engine not in each or other not in each:
        return [what, text, "not measured", ""]
    ratio = each[engine].devices_per_s / each[other].devices_per_s
    return [what, text, f"{ratio:.2f}x", "met" if ratio >= least else "missed"]


def page(found: Found, arguments: Sequence[str]) -> str:
    """The whole page."""
    sections = [f"## Targets\n\n{targets(found)}"]
    sections += [f"## {model}\n\n{section(model, each)}" for model, each in found.models.items()]
    if found.raw_s is not None and (share := found.raw_share) is not None:
        sections.append(
            f"The convolutions of a device alone, forwards and backwards, take {1e3 * found.raw_s:.2f} ms on one "
            f"thread: {1 / found.raw_s:.1f} devices/s at most. The engine `cohort` in one process does "
            f"{share:.0%} of that, with everything else that a round consists of; devices that are "
            "trained together may exceed it."
        )
    if found.large is not None:
        sections.append(
            f"## A fleet of {LARGE:,} devices\n\n`mlp`, {COHORT} devices a round. An engine that is missing took "
            f"longer than {TIMEOUT_S:.0f} s over all rounds, or failed.\n\n"
            f"{section('mlp', found.large)}"
        )
    if found.shapes:
        sections.append(
            "## Never slower than the loop\n\nProcessor time of one device's round by the engines `loop` and `cohort`, "
            f"in turn in one process and thread, medians.\n\n{found.shapes}"
        )
    body = "\n\n".join(sections)
    return f"""# Speed of simulations

Federated averaging over {DEVICES:,} devices of 60 Fashion-MNIST images, {COHORT} a round, three batches of 20 and plain
float32 traffic; `cnn` has 67,970 parameters, `mlp` 7,960. Every engine does the same rounds: the same devices, images,
orders and first weights. Each ran in a process of its own, one after the other; a figure is the median over all rounds
but a run's first. *Weights apart* is the largest difference of a last weight from the plain loop's.

`python tests/benchmarks/simulation {" ".join(arguments)}`, {when()}, load {os.getloadavg()[1]:.1f} at the end.

{body}

No GPU was used; [another page](simulation-gpu.md) has training on one.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/results"))
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--models", nargs="+", default=["cnn", "mlp"])
    parser.add_argument("--shapes", nargs="?", const="", metavar="NAME")
    given = parser.parse_args()
    if given.shapes is not None:
        print(shapes(given.repeats, given.shapes))
        return
    found = Found()

    def write() -> None:
        told = [".venv-peers/bin" if word == str(given.peers) else word for word in sys.argv[1:]]
        write_atomically(given.out / "simulation.md", page(found, told).encode())

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for model in given.models:
            found.models[model] = measured(model, Amount(given.rounds, given.repeats), given.peers, folder)
            raw = folder / "raw.json"
            found.raw_s = json.loads(raw.read_text()) if raw.exists() else None
            write()
        found.large = measured("mlp", Amount(given.rounds, 1, LARGE), given.peers, folder / "large")
        write()
    found.shapes = shapes(given.repeats, "")
    write()


if __name__ == "__main__":
    main()
