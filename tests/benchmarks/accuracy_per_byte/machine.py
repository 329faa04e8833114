"""Description of the machine that a run was computed on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def machine(info: Path = Path("/proc/cpuinfo")) -> str:
    """Processor model, and versions of Python and torch."""
    names = [line for line in info.read_text().splitlines() if "model name" in line] if info.exists() else []
    processor = names[0].partition(":")[2].strip() if names else platform.machine()
    return f"{processor}, Python {platform.python_version()}, torch {torch.__version__}"
