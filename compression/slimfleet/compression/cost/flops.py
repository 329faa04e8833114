"""FLOPs of the torch operators that run: one table, operator -> formula.

A multiply-add counts as two. Matrix products, convolutions, recurrent layers and attention are counted; elementwise
operators, reductions, normalisation, pooling, embeddings and whatever only moves data are free, as is the convention.
Formulas depend on shapes and on which gradients are needed, never on the kernel: fused recurrent layers and fused
attention count what their plain steps would, on every machine, with dropout or without. What a fused backward pass
computes again to save memory is not counted; a checkpointed segment runs twice and counts twice.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.backends import mha
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["FlopCounter"]

log = logging.getLogger(__name__)


class FlopCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the FLOPs of the operators that run inside it, forward and backward.

        with FlopCounter() as counter:
            loss(model(x), y).backward()
        counter.flops

    Operators that do arithmetic but have no formula count nothing; `name_uncounted` names them.
    """

    supports_higher_order_operators = True

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or the first operator imports torch's compiler: 70 MB, to keep it from this class

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.uncounted: set[str] = set()
        """Operators without a formula, as in `aten::_fft_r2c`."""
        self._fused: list[bool] = []

    def __enter__(self) -> FlopCounter:
        # A transformer layer without gradients fuses all that it does into one operator, unless told not to.
        self._fused.append(mha.get_fastpath_enabled())
        mha.set_fastpath_enabled(False)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *failure: Any) -> None:
        super().__exit__(*failure)  # type: ignore[no-untyped-call]
        mha.set_fastpath_enabled(self._fused.pop())

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operator and count it."""
        if any(each.__torch_dispatch__ is not Tensor.__torch_dispatch__ for each in types):
            return NotImplemented  # a tensor of a class with operators of its own takes this one apart first
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.HigherOrderOperator):
            self.uncounted.add(str(func))
            return func(*args, **kwargs)
        name = func._schema.name.removesuffix("_")
        formula = _MULTIPLY_ADDS.get(name.removeprefix("aten::"))
        if formula is None and not name.startswith("prim::"):
            # In inference mode, and from tensors of other classes, operators arrive before they are taken apart.
            with self:
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if formula is not None:
            self.flops += _flops_of_a_multiply_add(args) * formula(out, *args)
        elif not _FREE.match(name):
            self.uncounted.add(name)
        return out

    def name_uncounted(self) -> None:
        """Warn of operators without a formula, of each set of them once in a process."""
        if self.uncounted:
            _warn(", ".join(sorted(self.uncounted)))


@cache
def _warn(names: str) -> None:
    log.warning("the FLOPs of %s are not counted: there is no formula for them", names)


def _flops_of_a_multiply_add(args: tuple[Any, ...]) -> int:
    """2, or 8 where the numbers are complex."""
    return 8 if any(isinstance(arg, Tensor) and arg.is_complex() for arg in args) else 2


def _entries(matrix: Tensor) -> int:
    """The numbers that a matrix stores, dense or sparse."""
    return matrix.numel() if matrix.layout is torch.strided else int(matrix._nnz())


def _product(a: Tensor, b: Tensor) -> int:
    """Multiply-adds of a matrix product, or of a batch of them; of a sparse factor only what it stores counts."""
    return _entries(a) * _entries(b) // max(prod(b.shape[:-1]), 1)


def _convolution(out: Tensor, x: Tensor, weight: Tensor, transposed: bool) -> int:
    """Each place of the output, or of the input where transposed, meets a filter of its group once."""
    return (x if transposed else out).numel() * prod(weight.shape[1:])


def _convolution_backward(_: Any, grad: Tensor, x: Tensor, weight: Tensor, *rest: Any) -> int:
    """Each of the two gradients costs what the forward pass does."""
    transposed, wanted = rest[4], rest[-1]
    return _convolution(grad, x, weight, transposed) * int(sum(wanted[:2]))


def _attention(query: Tensor, key: Tensor, width: int) -> int:
    """One of the products of attention, over `width` features; key heads that queries share are met by each query."""
    return prod(query.shape[:-1]) * key.shape[-2] * width


def _attention_forward(_: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> int:
    """Scores, and the values that they weigh."""
    return _attention(query, key, query.shape[-1]) + _attention(query, key, value.shape[-1])


def _attention_backward(_: Any, grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *rest: Any) -> int:
    """The gradients of scores, of query and key from them, and of value: those that are needed."""
    of_scores = query.requires_grad + key.requires_grad
    by_value = (of_scores > 0) + value.requires_grad
    return of_scores * _attention(query, key, query.shape[-1]) + by_value * _attention(
        query, key, value.shape[-1]
    )


def _recurrent(_: Any, x: Tensor, of_input: Tensor, of_state: Tensor, *rest: Any) -> int:
    """One layer in one direction: a step multiplies its input and its state by the weights of all gates."""
    steps = prod(x.shape[:-1])
    return steps * (of_input.numel() + of_state.numel())


def _recurrent_backward(_: Any, x: Tensor, of_input: Tensor, of_state: Tensor, *rest: Any) -> int:
    """The gradients of weights and input that are needed, and of every state, of the first where it is needed."""
    steps, initial_state = prod(x.shape[:-1]), rest[2]
    first = 0 if initial_state.requires_grad else prod(x.shape[1:-1])
    return (
        steps * of_input.numel() * (of_input.requires_grad + x.requires_grad)
        + steps * of_state.numel() * of_state.requires_grad
        + (steps - first) * of_state.numel()
    )


def _trilinear(_: Any, a: Tensor, b: Tensor, c: Tensor, *rest: Any) -> int:
    """Bilinear layers and their gradients: the product of three factors over all their dimensions."""
    sizes: list[tuple[int, ...]] = []
    for factor, expanded in zip((a, b, c), rest, strict=False):
        shape = list(factor.shape)
        for dimension in sorted(expanded):
            shape.insert(dimension, 1)
        sizes.append(tuple(shape))
    return prod(max(along) for along in zip(*sizes, strict=True))


def _distances(a: Tensor, b: Tensor) -> int:
    """All pairs of rows, one multiply-add for each pair of numbers."""
    return a.numel() * b.shape[-2]


# Arguments are the output, then those of the operator in its own order.
_MULTIPLY_ADDS: Mapping[str, Callable[..., int]] = {
    "mm": lambda _, a, b, *rest: _product(a, b),
    "bmm": lambda _, a, b, *rest: _product(a, b),
    "addmm": lambda _, c, a, b, *rest: _product(a, b),
    "addbmm": lambda _, c, a, b, *rest: _product(a, b),
    "baddbmm": lambda _, c, a, b, *rest: _product(a, b),
    "_addmm_activation": lambda _, c, a, b, *rest: _product(a, b),
    "_sparse_addmm": lambda _, c, a, b, *rest: _product(a, b),
    "mv": lambda _, a, x: _entries(a),
    "addmv": lambda _, c, a, x, *rest: _entries(a),
    "dot": lambda _, a, b: a.numel(),
    "vdot": lambda _, a, b: a.numel(),
    "convolution": lambda out, x, weight, *rest: _convolution(out, x, weight, rest[4]),
    "convolution_backward": _convolution_backward,
    "conv_tbc": lambda out, x, weight, *rest: out.numel() * weight.shape[0] * weight.shape[1],
    "mkldnn_rnn_layer": _recurrent,
    "mkldnn_rnn_layer_backward": _recurrent_backward,
    "_scaled_dot_product_flash_attention_for_cpu": _attention_forward,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
    "_trilinear": _trilinear,
    "_euclidean_dist": lambda _, a, b: _distances(a, b),
    "_cdist_forward": lambda _, a, b, *rest: _distances(a, b),
    "_cdist_backward": lambda _, grad, a, b, *rest: _distances(a, b),
}

_FREE = re.compile(
    r"prims?::|profiler::|c10d::|aten::(?!(?:\w+_)?_?(?:\w*mm|\w*mv|v?dot|matmul|conv(?:olution)?(?:\d?d)?|linear"
    r"|attention|rnn|lstm|gru|fft_[cr]2[cr]|[cp]dist|linalg(?!_vector_norm|_cross|_diagonal|__powsum|_check_errors)"
    r"|cholesky|solve|qr|svd|eigh?|lu(?!_unpack)|det|inverse|ormqr|geqrf)(?:_|$))"
)
"""Names of the operators that do no more arithmetic than they read and write numbers: torch's own, all but those named
after an algebraic operation. Of the operators of other packages nothing is known."""
