"""What lets nncodec 2.1.3 be imported without the packages of its training front end.

`nncodec.nnc` imports `nncodec.framework`, which imports torchvision, torchmetrics, OpenCV, pandas, h5py, Flower and
wandb to train and evaluate models. Compressing a dict of arrays uses none of it: the coder is in `nncodec.nnc_core`
and in C++. Empty modules stand in for the front end, so that not a line of what is measured differs.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

_FRONT_END = ("tensorflow_model", "pytorch_model", "use_case_init")


def import_nncodec() -> tuple[Any, Any]:
    """`compress` and `decompress`. Raises ImportError where nncodec is not installed."""
    package = "nncodec.framework"
    if package not in sys.modules:
        framework = ModuleType(package)
        framework.__path__ = []
        for name in _FRONT_END:
            stub = ModuleType(f"{package}.{name}")
            setattr(framework, name, stub)
            sys.modules[stub.__name__] = stub
        sys.modules[package] = framework
    from nncodec.nnc import compress, decompress

    return compress, decompress
