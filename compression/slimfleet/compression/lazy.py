"""Lazy exports: public names of a package whose modules are imported at first use (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_exports(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of `package`; `homes` maps each public name to the module that defines it.

        if TYPE_CHECKING:
            from slimfleet.client.device import Device
        else:
            __getattr__, __dir__ = lazy_exports(__name__, {"Device": "slimfleet.client.device"})

    Raises ValueError for a name that is also a submodule: once that is imported, Python finds it first.
    """
    hidden = [name for name, home in homes.items() if home == f"{package}.{name}"]
    if hidden:
        raise ValueError(f"{package}: {', '.join(hidden)} would be hidden by the submodule of the same name")

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}", name=name)
        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[package], name, value)  # the next use finds it without this function
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return attribute, names
