"""FLOPs of one training step by hand: from the arguments of each call that multiplies matrices.

The calls are seen where Python makes them (`F.conv2d`, `@`, `F.scaled_dot_product_attention`), two layers above
the operators that torch's own counter sees, and the formulas are written here: nothing is shared with the count
under test. A multiply-add is two FLOPs. The backward pass repeats the product of the forward pass once for each
operand that has a gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from math import prod
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def training_flops(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Forward and backward pass of one example, the model in training mode; `inputs` are a batch of one.

    The difference of batches of four and of two: what does not grow with the batch is no work of an example.
    """
    model.train()
    two, four = (_count(model, tuple(_repeat(x, batch) for x in inputs)) for batch in (2, 4))
    return (four - two) / 2


def _repeat(x: Tensor, batch: int) -> Tensor:
    return x.repeat(batch, *[1] * (x.dim() - 1))


def _count(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    calls = _Calls()
    recurrent = 0.0

    def add(layer: nn.RNNBase, args: tuple[Any, ...], _: object) -> None:
        nonlocal recurrent
        recurrent += _recurrent(layer, args[0])

    with ExitStack() as hooks:
        for layer in model.modules():
            if isinstance(layer, nn.RNNBase):
                hooks.callback(layer.register_forward_hook(add).remove)
        hooks.enter_context(calls)
        model(*inputs)
    return calls.flops.total() + recurrent


class _Calls(TorchFunctionMode):
    """While open, counts every call of a function that has a rule below."""

    def __init__(self) -> None:
        super().__init__()
        self.flops: Counter[str] = Counter()

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        rule = _RULES.get(name)
        if rule is not None:
            self.flops[name] += rule(output, *args, **(kwargs or {}))
        return output


def _recurrent(layer: nn.RNNBase, source: Any) -> float:
    """Each weight matrix is applied to every element of the sequence; inputs without a gradient save one product."""
    source = source.data if isinstance(source, nn.utils.rnn.PackedSequence) else source
    steps = source.numel() // source.shape[-1]
    products = 0
    for name, weight in layer.named_parameters():
        if weight.dim() == 2:
            reads_inputs = name.startswith("weight_ih_l0")
            products += weight.numel() * (2 + (source.requires_grad or not reads_inputs))
    return 2 * steps * products


def _passes(*operands: Tensor) -> int:
    return 1 + sum(operand.requires_grad for operand in operands)


def _convolution(output: Tensor, input: Tensor, weight: Tensor, *_: object, **__: object) -> float:
    return 2 * output.numel() * weight[0].numel() * _passes(input, weight)


def _transposed_convolution(output: Tensor, input: Tensor, weight: Tensor, *_: object, **__: object) -> float:
    return 2 * input.numel() * weight[0].numel() * _passes(input, weight)


def _linear(output: Tensor, input: Tensor, weight: Tensor, *_: object, **__: object) -> float:
    return 2 * output.numel() * weight.shape[-1] * _passes(input, weight)


def _product(output: Tensor, a: Tensor, b: Tensor, *_: object, **__: object) -> float:
    return 2 * output.numel() * a.shape[-1] * _passes(a, b)


def _sum_and_product(output: Tensor, _: Tensor, a: Tensor, b: Tensor, *__: object, **___: object) -> float:
    return _product(output, a, b)


def _einsum(output: Tensor, equation: str, *operands: Tensor) -> float:
    """Of two operands: as many products as the output has elements, times those that are summed over."""
    if len(operands) != 2:
        raise NotImplementedError(f"einsum of {len(operands)} operands: {equation}")
    terms, _, kept = equation.replace(" ", "").partition("->")
    sizes: dict[str, int] = {}
    for term, operand in zip(terms.split(","), operands, strict=True):
        before, _, after = term.partition("...")
        sizes.update(zip(before, operand.shape, strict=False))
        sizes.update(zip(reversed(after), reversed(operand.shape), strict=False))
    summed = prod(size for label, size in sizes.items() if label not in kept)
    return 2 * output.numel() * summed * _passes(*operands)


def _attention(output: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> float:
    """Scores and the mean of the values; four products of the same sizes on the way back."""
    products = query.numel() // query.shape[-1] * key.shape[-2] * (key.shape[-1] + value.shape[-1])
    trained = any(x.requires_grad for x in (query, key, value))
    return 2 * products * (3 if trained else 1)


def _multi_head_attention(
    output: Any, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object
) -> float:
    """Three projections, attention over sequences (length, batch, width), one projection."""
    width = query.shape[-1]
    queries = query.numel() // width
    flops = 2.0 * queries * width * width * 3
    for source in (query, key, value):
        flops += 2 * source.numel() * width * (2 + source.requires_grad)
    return flops + 2 * queries * key.shape[0] * 2 * width * 3


_RULES: dict[str, Callable[..., float]] = {
    **{f"conv{n}d": _convolution for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": _transposed_convolution for n in (1, 2, 3)},
    "linear": _linear,
    **dict.fromkeys(("matmul", "__matmul__", "mm", "bmm"), _product),
    **dict.fromkeys(("addmm", "baddbmm"), _sum_and_product),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "multi_head_attention_forward": _multi_head_attention,
}
