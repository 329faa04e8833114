"""Models of torchvision, timm and torch.nn: shares at half width, FLOPs, discovery, one training step.

    make bench-zoo
    make bench-zoo ARGS="--only mobilenet_v2 swin_t"

writes `models-zoo.md` into the folder that it is given. Outcomes are kept by model; an interrupted run goes on where it
was, and a change of the code that is measured measures everything anew, as `--fresh` does. With `--only` the table is
printed and no page is written.
"""

from __future__ import annotations

import argparse
import sys
from importlib.metadata import version
from pathlib import Path

import slimfleet.compression.cost
import slimfleet.compression.pruning
from slimfleet.compression.files import write_atomically

from .kept import Kept, fingerprint
from .page import page
from .sweep import in_a_process, sweep
from .zoo import ENTRIES, named

PACKAGES = ("torch", "torchvision", "timm", "torch-pruning")
HERE = Path(__file__).parent
SOURCES = (
    *(
        HERE / f"{name}.py"
        for name in ["bounds", "examine", "hand_count", "ours", "peer", "plain", "step", "zoo"]
    ),
    *(
        Path(str(package.__file__)).parent
        for package in (slimfleet.compression.cost, slimfleet.compression.pruning)
    ),
)
"""What outcomes depend on, apart from the libraries."""


def main() -> None:
    """Examine what is missing, then write the page."""
    arguments = _arguments()
    versions = [f"{package} {version(package)}" for package in PACKAGES]
    kept = Kept(arguments.keep, fingerprint(SOURCES, versions))
    names = [_named(name) for name in arguments.only or ()] or [entry.name for entry in ENTRIES]
    if arguments.fresh:
        kept.forget(names)
    text = page(sweep(names, kept, arguments.jobs, in_a_process), versions)
    if not arguments.only:
        write_atomically(arguments.folder / "models-zoo.md", text.encode())
    print(text)


def _named(name: str) -> str:
    try:
        return named(name).name
    except KeyError:
        known = " ".join(entry.name for entry in ENTRIES)
        print(f"error: no model {name!r}; there are: {known}", file=sys.stderr)
        sys.exit(2)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="models_zoo", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the page goes")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these models alone, and no page")
    parser.add_argument("--fresh", action="store_true", help="measure anew what is kept, too")
    parser.add_argument("--jobs", type=int, choices=(1, 2), default=2, help="models at a time")
    parser.add_argument(
        "--keep", type=Path, default=Path("slimfleet-out/bench-zoo"), help="where outcomes are kept"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
