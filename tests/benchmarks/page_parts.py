"""What the pages of several benchmarks share: a table, and when and where they were made."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from pathlib import Path


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown of a table."""
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)])


def when(versions: Sequence[str] = ()) -> str:
    """Today, the processor, and the versions of Python and of the libraries."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    return ", ".join([str(today), processor(), f"Python {platform.python_version()}", *versions])


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """The name of the processor, or its architecture where it has none."""
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()
