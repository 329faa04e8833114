"""Two hundred devices at a gateway, on links that lose calls: no update is lost or used twice, and memory stays flat.

    PYTHONPATH=tests/benchmarks:tests/end_to_end python -m crowd docs/results

writes `crowd.md` and `crowd.png` there; ten minutes on two cores. `--devices 20 --rounds 4` for a part; without a
folder the page is printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

from crowd.account import read
from crowd.devices import devices_of
from crowd.fleet import name_of, prepare, settings
from crowd.memory import watched
from crowd.page import Run, draw, page, verdicts
from flower_processes import eventually, free_ports, logs
from gateway_processes import at_work, ended
from plain_calls import differs_from_plain

from slimfleet.compression.files import write_atomically

LONGEST_S = 1_500.0


def crowd(folder: Path, devices: int, rounds: int, processes: int) -> Run:
    """A run in `folder`."""
    prepare(folder, devices)
    (port,) = free_ports(1)
    text = settings(devices, rounds, port)
    (folder / "federation.toml").write_text(text)
    server = [
        sys.executable,
        "-m",
        "noting_server",
        f"{folder / 'federation.toml'}",
        f"{folder / 'events.jsonl'}",
    ]
    path = os.pathsep.join(sys.path)
    began = time.time()
    with ExitStack() as stack:
        serving = stack.enter_context(at_work(server, folder / "server.log", PYTHONPATH=path))
        samples = stack.enter_context(watched(serving.pid))
        eventually(lambda: "devices connect" in logs(folder), "the server listens", folder)
        firsts = [devices * number // processes for number in range(processes + 1)]
        holding = [
            stack.enter_context(
                at_work(
                    [sys.executable, "-m", "crowd.devices", str(folder), str(port), str(first), str(last)],
                    folder / f"devices-{first}.log",
                    PYTHONPATH=path,
                )
            )
            for first, last in pairwise(firsts)
        ]
        ended(serving, holding, LONGEST_S, folder)
        finished = time.time()
    (folder / "plain").mkdir()
    others = {name_of(number): each for number, each in devices_of(folder, "plain", 0, devices).items()}
    differs = differs_from_plain(folder / "federation.toml", folder / "out" / "model.safetensors", others)
    return Run(devices, rounds, processes, read(folder), samples, began, finished, differs, text)


def main() -> None:
    """Run, and write the page or print it; exit code 1 where something does not hold."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--processes", type=int, default=4, help="that hold the devices")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = crowd(Path(scratch), options.devices, options.rounds, options.processes)
    text = page(run)
    if options.folder is None:
        print(text)
    else:
        write_atomically(options.folder / "crowd.md", text.encode())
        draw(run, options.folder / "crowd.png")
    sys.exit(any(verdicts(run).values()))


if __name__ == "__main__":
    main()
