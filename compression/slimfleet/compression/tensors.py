"""Tensors: conversion between torch modules and numpy, in one place so that the codec needs no torch.

Numpy has neither bfloat16 nor float8: their values are carried as float32. A complex tensor is carried as pairs of real
and imaginary part, in a last dimension of 2. Quantised, sparse and uninitialised tensors are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors

_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)


def tensors_of(model: nn.Module) -> Tensors:
    """Copies of the parameters and buffers of `model`, named and ordered as its state dict.

    Raises BadInput for a tensor that cannot be carried.
    """
    return {name: view.copy() for name, view in _views(model).items()}


def load_tensors(model: nn.Module, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Copy `tensors` into `model` in place.

    Raises PayloadError("schema") when a name is missing or unknown, or a shape or dtype differs; the model is
    then unchanged.
    """
    checked = schema_of(model).check(tensors)
    # With the versions of its layers, and with whatever is no tensor, as it is.
    state = model.state_dict()
    for name, array in checked.items():
        # A copy, because torch refuses read-only and negatively strided arrays.
        values = torch.from_numpy(np.array(array))
        state[name] = torch.view_as_complex(values) if state[name].is_complex() else values
    model.load_state_dict(state)


def schema_of(model: nn.Module) -> ModelSchema:
    """The schema of `model`: parameters that require a gradient are weights, other float parameters frozen, all other
    float tensors buffers.

    Raises BadInput for a tensor that cannot be carried.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    trained = {name for name, parameter in parameters.items() if parameter.requires_grad}
    return ModelSchema.of(_views(model), trained, parameters.keys() - trained)


def _views(model: nn.Module) -> Tensors:
    """The tensors of the state dict as arrays, on the model's own memory where numpy has their type."""
    state = model.state_dict()
    return {name: _view(name, tensor) for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}


def _view(name: str, tensor: torch.Tensor) -> NDArray[Any]:
    if problem := _problem(tensor):
        raise BadInput(f"tensor {name!r} {problem}")
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    if plain.is_floating_point() and plain.dtype not in _NUMPY_FLOATS:
        plain = plain.float()
    return plain.numpy()


def _problem(tensor: torch.Tensor) -> str | None:
    """Why a tensor cannot be carried."""
    if torch.nn.parameter.is_lazy(tensor):
        return "has no shape yet: run a lazy model once on example inputs before it is returned"
    if tensor.is_quantized:
        return f"is quantised ({_dtype(tensor)}): give the model in floats"
    if tensor.layout is not torch.strided:
        return f"is {str(tensor.layout).removeprefix('torch.')}: give it as a dense tensor"
    if tensor.is_meta:
        return "is on the meta device: it holds no values"
    return None


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
