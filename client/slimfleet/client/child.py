"""Child processes that load torch: asked in JSON on stdin, they answer in JSON on stdout.

The process that asks stays small: on a board of 512 MB two that hold torch would not fit. And one that has trained
before keeps what it was given then, so that only a new one shows what a round takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from slimfleet.compression import BadInput, SlimfleetError
from slimfleet.compression.edge.command_line import stdout_kept_clean

__all__ = ["Wrap", "answer", "asked"]

Wrap = Callable[[Sequence[str]], Sequence[str]]
"""What a command becomes, for example one that runs in a control group."""

SHOWN = 400
"""Characters of what a child said that an error repeats."""


def asked(module: str, request: dict[str, Any], what: str, longest_s: float, wrap: Wrap = tuple) -> Any:
    """What `module` answers, run in a new process. Raises BadInput where it raised that, and SlimfleetError, which says
    `what` it did, where it fails otherwise or takes longer than `longest_s`."""
    command = wrap([sys.executable, "-m", module])
    try:
        ran = subprocess.run(
            command,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=longest_s,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SlimfleetError(f"{what} took more than {longest_s:.0f} s and was given up") from error
    if ran.returncode != 0:
        said = (ran.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise SlimfleetError(f"{what} ended with exit code {ran.returncode}: {said[-SHOWN:]}")
    found = json.loads(ran.stdout)
    if "refused" in found:
        raise BadInput(found["refused"])
    if "failed" in found:
        raise SlimfleetError(f"{what} failed: {found['failed']}")
    return found["answer"]


def answer(do: Callable[[dict[str, Any]], Any]) -> None:
    """Answer the request on stdin, in the child. What a task prints goes to stderr."""
    request = json.load(sys.stdin)
    try:
        with stdout_kept_clean():
            found = {"answer": do(request)}
    except BadInput as error:
        found = {"refused": str(error)}
    except SlimfleetError as error:
        found = {"failed": str(error)}
    print(json.dumps(found))
