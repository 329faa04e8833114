"""Rules of the operators that read or write where an index says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from slimfleet.compression.pruning.call import Call, places, tensors_of_args, unknown
from slimfleet.compression.pruning.relate import varying
from slimfleet.compression.pruning.shadow import Labels, canonical, compact


def indexed(call: Call) -> Labels:
    """Chosen by positions that are data: channels along the dimensions chosen from stay whole."""
    source, indices = call.args[:2]
    labels = _without(call, call.labels(source), _chosen(indices))
    moved = labels.map(lambda slot: slot[_key(indices)])
    return Labels(moved.channels, moved.places or places(call.output.shape))


def index_selected(call: Call) -> Labels:
    """Chosen along one dimension by a list of positions."""
    labels = _without(call, call.labels(call.args[0]), {_dim(call)})
    return labels.map(lambda slot: slot.index_select(*call.args[1:3]))


def gathered(call: Call) -> Labels:
    """Chosen along one dimension, anew at each place of the others."""
    dim = _dim(call)
    labels = _without(call, call.labels(call.args[0]), {dim})
    return labels.map(lambda slot: slot.gather(dim, call.args[2]))


def scattered(call: Call) -> Labels:
    """Written along one dimension: the target, what is written and a full index agree along the others."""
    target, dim = call.args[0], _dim(call)
    operands = [t for t in tensors_of_args(call.args, call.kwargs) if t.dim() == target.dim()]
    across = _at(target.shape, {dim})
    if not target.dim() or any(_at(t.shape, {dim}) != across for t in operands):
        return unknown(call)[0]
    rows = [_without(call, call.labels(t), {dim}).map(lambda slot: slot.narrow(dim, 0, 1)) for t in operands]
    labels = call.relations.together(rows, across).map(lambda slot: slot.expand(target.shape))
    return Labels(labels.channels, (*labels.places, *places(target.shape, (dim,))))


def put(call: Call) -> Labels:
    """Written at positions that are data: the target and what is written agree along the other dimensions."""
    target, indices, values = call.args[:3]
    own, chosen = call.labels(target), _chosen(indices)
    if len(indices) == 1 and len(chosen) == target.dim() and values.numel() == 1:
        # A mask of all elements, computed from the target as a rule.
        return call.relations.together([own, call.labels(indices[0])], target.shape)
    labels = call.relations.together(
        [_without(call, own, chosen), _written(call, chosen)],
        target.shape,
    )
    return Labels(labels.channels, (*labels.places, *places(target.shape, sorted(chosen))))


def _written(call: Call, chosen: set[int]) -> Labels:
    """The labels of what is put, as if it were put everywhere along the dimensions chosen from."""
    target, indices, values = call.args[:3]
    labels = call.labels(values)
    if values.dim() < target.dim() - max(chosen):
        return labels  # along the dimensions behind those alone
    key = _key(indices)
    shape = target[key].shape

    def everywhere(slot: Tensor) -> Tensor:
        whole = torch.zeros(target.shape, dtype=torch.int64)
        whole[key] = slot
        return canonical(whole.amax(sorted(chosen), keepdim=True).expand(target.shape))

    def along_others(slot: Tensor) -> bool:
        return torch.equal(everywhere(slot)[key], slot.expand(shape))

    call.relations.fix(
        [s for s in labels.channels if not along_others(s)], "they are written where an index says"
    )
    kept = Labels(tuple(filter(along_others, labels.channels)), labels.places)
    return kept.map(everywhere)


def embedded(call: Call) -> Labels:
    """Rows of a table: channels are its columns."""
    shape = call.output.shape
    rows = call.labels(call.args[1])
    return Labels(_columns(call, shape), tuple(p.unsqueeze(-1).expand(shape) for p in rows.places))


def embedded_bags(call: Call) -> Sequence[Labels]:
    """Sums, means or maxima over rows of a table, which may be weighted."""
    call.relations.fix(call.labels(call.argument("per_sample_weights")), "they weigh rows of a table")
    shape = call.output[0].shape
    return [Labels(_columns(call, shape), places(shape, (0,))), Labels(), Labels(), Labels()]


def _columns(call: Call, shape: Sequence[int]) -> tuple[Tensor, ...]:
    return tuple(s[0].expand(shape) for s in call.labels(call.args[0]).channels if varying(compact(s)) == {1})


def _dim(call: Call) -> int:
    dim: int = call.args[1] % max(1, call.args[0].dim())
    return dim


def _key(indices: Sequence[Tensor | None]) -> tuple[Any, ...]:
    return tuple(slice(None) if index is None else index for index in indices)


def _chosen(indices: Sequence[Tensor | None]) -> set[int]:
    """The dimensions that indices choose from; a mask does from as many as it has."""
    dims: set[int] = set()
    at = 0
    for index in indices:
        wide = index.dim() if index is not None and index.dtype in (torch.bool, torch.uint8) else 1
        if index is not None:
            dims.update(range(at, at + wide))
        at += wide
    return dims


def _at(shape: Iterable[int], dims: set[int]) -> list[int]:
    """A shape with sizes of 1 along `dims`."""
    return [1 if dim in dims else size for dim, size in enumerate(shape)]


def _without(call: Call, labels: Labels, dims: set[int]) -> Labels:
    """Labels whose channels along `dims` are fixed and left out."""
    gone = [s for s in labels.channels if varying(compact(s)) & dims]
    call.relations.fix(gone, "they are chosen by an index")
    return Labels(tuple(s for s in labels.channels if not varying(compact(s)) & dims), labels.places)
