"""A device behind a thin and lossy link: rounds compressed and in float32, and an upload that is cut three times.

    PYTHONPATH=tests/benchmarks:tests/end_to_end python -m thin_link docs/results

writes `thin-link.md` there; some six minutes. `--rounds 2` for a part; without a folder the page is printed. Needs
root, `ip`, `tc` and `nft`; elsewhere it says so and exits with code 77.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from crowd.account import account
from thin_link import network
from thin_link.page import Interrupted, page, wrong
from thin_link.runs import LARGE, SMALL, WAYS, Cut, cutting, fleet, run, same_model

from slimfleet.compression.files import write_atomically

SKIPPED = 77
HOWS = ("reset", "down", "reset")


def main() -> None:
    """Measure, and write the page or print it; exit code 1 where a cut cost something."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of either way to send")
    options = parser.parse_args()
    if reason := network.cannot_run():
        print(f"##### NOT RUN: {reason} #####", file=sys.stderr)
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory(prefix="thin-") as scratch, network.namespaces():
        own = fleet(Path(scratch))
        own.make_keys()
        runs = {way: run(own, way, way, options.rounds, SMALL) for way in WAYS}
        print(runs, flush=True)
        cuts: list[Cut] = []
        sent: list[int] = []
        (whole,) = run(own, "float32", "whole", 1, LARGE, cutting((), [], sent))
        (cut,) = run(own, "float32", "cut", 1, LARGE, cutting(HOWS, cuts, sent))
        events = (own.folder / "cut.jsonl").read_text().splitlines()
        used = account(events, []).used.total()
        is_same = same_model(own.folder, "whole", "cut")
        interrupted = Interrupted(cut, whole, cuts, sent[1], sent[0], used, is_same)
        text = page(runs, interrupted, network.lost_share(), network.congestion_control())
    if options.folder is None:
        print(text)
    else:
        write_atomically(options.folder / "thin-link.md", text.encode())
    sys.exit(bool(wrong(interrupted)))


if __name__ == "__main__":
    main()
