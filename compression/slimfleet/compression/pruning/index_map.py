"""Index maps: which elements of the full model a shrunk model holds, and moving values between the two."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import EllipsisType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.pruning.groups import ChannelGroup
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Channels, Tensors

Kept = tuple[NDArray[np.intp] | None, ...]
"""For each dimension of a tensor the sorted kept positions; None keeps all."""

_Selector = EllipsisType | tuple[slice | NDArray[np.intp], ...]


@dataclass(frozen=True, slots=True, eq=False)
class IndexMap:
    """Where each tensor of a shrunk model lies in the full one. Made by `index_map`."""

    full: ModelSchema
    schema: ModelSchema
    """The schema of the shrunk model."""
    kept: Mapping[str, Kept]
    selectors: Mapping[str, _Selector]
    """What selects the kept elements of a full tensor when put in brackets: slices wherever possible."""
    removed: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Layer and attribute -> how much smaller this size of the layer is (see `Size`)."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the shrunk tensors."""
        return {spec.name: spec.shape for spec in self.schema.tensors}

    @property
    def moving(self) -> IndexMap:
        """The map of an update: without the frozen tensors."""
        if self.full.moving is self.full:
            return self
        full, schema = self.full.moving, self.schema.moving
        kept = {spec.name: self.kept[spec.name] for spec in full.tensors}
        selectors = {spec.name: self.selectors[spec.name] for spec in full.tensors}
        return IndexMap(full, schema, kept, selectors)

    def shrink(self, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
        """The kept elements of full-size `tensors`, copied; dtypes are kept."""
        _check_shapes(self.full, tensors)
        return {name: self.cut(name, tensors[name]) for name in self.selectors}

    def cut(self, name: str, tensor: NDArray[Any]) -> NDArray[Any]:
        """The kept elements of one full-size tensor, copied, in C order."""
        # Advanced indexing copies by itself, but not in C order.
        return np.array(tensor[self.selectors[name]], order="C")

    def expand(self, tensors: Mapping[str, NDArray[Any]], fill: float = 0.0) -> Tensors:
        """Full-size tensors: `tensors` at the kept positions, `fill` elsewhere; dtypes are kept."""
        _check_shapes(self.schema, tensors)
        full = {spec.name: np.full(spec.shape, fill, tensors[spec.name].dtype) for spec in self.full.tensors}
        self.assign(full, tensors)
        return full

    def assign(self, full: Tensors, values: Mapping[str, NDArray[Any]]) -> None:
        """Write shrunk `values` into the kept positions of `full`, in place."""
        for target, selector, value in self._pairs(full, values):
            target[selector] = value

    def add_into(self, accumulator: Tensors, values: Mapping[str, NDArray[Any]]) -> None:
        """Add shrunk `values` onto the kept positions of `accumulator`, in place and in its dtypes."""
        for target, selector, value in self._pairs(accumulator, values):
            target[selector] += value

    def add_scalar(self, accumulator: Tensors, scalar: float) -> None:
        """Add `scalar` onto the kept positions of `accumulator`, in place: counts the models that cover an element."""
        _check_shapes(self.full, accumulator)
        for name, selector in self.selectors.items():
            accumulator[name][selector] += scalar

    def _pairs(
        self, full: Tensors, values: Mapping[str, NDArray[Any]]
    ) -> Iterator[tuple[NDArray[Any], _Selector, NDArray[Any]]]:
        _check_shapes(self.full, full)
        _check_shapes(self.schema, values)
        for name, selector in self.selectors.items():
            yield full[name], selector, values[name]


def index_map(schema: ModelSchema, groups: Sequence[ChannelGroup], channels: Channels) -> IndexMap:
    """The index map that keeps `channels` of `groups` and whatever belongs to no group.

    `schema` is that of the full model. A group that `channels` does not name is kept whole.
    """
    sizes = {spec.name: spec.shape for spec in schema.tensors}
    masks: dict[tuple[str, int], NDArray[np.bool_]] = {}
    removed: dict[tuple[str, str], int] = defaultdict(int)
    for group in groups:
        chosen = channels.get(group.name)
        if chosen is None or len(chosen) == group.size:
            continue
        for size in group.sizes:
            removed[size.layer, size.attribute] += (group.size - len(chosen)) * size.per_channel
        for member in group.members:
            key = member.tensor, member.dim
            if key not in masks:
                masks[key] = np.ones(sizes[member.tensor][member.dim], dtype=np.bool_)
            masks[key][member.positions] = False
            masks[key][member.positions[chosen]] = True

    positions = {key: np.flatnonzero(mask) for key, mask in masks.items()}
    kept = {
        name: tuple(positions.get((name, dim)) for dim in range(len(size))) for name, size in sizes.items()
    }
    shapes = {
        name: tuple(size if dim is None else len(dim) for size, dim in zip(sizes[name], dims, strict=True))
        for name, dims in kept.items()
    }
    selectors = {name: _selector(dims, sizes[name]) for name, dims in kept.items()}
    return IndexMap(schema, schema.with_shapes(shapes), kept, selectors, removed)


def within(outer: IndexMap, inner: IndexMap) -> IndexMap:
    """Where the shrunk model of `inner` lies in that of `outer`, both of one full model.

    Raises PayloadError("stale") where `outer` lacks some of it.
    """
    kept = {
        spec.name: tuple(map(_within, spec.shape, outer.kept[spec.name], inner.kept[spec.name]))
        for spec in outer.full.tensors
    }
    selectors = {spec.name: _selector(kept[spec.name], spec.shape) for spec in outer.schema.tensors}
    return IndexMap(outer.schema, inner.schema, kept, selectors)


def _within(
    size: int, outer: NDArray[np.intp] | None, inner: NDArray[np.intp] | None
) -> NDArray[np.intp] | None:
    """Positions of `inner` among those of `outer`; None for all of them."""
    if outer is None:
        return inner
    wanted = np.arange(size) if inner is None else inner
    if not np.isin(wanted, outer).all():
        raise PayloadError("stale", "the model held lacks channels that the new one has")
    return np.searchsorted(outer, wanted)


def _selector(kept: Kept, shape: tuple[int, ...]) -> _Selector:
    slices = [_as_slice(dim) for dim in kept]
    scattered = [i for i, dim in enumerate(slices) if dim is None]
    if not scattered:
        return tuple(dim for dim in slices if dim is not None) or ...
    # Numpy leaves the dimensions of index arrays in place only where the arrays stand side by side, so
    # everything between the first and the last of them becomes an array too.
    first, last = scattered[0], scattered[-1] + 1
    arrays = [
        np.arange(size) if dim is None else dim
        for dim, size in zip(kept[first:last], shape[first:last], strict=True)
    ]
    before = [dim for dim in slices[:first] if dim is not None]
    after = [dim for dim in slices[last:] if dim is not None]
    return (*before, *np.ix_(*arrays), *after)


def _as_slice(positions: NDArray[np.intp] | None) -> slice | None:
    """The slice that selects sorted `positions`, or None when there are gaps."""
    if positions is None:
        return slice(None)
    if len(positions) == 0:
        return slice(0, 0)
    start, stop = int(positions[0]), int(positions[-1]) + 1
    return slice(start, stop) if stop - start == len(positions) else None


def _check_shapes(schema: ModelSchema, tensors: Mapping[str, NDArray[Any]]) -> None:
    """Numpy would stretch a tensor of the wrong shape where it can; refuse it instead."""
    for spec in schema.tensors:
        if spec.name not in tensors:
            raise PayloadError("schema", f"tensor {spec.name!r} is missing")
        if tensors[spec.name].shape != spec.shape:
            raise PayloadError(
                "schema",
                f"tensor {spec.name!r} has shape {list(tensors[spec.name].shape)}, "
                f"must be {list(spec.shape)}",
            )
