"""What budgets save on Fashion-MNIST: three seeds against plain FedAvg, and where the saving comes from.

    python tests/benchmarks/fashion_mnist.py docs/results

writes `fashion-mnist.md` and `fashion-mnist.png` there. README repeats the first table. About ten minutes on two cores.
"""

from __future__ import annotations

import datetime
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from slimfleet.compression.files import write_atomically
from slimfleet.compression.reporting import units
from slimfleet.coordinator.reporting import save_picture
from slimfleet.simulations import RunRecord, load_scenario, simulate, summarise
from slimfleet.simulations.progress import RoundProgress

SEEDS = (0, 1, 2)
COSTS = ("rounds", "uplink_bytes", "downlink_bytes", "energy_j", "compute_j", "radio_j", "virtual_time_s")
SHOWN = {"uplink_bytes": units.data, "downlink_bytes": units.data, "energy_j": units.energy}
AT_LEAST = {"uplink_bytes": 50.0, "downlink_bytes": 3.0, "energy_j": 1.8}

# Every step adds something to plain FedAvg; the scenario as it ships is the last.
STEPS: dict[str, dict[str, str]] = {
    "FedAvg with our server (momentum, averaged model)": {
        "planner.policy": "fixed",
        "planner.widths": "[1.0]",
        "selection.policy": "uniform",
        "codec.feedback": "false",
    },
    "+ budgets, plans and selection, float32 traffic": {
        "planner.nmse": "[0.0]",
        "codec.downlink_bits": "32",
        "codec.feedback": "false",
        "budget.uplink_bytes": '"none"',
        "budget.downlink_bytes": '"none"',
    },
}


def run(changes: dict[str, str], seed: int, baseline: bool) -> tuple[RunRecord, RunRecord | None]:
    """One run of the scenario, some keys changed, in a temporary folder."""
    scenario = load_scenario("fashion_mnist", changes | {"seed": str(seed)})
    with tempfile.TemporaryDirectory() as folder, RoundProgress() as progress:
        return simulate(scenario, Path(folder) / "out", baseline=baseline, progress=progress)


def main(folder: Path) -> None:
    """Run everything, two runs at a time, and write the page and the picture."""
    with ProcessPoolExecutor(max_workers=2, mp_context=get_context("spawn")) as pool:
        seeds = [pool.submit(run, {}, seed, True) for seed in SEEDS]
        steps = {name: pool.submit(run, changes, SEEDS[0], False) for name, changes in STEPS.items()}
        runs = [future.result() for future in seeds]
        record, plain = runs[0]
        assert plain is not None
        saved = {name: summarise(future.result()[0], plain) for name, future in steps.items()}
    summaries = [summarise(ours, theirs) for ours, theirs in runs]
    saved["+ compressed traffic: slimfleet"] = summaries[0]
    save_picture(record, plain, folder / "fashion-mnist.png")
    write_atomically(folder / "fashion-mnist.md", page(summaries, saved).encode())


def page(summaries: Sequence[dict[str, Any]], steps: dict[str, dict[str, Any]]) -> str:
    """The results as Markdown."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        "# Fashion-MNIST: the cost of reaching FedAvg's accuracy",
        "",
        "Written by `make bench-fashion` "
        f"({today}, {platform.machine()}, Python {platform.python_version()}, seeds {', '.join(map(str, SEEDS))}).",
        "100 devices, Dirichlet(0.5), 20 a round. Plain float32 FedAvg runs 30 rounds; its final accuracy (mean of the",
        "last five rounds) is the target. Each cost is summed up to the first round whose trailing five-round accuracy",
        "reaches it. Joules are simulated, and are what devices *spent*, not what was predicted.",
        "",
        *_short(summaries),
        "",
        "Plain FedAvg → slimfleet, factor saved. The same exactly, in bytes and joules:",
        "",
        "| seed | target | rounds | uplink | downlink | energy | computing | radio | violations |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for summary in summaries:
        ours, theirs = summary["to_target"], summary["baseline"]["to_target"]
        cells = [_saving(theirs[cost], ours[cost]) for cost in COSTS[1:-1]]
        lines.append(
            f"| {summary['seed']} | {ours['accuracy']:.4f} | {theirs['rounds']} → {ours['rounds']} | "
            + " | ".join(cells)
            + f" | {summary['budget_violations']} |"
        )
    lines += [
        "",
        "## Results against targets",
        "",
    ]
    for cost, least in AT_LEAST.items():
        worst = min(summary["savings"][cost] or 0.0 for summary in summaries)
        lines.append(f"- {cost}: at least {worst:.1f}x less on every seed; target: {least:g}x.")
    violations = sum(summary["budget_violations"] for summary in summaries)
    lines.append(f"- budget violations by spent cost: {violations} in {len(summaries)} runs; target: 0.")
    lines += [
        "",
        "## Where the saving comes from",
        "",
        f"Seed {SEEDS[0]}, factor saved over plain FedAvg.",
        "",
    ]
    lines += ["| | rounds | uplink | downlink | energy | computing | radio |", "| --- " * 7 + "|"]
    for name, step in steps.items():
        savings = [step["savings"][cost] for cost in COSTS[:-1]]
        lines.append(f"| {name} | " + " | ".join(f"{s:.2f}x" if s else "not reached" for s in savings) + " |")
    return "\n".join(lines) + "\n"


def _short(summaries: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The table that README repeats."""
    yield (
        "| seed | accuracy | rounds | sent by devices | sent to devices | energy (simulated) | "
        "computing / radio | budgets violated |"
    )
    yield "| --- " * 8 + "|"
    for summary in summaries:
        ours, theirs = summary["to_target"], summary["baseline"]["to_target"]
        less = {cost: units.times(saving) for cost, saving in summary["savings"].items()}
        cells = [
            str(summary["seed"]),
            units.percent(ours["accuracy"]),
            f"{theirs['rounds']} → {ours['rounds'] or 'not reached'}",
            *(
                f"{show(theirs[cost])} → {show(ours[cost])}, **{less[cost]} less**"
                for cost, show in SHOWN.items()
            ),
            f"{less['compute_j']} / {less['radio_j']}",
            str(summary["budget_violations"]),
        ]
        yield f"| {' | '.join(cells)} |"


def _saving(theirs: float, ours: float | None) -> str:
    return f"{theirs:,.0f} → {ours:,.0f} ({theirs / ours:.1f}x)" if ours else "not reached"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
