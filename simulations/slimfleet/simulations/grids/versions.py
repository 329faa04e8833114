"""Versions of what decides a run's bytes: the same on every machine that works for it, or the run is refused."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["differences", "versions"]

_PARTS = ("client", "compression", "coordinator", "simulations")
_PACKAGES = ("torch", "numpy", "flwr")


@cache
def versions() -> dict[str, str]:
    """Package -> version here; of slimfleet a digest of its Python sources, which tell edited ones apart."""
    return {"slimfleet": _sources(), **{name: version(name) for name in _PACKAGES}}


def differences(driver: Mapping[str, str]) -> str:
    """What differs here from the driver, in words; empty where nothing does."""
    here = versions()
    return ", ".join(
        f"{name} {here.get(name)} where the driver has {wanted}"
        for name, wanted in driver.items()
        if here.get(name) != wanted
    )


def _sources() -> str:
    digest = hashlib.sha256()
    for part in _PARTS:
        spec = find_spec(f"slimfleet.{part}")
        for folder in (spec and spec.submodule_search_locations) or ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
