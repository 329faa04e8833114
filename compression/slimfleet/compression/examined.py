"""Examined models on disk: what a process found out about an architecture, for the processes after it.

Finding channel groups and counting work takes seconds, and a device may start a process for every message. One sealed
file (`slimfleet.compression.sealed_file`) holds one finding; its name is a digest of all that the finding depends on.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.files import write_atomically
from slimfleet.compression.sealed_file import open_sealed, seal_tensors
from slimfleet.compression.types import Tensors

if TYPE_CHECKING:
    from torch import nn

    from slimfleet.compression.task import Task

__all__ = ["Examined", "Finding"]

SUFFIX = ".examined"
PACKAGES = ("slimfleet", "torch")

log = logging.getLogger(__name__)

Finding = tuple[Tensors, Mapping[str, str]]
"""Arrays and words."""


@dataclass(frozen=True, slots=True)
class Examined:
    """Findings in a folder. A damaged file counts as none; where the disk refuses, nothing is kept."""

    folder: Path

    def get(self, key: str) -> Finding | None:
        """What was put under this key."""
        try:
            return open_sealed(self._path(key).read_bytes())
        except (OSError, PayloadError) as flaw:
            if not isinstance(flaw, FileNotFoundError):
                log.warning("%s: %s; this is found out again", self._path(key), flaw)
            return None

    def put(self, key: str, finding: Finding) -> None:
        """Keep a finding."""
        try:
            write_atomically(self._path(key), seal_tensors(*finding), durable=False)
        except OSError as refused:
            log.warning("%s is not kept: %s", self._path(key), refused)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{SUFFIX}"


def user_cache() -> Examined | None:
    """Findings in `$XDG_CACHE_HOME/slimfleet`, by default `~/.cache/slimfleet`; None where the user has no home."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return Examined(folder / "slimfleet")


def key_of(what: str, task: Task, model: nn.Module) -> str:
    """The key of a finding about `model`, a model of `task` at any width.

    It changes with the layers, their shapes and plain attributes, the functions that they hold, the example inputs, the
    versions of the libraries, and the source of every package, or single module, that the task or a layer comes from.
    """
    digest = hashlib.sha256(what.encode())
    for package in PACKAGES:
        digest.update(f"{package} {version(package)}\n".encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype} {tensor.requires_grad}\n".encode())
    for tensor in task.example_inputs():
        digest.update(f"{list(tensor.shape)} {tensor.dtype}\n".encode())
    digest.update(repr(model).encode())
    for path, layer in model.named_modules():
        plain = {name: _told(value) for name, value in vars(layer).items() if not name.startswith("_")}
        digest.update(f"{path} {plain}\n".encode())
    names = {type(each).__module__ for each in (getattr(task, "wrapped", task), *model.modules())}
    for path in _sources({name.partition(".")[0] for name in names}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


def _told(value: object) -> object:
    """What of an attribute tells one model from another, in the same words in every process."""
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_told(item) for item in value]
    code = getattr(value, "__code__", None)
    if code is not None:
        return code.co_code.hex(), [_told(c) for c in code.co_consts], code.co_names
    return type(value).__name__


def _sources(packages: set[str]) -> list[Path]:
    """The files of the modules of these packages that are loaded; torch has a version instead."""
    wanted = packages - {"torch", "builtins"}
    loaded = [module for name, module in list(sys.modules.items()) if name.partition(".")[0] in wanted]
    files = {Path(file) for module in loaded if (file := getattr(module, "__file__", None))}
    return sorted(path for path in files if path.suffix == ".py" and path.is_file())
