"""Our update codec beside its peers, on real updates: sizes at equal error, and speeds.

    make bench-codec
    make bench-codec UPDATES="a.npz b.npz"

writes `update-codec.md` and `update-codec.png` into the folder that it is given. Every FILE.npz (name -> float32 array)
stands in for one of the updates that are made here otherwise; half an hour on two quiet cores, most of it tuning
NNCodec.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import ours
import torch
import updates
from experiment import Case, run
from nncodec_stubs import import_nncodec
from peers import available
from plot import picture
from requirements import verdicts
from table import page

from slimfleet.compression.files import write_atomically

MADE_BESIDE_FILES = ("small_early", "res_late")
"""What is made here when two files bring the other two kinds."""


def main() -> None:
    """Make or read the updates, measure, write."""
    arguments = _arguments()
    torch.set_num_threads(1)
    peers, missing = available()
    try:
        import_nncodec()
    except ImportError as error:
        missing["nncodec"] = str(error)
    for name, why in missing.items():
        print(f"##### NOT MEASURED: {name} ({why}) #####", file=sys.stderr)
    cases: list[Case] = []
    about = []
    for update, line in _updates(arguments):
        about.append(f"{update.name}: {line}")
        for scope, scoped in (("weights+biases", update), ("weights", update.weights_only())):
            began = time.monotonic()

            def say(what: str, name: str = update.name, scope: str = scope, began: float = began) -> None:
                print(f"{name}, {scope}: {what} after {time.monotonic() - began:.0f} s", flush=True)

            cases.append(run(scoped, scope, peers, "nncodec" not in missing, say))
            _keep(arguments.keep, cases)
    first, zero = ours.first_call(), ours.all_zero(_small_shapes())
    found = verdicts(cases, first, zero)
    folder: Path = arguments.folder
    write_atomically(folder / "update-codec.png", picture(cases))
    text = page(cases, found, missing, about, first, zero, "update-codec.png")
    write_atomically(folder / "update-codec.md", text.encode())
    print("\n".join(verdict.line() for verdict in found))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python tests/benchmarks/codec", description=__doc__.splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="where the page and the picture go")
    parser.add_argument("--updates", type=Path, nargs="*", default=[], metavar="FILE.npz")
    parser.add_argument("--only", nargs="*", choices=updates.RECIPES, help="make these, instead of the usual")
    parser.add_argument(
        "--keep", type=Path, help="a folder for the updates made here, which the next run reads"
    )
    return parser.parse_args()


def _updates(arguments: argparse.Namespace) -> list[tuple[updates.Update, str]]:
    found = [(updates.read(path), f"read from `{path.name}`") for path in arguments.updates]
    names = arguments.only
    if names is None:
        names = MADE_BESIDE_FILES if found else tuple(updates.RECIPES)
    return found + [_made(name, arguments.keep) for name in names]


def _made(name: str, keep: Path | None) -> tuple[updates.Update, str]:
    told = keep / f"{name}.txt" if keep else None
    if keep and told and told.exists():
        return updates.read(keep / f"{name}.npz"), told.read_text()
    print(f"making {name}, minutes", flush=True)
    update, about = updates.make(name)
    if keep and told:
        updates.write(update, keep)
        told.write_text(about)
    return update, about


def _keep(folder: Path | None, cases: list[Case]) -> None:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cases.json").write_text(json.dumps([asdict(case) for case in cases], indent=1))


def _small_shapes() -> dict[str, np.ndarray]:
    state = updates.RECIPES["small_late"].build().state_dict()
    return {name: np.zeros(tensor.shape, np.float32) for name, tensor in state.items()}


if __name__ == "__main__":
    main()
