"""Introducing: what a device says of itself, found out by a process of its own.

To count its examples a device loads them, and with them torch. The process that does so ends, so that the resident one
stays small until there is work. `python -m slimfleet.client.gateway.introducing` reads a description from stdin and
prints the registration, or what is wrong, as JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict

from slimfleet.client.gateway.described import Described
from slimfleet.compression import BadInput, SlimfleetError
from slimfleet.compression.edge.command_line import stdout_kept_clean
from slimfleet.compression.edge.task_loader import make_importable

__all__ = ["introduction"]

LONGEST_S = 600.0


def introduction(described: Described) -> str:
    """The registration of a device as JSON. Raises BadInput where something in its description is wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "slimfleet.client.gateway.introducing"],
        input=json.dumps(asdict(described)),
        stdout=subprocess.PIPE,
        text=True,
        timeout=LONGEST_S,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
    )
    try:
        said = json.loads(done.stdout.splitlines()[-1])
        problem, registration = said.get("problem"), said.get("registration")
    except (ValueError, IndexError, AttributeError) as error:
        raise SlimfleetError(f"the device could not be examined: exit code {done.returncode}") from error
    if problem is not None:
        raise BadInput(problem)
    return str(registration)


def main() -> None:
    """Examine the device that stdin describes."""
    described = json.loads(sys.stdin.read())
    try:
        with stdout_kept_clean():
            from slimfleet.client.deployed import deployed_device
            from slimfleet.client.startup import Began
            from slimfleet.compression.messages import text_of

            make_importable(described["import_from"])
            began = Began.of_process()
            device = deployed_device(
                described["node"], described["task"], described["options"], lambda: began
            )
            found = {"registration": text_of(device.registration())}
    except SlimfleetError as error:
        found = {"problem": " ".join(str(error).split())}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
