"""Output files: what keeps a file from being written, said in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from slimfleet.compression.errors import BadInput

__all__ = ["refuse_folder", "writing"]


def refuse_folder(path: Path) -> None:
    """Raise BadInput where no file can be written under that name, before the work rather than after it."""
    if path.is_dir() or not path.name:
        raise BadInput(f"cannot write {path}: it is a folder")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into BadInput."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error
