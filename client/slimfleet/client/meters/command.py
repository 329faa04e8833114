"""Commands that read a sensor: their text, or None where there is no such command or it does not answer."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence

__all__ = ["Ask", "asking"]

Ask = Callable[[], str | None]
"""Runs a command, and returns what it prints; None where it fails."""

LONGEST_S = 5.0
"""A command that takes longer has no answer."""


def asking(command: Sequence[str], longest_s: float = LONGEST_S) -> Ask:
    """What runs `command`, found on the PATH when asked; nothing is run where it is not there."""

    def ask() -> str | None:
        program = shutil.which(command[0])
        if program is None:
            return None
        try:
            ran = subprocess.run(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=longest_s,
                check=False,
            )
        except (
            OSError,
            subprocess.TimeoutExpired,
        ):  # a sensor without a value, as a file that cannot be read
            return None
        return ran.stdout.decode("utf-8", errors="replace") if ran.returncode == 0 else None

    return ask
