"""How soon the second round of a resident device begins, beside that of a SuperNode.

    PYTHONPATH=tests/benchmarks:tests/end_to_end python -m second_round docs/results

writes `second-round.md` there; five minutes on two cores. `--starts 1 --rounds 2` for a part; without a folder the page
is printed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from second_round.page import page
from second_round.resident import rounds_of_a_resident
from second_round.supernode import rounds_of_a_supernode

from slimfleet.compression.files import write_atomically


def main() -> None:
    """Measure, and write the page or print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--starts", type=int, default=3, help="starts of either device")
    parser.add_argument("--rounds", type=int, default=6, help="rounds after each start")
    options = parser.parse_args()
    found: dict[str, list[list[float]]] = {"resident": [], "supernode": []}
    for _ in range(options.starts):
        for name, measure in (("resident", rounds_of_a_resident), ("supernode", rounds_of_a_supernode)):
            with tempfile.TemporaryDirectory() as scratch:
                found[name].append(measure(Path(scratch), options.rounds))
            print(name, [f"{1_000 * each:.1f} ms" for each in found[name][-1]], flush=True)
    text = page(found["resident"], found["supernode"])
    if options.folder is None:
        print(text)
    else:
        write_atomically(options.folder / "second-round.md", text.encode())


if __name__ == "__main__":
    main()
