"""Tensors: conversion between torch modules and numpy, in one place so that the codec needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors


def tensors_of(model: nn.Module) -> Tensors:
    """Copies of the parameters and buffers of `model`, named and ordered as its state dict."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.state_dict().items()}


def load_tensors(model: nn.Module, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Copy `tensors` into `model` in place.

    Raises PayloadError("schema") when a name is missing or unknown, or a shape or dtype differs; the model is
    then unchanged.
    """
    checked = schema_of(model).check(tensors)
    state = model.state_dict()  # for the versions that layers state in its `_metadata`
    # A copy, because torch refuses read-only and negatively strided arrays.
    state.update((name, torch.from_numpy(np.array(array))) for name, array in checked.items())
    model.load_state_dict(state)


def schema_of(model: nn.Module) -> ModelSchema:
    """The schema of `model`: what requires a gradient is a weight, any other float tensor a buffer."""
    trained = {name for name, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    # `numpy()` shares memory, so shapes and dtypes are read without copying the model.
    views = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}
    return ModelSchema.of(views, trained)
