"""Trace: one run of a model in which every operator passes the channels of its operands on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from slimfleet.compression.operator_mode import OperatorMode
from slimfleet.compression.pruning.call import Call, places, places_along, tensors_of_args
from slimfleet.compression.pruning.channels import Key
from slimfleet.compression.pruning.nested import tensors_in
from slimfleet.compression.pruning.relate import Relations
from slimfleet.compression.pruning.rules import join_pieces, rule_of
from slimfleet.compression.pruning.shadow import Labels, Shadow, canonical, compact
from slimfleet.compression.pruning.sizes import Sightings

VIEWS_IN_PLACE = frozenset(
    f"aten::{name}_"
    for name in ("transpose", "t", "squeeze", "unsqueeze", "detach", "as_strided", "swapaxes", "swapdims")
)
"""Operators that only change how a tensor sees its storage."""


class Trace(OperatorMode):
    """While entered, labels follow the data."""

    def __init__(self, relations: Relations, sightings: Sightings) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._relations = relations
        self._sightings = sightings
        self._shadow = Shadow()
        self._layers: list[nn.Module] = []

    def label_state(self, model: nn.Module, sites: Mapping[Key, range]) -> None:
        """Label what the model holds: `sites` by name and dimension, places in what is in no state dict."""
        state = dict(model.state_dict(keep_vars=True))
        for name, tensor in state.items():
            slots = [
                places_along(tensor.shape, dim, sites[name, dim].start)
                for dim in range(tensor.dim())
                if (name, dim) in sites
            ]
            self._shadow.write(tensor, Labels(tuple(slots)))
        for name, buffer in model.named_buffers():
            if name not in state:
                self.label_input(buffer)

    def label_input(self, tensor: Tensor) -> None:
        """Say that nothing of a tensor can be removed."""
        self._shadow.write(tensor, Labels((), places(tensor.shape)))

    def labels(self, tensor: Tensor) -> Labels:
        """The labels of a tensor."""
        return self._shadow.read(tensor)

    @contextmanager
    def watching(self, model: nn.Module) -> Iterator[None]:
        """While open, the layer that runs is known."""
        with ExitStack() as hooks:
            for layer in model.modules():
                hooks.callback(layer.register_forward_pre_hook(self._enter_layer).remove)
                hooks.callback(layer.register_forward_hook(self._leave_layer, always_call=True).remove)
            yield

    def _enter_layer(self, layer: nn.Module, args: Any) -> None:
        self._layers.append(layer)
        self._sightings.enter(layer, list(tensors_in(args)), self._shadow)

    def _leave_layer(self, *_: Any) -> None:
        self._layers.pop()

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self._layers:
            for tensor in tensors_of_args(args, kwargs or {}):
                self._sightings.note(self._layers[-1], tensor, self._shadow)
        output = self._labelled(operator, args, kwargs or {})
        if self._layers:
            for tensor in tensors_of_args((output,), {}):
                self._sightings.note(self._layers[-1], tensor, self._shadow)
                if operator.is_view or operator._schema.name == "aten::_unsafe_view":
                    self._sightings.view(self._layers[-1], tensor, list(_integers(args)), self._shadow)
        return output

    def _labelled(self, operator: Any, args: Any, kwargs: Any) -> Any:
        operands = list(tensors_of_args(args, kwargs))
        output = operator(*args, **kwargs)
        layer = self._layers[-1] if self._layers else None
        if operator._schema.name in ("aten::split", "aten::split_with_sizes") and operands:
            dim = (args[2] if len(args) > 2 else kwargs.get("dim", 0)) % operands[0].dim()
            join_pieces(self._relations, [self._shadow.read(t) for t in output], dim)
            return output
        if operator._schema.name == "aten::view_as_complex":
            for slot in self._shadow.read(operands[0]).channels:
                self._relations.along(compact(slot), [slot.dim() - 1])
        if (
            operator.is_view
            or operator._schema.name in VIEWS_IN_PLACE
            or (not operator._schema.is_mutable and self._aliases(output, operands))
        ):
            if isinstance(output, Tensor) and operands and not operator._schema.is_mutable:
                self._shadow.view(
                    output, operands[0], lambda slot: canonical(operator(slot, *args[1:], **kwargs))
                )
            return output
        call = Call(operator, args, kwargs, output, self._shadow, self._relations, layer)
        outputs = list(tensors_of_args((output,), {}))
        found = rule_of(operator, max((t.numel() for t in (*operands, *outputs)), default=0))(call)
        labels = [found] * len(outputs) if isinstance(found, Labels) else found
        for tensor, own in zip(outputs, labels, strict=False):
            self._shadow.write(tensor, own)
        return output

    def _aliases(self, output: Any, operands: list[Tensor]) -> bool:
        if not isinstance(output, Tensor):
            return False
        own = output.untyped_storage()._cdata
        return any(own == t.untyped_storage()._cdata for t in operands)


def _integers(args: Any) -> Iterator[int]:
    for value in args:
        if isinstance(value, int):
            yield value
        elif isinstance(value, list | tuple):
            yield from _integers(value)


@contextmanager
def plain_kernels() -> Iterator[None]:
    """While open, attention is computed step by step instead of by one fused operator."""
    fast = torch.backends.mha.get_fastpath_enabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.backends.mha.set_fastpath_enabled(False)
            with sdpa_kernel(SDPBackend.MATH):
                yield
        finally:
            torch.backends.mha.set_fastpath_enabled(fast)


def follow(
    model: nn.Module,
    inputs: tuple[Tensor, ...],
    relations: Relations,
    sites: Mapping[Key, range],
    sightings: Sightings,
) -> None:
    """Run `model` once, in the mode that it is in, and join and fix its channels.

    Raises whatever the model raises, and TooMuchWork.
    """
    trace = Trace(relations, sightings)
    sightings.watch(model)
    trace.label_state(model, sites)
    for tensor in tensors_in(inputs):
        trace.label_input(tensor)
    with torch.no_grad(), plain_kernels(), trace.watching(model), trace:
        output = model(*inputs)
    sightings.unwatch()
    for tensor in tensors_in(output):
        relations.fix(trace.labels(tensor), "they are outputs of the model")
