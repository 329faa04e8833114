"""Checkpoints in slim files: lossless beside other compressors, and a large one's memory and time.

    make bench-pack
    make bench-pack ARGS="--no-large"

writes `pack.md` into the folder that it is given. The large checkpoint takes 5 GB of the disk while it lasts. What was
measured is kept and not measured again, until `--fresh` is given.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from slimfleet.compression.files import write_atomically

from . import kept, large
from .lossless import DTYPES, measure
from .page import page
from .peers import available
from .weights import sources

ROOM_BYTES = 6 * 10**9


def main() -> None:
    """Measure, then write the page."""
    arguments = _arguments()
    peers, missing = available()
    found, absent = sources()
    for name in [*missing, *absent]:
        print(f"##### NOT MEASURED: {name} #####", file=sys.stderr)
    if arguments.fresh:
        shutil.rmtree(arguments.keep, ignore_errors=True)
    cases = [
        kept.case(arguments.keep, f"{source.name} {dtype}", partial(measure, source, dtype, peers))
        for source in found
        for dtype in DTYPES
    ]
    runs = kept.runs(arguments.keep, partial(_large, arguments.scratch)) if arguments.large else []
    text = page(cases, runs, [*missing, *absent])
    write_atomically(arguments.folder / "pack.md", text.encode())
    print(text)


def _large(scratch: Path | None) -> list[large.Run]:
    with TemporaryDirectory(dir=scratch) as folder:
        if shutil.disk_usage(folder).free < ROOM_BYTES:
            sys.exit(f"error: {folder} has no {ROOM_BYTES / 1e9:.0f} GB: name another folder with --scratch")
        return large.measure(Path(folder), list(large.shapes()))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="checkpoints", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the page goes")
    parser.add_argument(
        "--keep", type=Path, default=Path("slimfleet-out/bench-pack"), help="where outcomes are kept"
    )
    parser.add_argument("--fresh", action="store_true", help="measure anew what is kept, too")
    parser.add_argument("--scratch", type=Path, help="where the large checkpoint lies while it lasts")
    parser.add_argument(
        "--large", action=argparse.BooleanOptionalAction, default=True, help="with the large checkpoint"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
