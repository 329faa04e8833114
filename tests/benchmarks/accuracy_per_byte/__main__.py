"""Accuracy per byte of uplink, ours against STC, QSGD and float32 on Fashion-MNIST.

    python tests/benchmarks/accuracy_per_byte docs/results

writes `accuracy-per-byte.md` and `.png` there. Finished runs are kept in a file; a sweep that was interrupted
goes on where it was. `--jobs` runs at a time, each on one core. `--seeds 99 --rounds 3` shows in a minute that
everything works.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path

from methods import METHODS, REFERENCE
from model import schema
from outcomes import outcomes
from page import page
from plot import save
from settings import Settings
from sweep import sweep

from slimfleet.compression.files import write_atomically


def main() -> None:
    """Run what is missing, then write the page and the picture."""
    arguments = _arguments()
    settings = replace(Settings(), rounds=arguments.rounds)
    names = [name for name in METHODS if name in {REFERENCE, *arguments.methods}]
    runs = sweep(settings, names, arguments.seeds, arguments.runs, arguments.jobs)
    elements = schema().elements
    results = outcomes(runs, elements, settings.per_round)
    text = page(results, runs, settings, elements)
    write_atomically(arguments.folder / "accuracy-per-byte.md", text.encode())
    save(results, runs, arguments.folder / "accuracy-per-byte.png")
    print(text)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the page and the picture go")
    parser.add_argument("--runs", type=Path, default=Path("slimfleet-out/accuracy-per-byte/runs.jsonl"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rounds", type=int, default=Settings().rounds)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="METHOD")
    return parser.parse_args()


if __name__ == "__main__":
    main()
