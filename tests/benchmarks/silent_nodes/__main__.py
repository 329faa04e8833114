"""A mute and a hanging node among twenty on a real SuperLink: what they cost a round.

    PYTHONPATH=tests/benchmarks:tests/end_to_end python -m silent_nodes docs/results

writes `silent-nodes.md` there; some forty minutes on two cores. Runs with twenty honest devices alternate with runs in
which two are silent, on the same processes; each goes on from its checkpoint. `--blocks 1 --rounds 2` for a part;
without a folder the page is printed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from silent_nodes.federation import Round, federation
from silent_nodes.page import page

from slimfleet.compression.files import write_atomically


def main() -> None:
    """Measure, and write the page or print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--blocks", type=int, default=2, help="runs of either kind")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each run")
    options = parser.parse_args()
    honest: list[list[Round]] = []
    silent: list[list[Round]] = []
    with tempfile.TemporaryDirectory() as scratch, federation(Path(scratch)) as fleet:
        for _ in range(options.blocks):
            honest.append(fleet.run("honest", options.rounds, silent=False))
            silent.append(fleet.run("silent", options.rounds, silent=True))
            text = page(honest, silent)
            if options.folder is None:
                print(text, flush=True)
            else:
                write_atomically(options.folder / "silent-nodes.md", text.encode())


if __name__ == "__main__":
    main()
