"""One peer on one model: `python -m model_toolbox.peers NAME --case lenet-5 --seed 0`."""

from __future__ import annotations

import argparse
import importlib
from dataclasses import asdict
from pathlib import Path

import torch

from model_toolbox.cases import CASES

FOLDER = Path("slimfleet-out/bench-models")
NAMES = ("nncodec", "torch_pruning", "torchao")


def main() -> None:
    """Measure what is not kept yet, and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, default=FOLDER, help="holds trained models, and rows that are kept"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    peer = importlib.import_module(f".{arguments.name}", __package__)
    case, folder = CASES[arguments.case], arguments.folder
    for row in peer.compared(case, arguments.seed, folder / "trained", folder / "peers"):
        print(*(f"{name} {value}" for name, value in asdict(row).items()), sep=", ", flush=True)


if __name__ == "__main__":
    main()
