"""The key of an architecture: a digest of all that findings about a model depend on, the same in every process.

It looks at more than it needs, since a changed key costs a second and a key that should have changed costs a wrong
answer. Values of weights and of float buffers do not count: they change with every step of training.
"""

from __future__ import annotations

import hashlib
import platform
import sys
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from enum import Enum
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn

    from slimfleet.compression.task import Task

__all__ = ["key_of"]

OWN_SOURCES = Path(__file__).parent
TOLD_BY_VERSION = sys.stdlib_module_names | {"torch"}


class Untold(Exception):
    """A value that cannot be told from others of its kind."""


def key_of(what: str, task: Task, model: nn.Module) -> str | None:
    """The key of a finding about `model`, a model of `task` at any width; None where no key tells it from others.

    It changes with the layers, their shapes and attributes, the functions that they hold, the example inputs, the
    versions of Python, torch and slimfleet, and the source of every package, or single module, that the task, a layer
    or a function comes from. There is none for a model with an object that hides what it is (a compiled graph, a
    lock), or with code that is in no file.
    """
    words = [what, platform.python_version(), version("slimfleet"), version("torch")]
    told = _Told()
    try:
        words += [
            str(told(model)),
            str(told(type(getattr(task, "wrapped", task)))),
            str(told(task.example_inputs())),
        ]
        sources = told.sources()
    except (Untold, RecursionError):
        return None
    digest = hashlib.sha256("\n".join(words).encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


class _Told:
    """What tells a value from others, as nested lists of words.

    An object that was met before is its number: so cycles end, and what is shared differs from what is equal.
    """

    def __init__(self) -> None:
        self.met: dict[int, tuple[int, object]] = {}
        self.modules: set[str] = set()

    def __call__(self, value: Any) -> object:
        import torch

        if value is None or isinstance(
            value, bool | int | float | complex | str | bytes | slice | torch.Size
        ):
            return repr(value)
        if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format | type(...)):
            return repr(value)
        if isinstance(value, type | ModuleType | BuiltinFunctionType):
            return self._name(value)
        if isinstance(value, Enum):
            return [self._name(type(value)), value.name]
        if id(value) in self.met:
            return self.met[id(value)][0]
        self.met[id(value)] = len(self.met), value
        return [self._name(type(value)), self._inside(value)]

    def sources(self) -> list[Path]:
        """The files of the packages that values come from, as far as they are loaded, and our own."""
        packages = {name.partition(".")[0] for name in self.modules} - TOLD_BY_VERSION
        loaded = {
            name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in packages
        }
        files = {name: getattr(module, "__file__", None) for name, module in loaded.items()}
        for name in self.modules:
            if name.partition(".")[0] in packages and files.get(name) is None:
                raise Untold(name)
        paths = {Path(file) for file in files.values() if file is not None and file.endswith(".py")}
        return sorted(paths.union(OWN_SOURCES.rglob("*.py")))

    def _name(self, named: Any) -> str:
        if isinstance(named, ModuleType):
            self.modules.add(named.__name__)
            return named.__name__
        module = named.__module__ or "builtins"
        self.modules.add(module)
        return f"{module}.{named.__qualname__}"

    def _inside(self, value: Any) -> object:
        import torch

        match value:
            case torch.Tensor():
                return self._tensor(value)
            case np.ndarray():
                return self._array(value)
            case OrderedDict() if all(isinstance(key, int) for key in value):
                return [
                    self(item) for item in value.values()
                ]  # hooks: torch counts through all models' handles
            case Mapping():
                return [[self(key), self(item)] for key, item in value.items()]
            case set() | frozenset():
                return sorted(str(self(item)) for item in value)
            case list() | tuple():
                return [self(item) for item in value]
            case FunctionType():
                return self._function(value)
            case MethodType():
                return [self(value.__self__), self(value.__func__)]
            case partial():
                return [self(value.func), self(value.args), self(value.keywords)]
            case weakref.ref():
                return self(value())
        return self._attributes(value)

    def _attributes(self, value: Any) -> object:
        slots = [vars(base).get("__slots__", ()) for base in type(value).__mro__]
        names = [name for each in slots for name in ([each] if isinstance(each, str) else each)]
        if not names and not hasattr(value, "__dict__"):
            raise Untold(self._name(type(value)))
        held = {name: getattr(value, name) for name in names if hasattr(value, name)} | getattr(
            value, "__dict__", {}
        )
        return [[name, self(held[name])] for name in sorted(held)]

    def _tensor(self, tensor: Tensor) -> object:
        import torch

        told = [str(list(tensor.shape)), str(tensor.dtype), str(tensor.layout), str(tensor.requires_grad)]
        if tensor.is_floating_point() or tensor.is_complex() or tensor.is_quantized:
            return told
        # Indices, masks, tokens: they decide where values go.
        return [*told, self._array(tensor.detach().to(torch.int64).cpu().to_dense().numpy())]

    def _array(self, array: np.ndarray) -> object:
        if array.dtype.hasobject:
            raise Untold("numpy.ndarray of objects")
        told = [str(array.shape), str(array.dtype)]
        return told if array.dtype.kind in "fc" else [*told, hashlib.sha256(array.tobytes()).hexdigest()]

    def _function(self, function: FunctionType) -> object:
        self._name(function)
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        return [
            self._code(function.__code__),
            *map(self, (function.__defaults__, function.__kwdefaults__, cells)),
        ]

    def _code(self, code: CodeType) -> object:
        constants = [
            self._code(each) if isinstance(each, CodeType) else self(each) for each in code.co_consts
        ]
        return [code.co_code.hex(), constants, list(code.co_names)]
