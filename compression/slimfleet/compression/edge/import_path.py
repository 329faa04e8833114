"""Import path: the folders of users' own tasks, which commands (and nothing else) add to Python's import path."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from slimfleet.compression.errors import BadInput


def existing_folders(folders: Sequence[Path]) -> tuple[str, ...]:
    """`folders` as absolute paths, each once, so that they mean the same in every process.

    Raises BadInput naming a folder that does not exist.
    """
    missing = next((folder for folder in folders if not folder.is_dir()), None)
    if missing is not None:
        raise BadInput(f"there is no folder {missing} to import a task from")
    return tuple(dict.fromkeys(str(folder.resolve()) for folder in folders))


def make_importable(folders: Sequence[str]) -> None:
    """Put `folders` at the front of `sys.path`, in their order, as Python does with the folder of a script."""
    sys.path[:] = [*folders, *(entry for entry in sys.path if entry not in folders)]
