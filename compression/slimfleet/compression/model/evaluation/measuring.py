"""Measuring: what a model costs to keep and to run, and how good it is, before and after every step of a recipe."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any
from weakref import finalize

import torch
from torch import Tensor, nn

from slimfleet.compression.cost.flops import FlopCounter
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Grid
from slimfleet.compression.model.layers.activation_grid import ActivationGrid
from slimfleet.compression.model.saving.file import packed_bytes
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.modes import evaluating
from slimfleet.compression.operator_mode import OperatorMode
from slimfleet.compression.pruning.nested import tensors_in
from slimfleet.compression.threads import torch_threads
from slimfleet.compression.types import DeviceProfile

__all__ = [
    "Measured",
    "flops_of",
    "joules_per_flop",
    "latency_of",
    "measured",
    "nonzero_of",
    "parameters_of",
    "peak_memory_of",
]

REPEATS, LONGEST_S = 30, 1.0
"""Forward passes that latency is the median of; fewer where they take longer than this together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A model in numbers."""

    parameters: int
    nonzero: int
    """Parameters other than zero."""
    flops: float
    """Of one forward pass, for one example; a multiply-add counts as two."""
    bytes: int
    """Size of its model.slim."""
    peak_memory_bytes: int
    """Weights, and the most activations alive at once for one example, each at the width that an integer runtime keeps
    it in: what is on a grid of up to 8 bits takes a byte, everything else as torch has it."""
    latency_s: float
    """Median wall time of a forward pass of one example on one thread of this machine, in float32."""
    energy_j: float | None
    """Of one forward pass on the named device; None where none is named."""
    energy_source: str | None
    """`simulated`: from FLOPs and the profile's nominal figures."""
    accuracy: float | None
    """On validation data."""
    loss: float


def measured(slim: SlimModel, central: CentralTask, profile: DeviceProfile | None = None) -> Measured:
    """Measure a model; joules are those of `profile`."""
    model = slim.model.eval()
    flops = flops_of(model, central.example_inputs)
    evaluation = central.validated(model)
    return Measured(
        parameters=parameters_of(model),
        nonzero=nonzero_of(model),
        flops=flops,
        bytes=packed_bytes(slim, central.task),
        peak_memory_bytes=peak_memory_of(slim, central.example_inputs),
        latency_s=latency_of(model, central.example_inputs),
        energy_j=None if profile is None else flops * joules_per_flop(profile),
        energy_source=None if profile is None else "simulated",
        accuracy=evaluation.accuracy,
        loss=evaluation.loss,
    )


def parameters_of(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(p.numel() for p in model.parameters())


def nonzero_of(model: nn.Module) -> int:
    """Number of parameters other than zero."""
    return sum(int(torch.count_nonzero(p)) for p in model.parameters())


def joules_per_flop(profile: DeviceProfile) -> float:
    """Simulated, from the nominal figures of a device."""
    return profile.train_w / profile.train_flops_per_s


def flops_of(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> float:
    """FLOPs of a forward pass in evaluation mode, for one example: the slope over the size of the batch.

    What does not grow with the batch drops out, as in `measure_work`.
    """
    small, large = 1, 3
    return (_flops(model, example_inputs, large) - _flops(model, example_inputs, small)) / (large - small)


def _flops(model: nn.Module, example_inputs: tuple[Tensor, ...], batch: int) -> int:
    inputs = tuple(x.repeat(batch, *[1] * (x.dim() - 1)) for x in example_inputs)
    with evaluating(model), torch.no_grad(), FlopCounter() as counter:
        model(*inputs)
    counter.name_uncounted()
    return counter.flops


def peak_memory_of(slim: SlimModel, example_inputs: tuple[Tensor, ...]) -> int:
    """Bytes, as in `Measured`."""
    return _weight_bytes(slim) + _activation_bytes(slim.model, example_inputs)


def _weight_bytes(slim: SlimModel) -> int:
    """Parameters and buffers as a runtime keeps them."""
    small = {name for name, each in slim.constraints.items() if isinstance(each, Grid) and each.bits <= 8}
    named = [*slim.model.named_parameters(), *slim.model.named_buffers()]
    return sum(tensor.numel() * (1 if name in small else tensor.element_size()) for name, tensor in named)


def _activation_bytes(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> int:
    """The most bytes of operators' results alive at once; in a model with grids of up to 8 bits, floats take one."""
    grids = [module for module in model.modules() if isinstance(module, ActivationGrid)]
    byte = bool(grids) and all(grid.bits <= 8 for grid in grids)
    alive = _Alive(byte)
    with evaluating(model), torch.no_grad(), alive:
        model(*example_inputs)
    given = sum(x.numel() * (1 if byte else x.element_size()) for x in example_inputs)
    return alive.most + given


class _Alive(OperatorMode):
    """Counts the bytes of what operators make, until it is freed; a view is part of what it looks at."""

    def __init__(self, byte: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self._byte = byte
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tensors_in(list(args))}
        for tensor in tensors_in(results):
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            if address not in given | self._known:
                size = storage.nbytes() // (
                    tensor.element_size() if self._byte and tensor.is_floating_point() else 1
                )
                self._known.add(address)
                self.now += size
                finalize(storage, self._freed, address, size)
        self.most = max(self.most, self.now)
        return results

    def _freed(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


def latency_of(model: nn.Module, example_inputs: tuple[Tensor, ...]) -> float:
    """Seconds of a forward pass of one example, as in `Measured`."""
    times: list[float] = []
    with evaluating(model), torch.no_grad(), torch_threads(1):
        model(*example_inputs)
        while len(times) < REPEATS and sum(times) < LONGEST_S:
            began = time.perf_counter()
            model(*example_inputs)
            times.append(time.perf_counter() - began)
    return median(times)
