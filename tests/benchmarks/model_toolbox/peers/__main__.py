"""One peer on one model, kept as the benchmark does: `python -m model_toolbox.peers nncodec --case lenet-5`."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from model_toolbox.cases import CASES, PEERS
from model_toolbox.jobs import peer_job
from model_toolbox.kept import Kept
from slimfleet.compression.model.central import silent


def main() -> None:
    """Measure what is not kept yet, and print the rows."""
    parser = argparse.ArgumentParser(prog="model_toolbox.peers")
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("slimfleet-out/bench-models"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    job = peer_job(arguments.name, CASES[arguments.case], arguments.seed, arguments.keep / "trained", silent)
    kept = Kept(arguments.keep / job.stage)
    rows = kept.get(job.name, job.of)
    if rows is None:
        rows = job.measure()
        kept.put(job.name, job.of, rows)
    for row in rows:
        print(*(f"{name} {value}" for name, value in row.items()), sep=", ", flush=True)


if __name__ == "__main__":
    main()
