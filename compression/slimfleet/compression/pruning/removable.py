"""Trial of channel groups: removing channels must be the same as setting them to zero."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimfleet.compression.operator_mode import OperatorMode
from slimfleet.compression.pruning.groups import ChannelGroup
from slimfleet.compression.pruning.index_map import index_map
from slimfleet.compression.pruning.nested import tensors_in
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.pruning.windows import select_channels
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.tensors import load_tensors, schema_of, tensors_of
from slimfleet.compression.types import Channels, Tensors

_TOLERANCE = 1e-4
"""Of the largest output: far above float32 rounding, far below what one misplaced channel does."""

_LONGEST = 160

MOST_OPERATIONS = 250e9
"""Multiplications in the trials of one model, at most, beyond those of the last trial that began."""

LAYER = 15e6
"""Multiplications that running one layer once takes as long as."""

UNTRIED = "trying it would take more work than is allowed"
"""Why a group fails once the operations are used up."""

WEIGHT = 50
"""Multiplications that copying one weight takes as long as."""

Inputs = tuple[Tensor, ...]

_Case = tuple[str, Inputs]
"""A mode, and inputs."""


class Trial:
    """Tries groups on copies of one model with random weights, in evaluation and in training mode."""

    def __init__(self, model: nn.Module, inputs: Inputs, multiplications: int) -> None:
        """`model` is taken over: it gets other weights. Run once on `inputs` it makes so many `multiplications`, which
        bound the trials.
        """
        rng = np.random.default_rng(0)
        self._schema: ModelSchema = schema_of(model)
        # In float32: half precision rounds more than a misplaced channel changes.
        self._model = model
        if any(_is_half(tensor) for tensor in model.state_dict().values()):
            self._model, inputs = self._model.float(), tuple(t.float() if _is_half(t) else t for t in inputs)
        self._full = _random_tensors(model, rng)
        load_tensors(self._model, self._full)
        self._cases = list(_cases(self._model, inputs, rng))
        layers = sum(1 for _ in model.modules())
        self._run_costs = {
            "eval": multiplications + LAYER * layers,
            "train": 2 * multiplications + LAYER * layers,
        }
        self._copy_costs = WEIGHT * sum(array.size for array in self._full.values())
        self._left = MOST_OPERATIONS

    def failure(self, groups: Sequence[ChannelGroup]) -> str | None:
        """Why the model without some channels of `groups` is not the one with these set to zero; None if it is."""
        if self._left <= 0:
            return UNTRIED
        # Numbers of channels may fit by chance: other choices tell. Half of each group is what devices get most.
        return (
            self._failure_of(groups, _shares(groups, 0), self._cases)
            or self._failure_of(groups, _shares(groups, 1), self._cases[:1])
            or self._failure_of(groups, select_channels(groups, 0.5, "prefix"), self._cases[:1])
        )

    def _failure_of(
        self, groups: Sequence[ChannelGroup], channels: Channels, cases: Sequence[_Case]
    ) -> str | None:
        self._left -= self._copy_costs
        kept = index_map(self._schema, groups, channels)
        shrunk = kept.shrink(self._full)
        zeroed = copy.deepcopy(self._model)
        load_tensors(zeroed, kept.expand(shrunk))
        try:
            small = shrink_model(self._model, kept)
            load_tensors(small, shrunk)
        except Exception as error:  # noqa: BLE001 - what does not fit is the answer
            return f"without some of them the model cannot be built: {in_a_line(error)}"
        for mode, inputs in cases:
            self._left -= self._run_costs[mode]
            try:
                same = _same(small, zeroed, mode, inputs) or self._same_in_float64(
                    small, zeroed, mode, inputs
                )
            except Exception as error:  # noqa: BLE001 - layers whose sizes no longer fit one another
                return f"without some of them the model fails in {mode} mode: {in_a_line(error)}"
            if not same:
                return f"without some of them the model computes something else in {mode} mode"
        return None

    def _same_in_float64(self, small: nn.Module, zeroed: nn.Module, mode: str, inputs: Inputs) -> bool:
        """The same question to models that enlarge rounding errors; their float32 weights are the same in float64."""
        self._left -= 3 * self._run_costs[mode]
        try:
            return _same(
                copy.deepcopy(small).double(),
                copy.deepcopy(zeroed).double(),
                mode,
                tuple(t.double() if t.is_floating_point() else t for t in inputs),
            )
        except Exception:  # noqa: BLE001 - a forward pass may ask for float32: then the first answer stands
            return False


def _same(small: nn.Module, zeroed: nn.Module, mode: str, inputs: Inputs) -> bool:
    expected, got = _run(zeroed, mode, inputs), _run(small, mode, inputs)
    return len(got) == len(expected) and all(map(_agree, got, expected))


def _cases(model: nn.Module, inputs: Inputs, rng: np.random.Generator) -> Iterator[_Case]:
    """Modes and inputs that `model` runs with: the example, and others of its shapes."""
    noise = tuple(_noise(tensor, model, rng) for tensor in inputs)
    given = tuple(n if _blank(t) else t for t, n in zip(inputs, noise, strict=True))
    pairs = tuple(
        torch.cat([a, b]) if a.dim() and len(a) == 1 else b for a, b in zip(given, noise, strict=True)
    )
    for mode, choices in (("eval", [noise, given]), ("train", [pairs, noise, given])):
        for choice in choices:
            try:
                _run(copy.deepcopy(model), mode, choice)
            except Exception:  # noqa: BLE001 - inputs that the whole model does not take say nothing
                continue
            yield mode, choice
            break


def _shares(groups: Sequence[ChannelGroup], seed: int) -> Channels:
    rng = np.random.default_rng(seed)
    return {group.name: _some(group, rng) for group in groups}


def _some(group: ChannelGroup, rng: np.random.Generator) -> NDArray[np.intp]:
    """About half of the channels; another share of each group, since any subset of each must do."""
    count = round(group.size * rng.uniform(0.3, 0.7))
    return np.sort(rng.permutation(group.size)[: min(max(count, group.min_channels), group.size - 1)])


def _is_half(tensor: Tensor) -> bool:
    return tensor.dtype in (torch.float16, torch.bfloat16)


def _blank(tensor: Tensor) -> bool:
    return not bool(tensor.any())


def _noise(tensor: Tensor, model: nn.Module, rng: np.random.Generator) -> Tensor:
    """Random values like those of an example."""
    shape = tuple(tensor.shape)
    if tensor.is_floating_point():
        return torch.from_numpy(np.asarray(rng.normal(size=shape))).to(tensor)
    if tensor.dtype == torch.bool:
        return torch.from_numpy(np.asarray(rng.random(shape) < 0.5))
    rows = [m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    most = max(min(rows, default=2), int(tensor.max()) + 1 if tensor.numel() else 2, 2)
    return torch.from_numpy(np.asarray(rng.integers(1, most, shape))).to(tensor)


def _run(model: nn.Module, mode: str, inputs: Inputs) -> list[Tensor]:
    """Outputs of a model in a mode; what is random comes out the same whatever its shape."""
    model.train(mode == "train")
    with torch.no_grad(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]), _Steady():  # type: ignore[no-untyped-call]
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return [t.clone() for t in tensors_in(model(*inputs))]


class _Steady(OperatorMode):  # type: ignore[no-untyped-call]
    """While entered, random numbers are constants, and dropout keeps everything."""

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in operator.tags:
            return operator(*args, **kwargs)
        if operator._schema.name == "aten::native_dropout":
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        output = operator(*args, **kwargs)
        if isinstance(output, Tensor) and output.is_floating_point():
            output.fill_(1.0 if "bernoulli" in operator._schema.name else 0.5)
        return output


def _random_tensors(model: nn.Module, rng: np.random.Generator) -> Tensors:
    """Matrices scaled by fan-in, vectors (norms, biases, variances) near one: activations stay of order one.

    Names of one tied parameter get the same values.
    """
    tensors: Tensors = {}
    state = model.state_dict()
    tied: dict[tuple[int, torch.Size], str] = {}
    for name, array in tensors_of(model).items():
        first = tied.setdefault((state[name].data_ptr(), state[name].shape), name) if array.size else name
        if first != name:
            array = tensors[first]
        elif array.dtype.kind == "f":
            if array.ndim > 1:
                values = rng.standard_normal(array.shape, dtype=np.float32)
                values /= np.float32(np.sqrt(max(1, array[:1].size)))
            else:
                values = rng.uniform(0.5, 1.5, size=array.shape).astype(np.float32)
            array = values.astype(array.dtype, copy=False)
        tensors[name] = array
    return tensors


def _agree(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:
        return False
    if not a.is_floating_point():
        return torch.equal(a, b)
    scale = float(b.abs().max()) if b.numel() else 0.0
    return bool(((a - b).abs() <= _TOLERANCE * scale).all())


def in_a_line(error: Exception) -> str:
    """What was raised, in one line that is not too long."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
