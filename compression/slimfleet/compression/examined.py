"""Examined models on disk: what a process found out about an architecture, for the processes after it.

Finding channel groups and counting work takes seconds, and a device may start a process for every message. One sealed
file (`slimfleet.compression.sealed_file`) holds one finding; its name is the key of
`slimfleet.compression.architecture`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.files import write_atomically
from slimfleet.compression.sealed_file import open_sealed, seal_tensors
from slimfleet.compression.types import Tensors

__all__ = ["Examined", "Finding", "user_cache"]

SUFFIX = ".examined"

log = logging.getLogger(__name__)

Finding = tuple[Tensors, Mapping[str, str]]
"""Arrays and words."""


@dataclass(frozen=True, slots=True)
class Examined:
    """Findings in a folder. A damaged file counts as none; where the disk refuses, or without a folder or a key,
    nothing is kept."""

    folder: Path | None

    def get(self, key: str | None) -> Finding | None:
        """What was put under this key."""
        if self.folder is None or key is None:
            return None
        try:
            return open_sealed(_path(self.folder, key).read_bytes())
        except (OSError, PayloadError) as flaw:
            if not isinstance(flaw, FileNotFoundError):
                log.warning("%s: %s; this is found out again", _path(self.folder, key), flaw)
            return None

    def put(self, key: str | None, finding: Finding) -> None:
        """Keep a finding."""
        if self.folder is None or key is None:
            return
        try:
            write_atomically(_path(self.folder, key), seal_tensors(*finding), durable=False)
        except OSError as refused:
            log.warning("%s is not kept: %s", _path(self.folder, key), refused)


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}{SUFFIX}"


def user_cache() -> Examined:
    """Findings in `$XDG_CACHE_HOME/slimfleet`, by default `~/.cache/slimfleet`; in no folder without a home."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return Examined(None)
    return Examined(folder / "slimfleet")
