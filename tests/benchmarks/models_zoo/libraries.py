"""torchvision and timm, imported so that neither the build of torch nor a network matters."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import torch

_ABSENT = "torchvision::nms"
_OPERATORS: list[torch.library.Library] = []
"""Kept alive: an operator goes with the library object that defined it."""


def torchvision() -> ModuleType:
    """The package torchvision.

    PyPI's wheel has a C++ extension for CUDA, which does not load beside the CPU build of torch. Importing the
    package then fails, because it registers shapes for two operators of that extension. Both belong to
    detection; no model here calls them, so declaring their signatures is enough.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if _ABSENT not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _OPERATORS.append(library)
    return importlib.import_module("torchvision")


def timm() -> ModuleType:
    """The package timm, which imports torchvision itself."""
    torchvision()
    return importlib.import_module("timm")
