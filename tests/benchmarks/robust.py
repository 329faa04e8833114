"""Hostile devices against each way to aggregate: accuracy, and the memory that it takes.

    python tests/benchmarks/robust.py docs/results                # docs/results/robust.md, some 20 minutes of one core
    python tests/benchmarks/robust.py docs/results --seeds 0      # a third of it

Twenty devices share the digits, all take part in each of 15 rounds, and two of them are hostile. Goes on where it was
interrupted: what is measured lies in `--keep`.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
from page_parts import table, when

from slimfleet.compression import ModelSchema
from slimfleet.compression.files import write_atomically
from slimfleet.compression.pruning import index_map
from slimfleet.coordinator.learning.aggregators import AGGREGATORS
from slimfleet.coordinator.settings import ServerSettings
from slimfleet.simulations import InProcess, load_scenario

LIMITS = ("energy_j", "uplink_bytes", "downlink_bytes", "deadline_s")
FLEET = {
    "rounds": "15",
    "fleet.devices": "20",
    "selection.per_round": "20",
    "fleet.availability": "1.0",
    "fleet.dropout": "0.0",
    "selection.battery_floor": "0.0",
    "planner.max_epochs": "2.0",
    "planner.batch_sizes": "[16]",
    "client.learning_rate": "0.1",
    **{f"{table}.{limit}": '"none"' for table in ("budget", "budget.class.phone-low") for limit in LIMITS},
}
"""Everybody takes part in every round, so that two of twenty are hostile in each."""

HOSTILE_SHARE = 0.1
ATTACKS = ("scaled_back", "scaled_up", "noise")
TITLES = {
    "": "all honest",
    "scaled_back": "times -10",
    "scaled_up": "times 100",
    "noise": "noise",
}
DEFENCES: Mapping[str, Mapping[str, str]] = {
    "default": {},
    "trimmed": {"server.aggregation": '"trimmed"'},
    "clip": {"server.clip_quantile": "0.5"},
    "none": {"server.fleet_bounds": "false", "server.max_update_norm": "1e9"},
    "median": {"server.aggregation": '"median"'},
}
IN_ORDER = (
    ("default", ""),
    *product(("trimmed", "clip", "none"), ATTACKS),
    *product(("default", "median"), ATTACKS),
    *product(("trimmed", "clip", "none", "median"), ("",)),
)
"""What is measured, the most telling first."""
NAMES = {
    "none": "plain averaging, no bounds (`fleet_bounds = false`, `max_update_norm = 1e9`)",
    "default": "the default: mean with fleet bounds",
    "clip": "clipping (`clip_quantile = 0.5`)",
    "trimmed": 'trimmed mean (`aggregation = "trimmed"`)',
    "median": 'median (`aggregation = "median"`)',
}
COHORTS = (20, 100)
PARAMETERS = 100_000


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="where robust.md goes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--keep", type=Path, default=Path("slimfleet-out/bench-robust.json"))
    parser.add_argument("--only-page", action="store_true", help="write the page of what is measured already")
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)  # of rejected updates there are many
    found: dict[str, float] = json.loads(arguments.keep.read_text()) if arguments.keep.exists() else {}
    for seed, (defence, attack) in product([] if arguments.only_page else arguments.seeds, IN_ORDER):
        key = f"{defence}/{attack}/{seed}"
        if key not in found:
            found[key] = accuracy(defence, attack, seed)
            arguments.keep.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(arguments.keep, json.dumps(found, indent=1).encode())
        print(f"{key}: {found[key]:.3f}", flush=True)
    write_atomically(arguments.folder / "robust.md", page(found, arguments.seeds).encode())


def accuracy(defence: str, attack: str, seed: int) -> float:
    """Of the global model on the test digits, 0..1: the mean of the last five rounds."""
    faults = {"fleet.faults": f"{{ {attack} = {HOSTILE_SHARE} }}"} if attack else {}
    scenario = load_scenario("digits", {**FLEET, **DEFENCES[defence], **faults, "seed": str(seed)})
    federation = InProcess.of(scenario)
    rows = [federation.round().row for _ in range(scenario.coordinator.rounds)]
    assert rows[-1].trailing_accuracy is not None
    return rows[-1].trailing_accuracy


def memory(cohort: int) -> Iterator[list[str]]:
    """A row for each aggregator: bytes an element at the peak, and milliseconds of processor time an update."""
    full = {"w": np.zeros(PARAMETERS, np.float32)}
    schema = ModelSchema.of(full, ["w"])
    where, rng = index_map(schema, [], {}), np.random.default_rng(0)
    for name, make in AGGREGATORS.items():
        tracemalloc.start()
        aggregator = make(schema, cohort, full, 1, ServerSettings())
        held = tracemalloc.get_traced_memory()[0]
        began = time.process_time()
        for _ in range(cohort):
            aggregator.add({"w": rng.standard_normal(PARAMETERS).astype(np.float32)}, where, 1)
        spent = time.process_time() - began
        tracemalloc.reset_peak()
        aggregator.mean()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        yield [
            f"`{name}`",
            str(cohort),
            f"{held / PARAMETERS:.0f}",
            f"{peak / PARAMETERS:.0f}",
            f"{4 * cohort}",
            f"{1e3 * spent / cohort * 1e6 / PARAMETERS:.0f}",
        ]


def page(found: Mapping[str, float], seeds: Sequence[int]) -> str:
    """The whole page."""

    def each(defence: str, attack: str) -> list[float]:
        keys = [f"{defence}/{attack}/{seed}" for seed in seeds]
        return [100 * found[key] for key in keys if key in found]

    honest = fmean(each("default", ""))

    def cell(defence: str, attack: str) -> str:
        values = each(defence, attack)
        if not values:
            return "not measured"
        return f"**{fmean(values):.1f}** ({', '.join(f'{value:.1f}' for value in values)})"

    rows = [[NAMES[name], *(cell(name, attack) for attack in TITLES)] for name in NAMES]
    worst = [
        [NAMES[name], f"{min(fmean(each(name, attack)) for attack in ATTACKS) - honest:+.1f}"]
        for name in NAMES
        if all(each(name, attack) for attack in ATTACKS)
    ]
    return "\n".join(
        [
            "# Hostile devices",
            "",
            f"Written by `make bench-robust` ({when([f'numpy {np.__version__}'])}).",
            "",
            "Twenty devices share the digits of scikit-learn (alpha = 1), and all of them take part in each of 15",
            "rounds. Two are hostile: they send their update times -10, or times 100, or in its place noise that is",
            "fifteen times as long, below the norm at which updates are rejected. Accuracy in % on the test digits,",
            f"mean of the last five rounds; the mean over seeds {', '.join(map(str, seeds))}, and each.",
            "",
            table(["server", *TITLES.values()], rows),
            "",
            *(
                [f"The worst attack, in points beside the honest run of the default ({honest:.1f} %):", ""]
                if worst
                else []
            ),
            *([table(["server", "points"], worst), ""] if worst else []),
            "## Memory",
            "",
            f"Bytes for each parameter of the model, measured with tracemalloc on {PARAMETERS:,} float32 parameters:",
            "what an aggregator holds through a round, its peak when the mean is read, and what keeping all updates in",
            "float32 would take. The time is of one update of a million parameters, its random values included.",
            "",
            table(
                ["`server.aggregation`", "devices", "held", "peak", "all updates", "ms"],
                [row for cohort in COHORTS for row in memory(cohort)],
            ),
            "",
        ]
    )


if __name__ == "__main__":
    main()
