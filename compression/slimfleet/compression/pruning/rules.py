"""Rules: what each operator of torch does to the channels of the tensors that go through it.

A rule gets the call of one operator and the labels of its operands, and gives the labels of its outputs. Views need
no rule (see `shadow`), and operators that torch tags as element by element share one. An operator without a rule keeps
its operands whole.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload

from slimfleet.compression.pruning import indexing
from slimfleet.compression.pruning.call import (
    Call,
    Rule,
    first_output,
    left_whole,
    name_of,
    places,
    tensors_of_args,
    unknown,
)
from slimfleet.compression.pruning.full_norm import counts_whole, standardises
from slimfleet.compression.pruning.relate import Relations, varying
from slimfleet.compression.pruning.shadow import Labels, canonical, compact

THINNEST_GROUP = 4
"""Channels in a group of a convolution from which on they can be removed one by one."""


def _elementwise(call: Call) -> Labels:
    operands = [call.labels(t) for t in tensors_of_args(call.args, call.kwargs)]
    return call.relations.together(operands, first_output(call).shape)


def _same(call: Call) -> Labels:
    """The first operand's labels, in the shape of the output."""
    return call.labels(call.args[0])


def _constant(call: Call) -> Labels:
    """New data that follow the shapes around them."""
    return Labels()


def _copied(call: Call) -> Labels:
    shape = call.args[0].shape
    return call.labels(call.args[1]).map(lambda slot: slot.expand(shape))


def _moved(call: Call) -> Labels:
    """The operator, applied to the labels of its first operand."""
    return _moved_as(call, call.labels(call.args[0]))


def _moved_as(call: Call, labels: Labels) -> Labels:
    return labels.map(lambda slot: _applied(call.operator, (slot, *call.args[1:]), call.kwargs))


def _shuffled(call: Call) -> Labels:
    """What stands at the same place in each group goes together, so that the groups stay of one size."""
    source, groups = call.args[:2]
    split = (len(source), groups, -1, *source.shape[2:])

    def alike(slot: Tensor) -> Tensor:
        parts = slot.reshape(split)
        joined = call.relations.along(compact(parts, checked=False), [1])
        return joined.expand(parts.shape).reshape(source.shape)

    return _moved_as(call, call.labels(source).map(alike))


def _padded(call: Call) -> Labels:
    """What is put in along a dimension goes with the channels that lie along others."""
    pad, shape = call.args[1], call.output.shape

    def padded(slot: Tensor) -> Tensor:
        own = compact(slot)
        amounts = [n if own.shape[-1 - i // 2] > 1 else 0 for i, n in enumerate(pad)]
        return torch.nn.functional.pad(own, amounts, value=0).expand(shape)

    return call.labels(call.args[0]).map(padded)


def _thinned(slots: Sequence[Tensor], dims: Collection[int]) -> list[Tensor]:
    """`slots` cut to size 1 along all but `dims` wherever all of them repeat: copying them takes little memory."""
    for dim in set(range(slots[0].dim())) - set(dims):
        if all(slot.stride(dim) == 0 for slot in slots):
            slots = [slot.narrow(dim, 0, 1) for slot in slots]
    return list(slots)


def _split(call: Call) -> Sequence[Labels]:
    """Pieces of equal size must stay so: what stands at the same place in each goes together."""
    dim = call.argument("dim", 0) % call.args[0].dim()
    pieces = _pieces_along(call.labels(call.args[0]), [t.shape[dim] for t in call.output], dim)
    join_pieces(call.relations, pieces, dim)
    return pieces


def join_pieces(relations: Relations, pieces: Sequence[Labels], dim: int) -> None:
    """Join labels at the same places of pieces cut along `dim`, where all are of one size."""
    slots = [piece.channels for piece in pieces]
    for same in zip(*slots, strict=True):
        shapes = {tuple(slot.shape) for slot in same}
        if len(shapes) == 1 and any(dim in varying(compact(slot)) for slot in same):
            relations.along(torch.stack([compact(s, checked=False).expand(s.shape) for s in same]), [0])


def _pieces_along(labels: Labels, sizes: Sequence[int], dim: int) -> list[Labels]:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return [
        labels.map(lambda slot, a=start, n=size: slot.narrow(dim, a, n))  # type: ignore[misc]
        for start, size in zip(starts, sizes, strict=True)
    ]


def _gated(call: Call) -> Labels:
    """One half times the sigmoid of the other."""
    dim = call.argument("dim") % call.args[0].dim()
    halves = _pieces_along(call.labels(call.args[0]), [call.output.shape[dim]] * 2, dim)
    join_pieces(call.relations, halves, dim)
    return call.relations.together(halves, call.output.shape)


def _concatenated(call: Call) -> Labels:
    tensors = [t for t in call.args[0] if t.shape != (0,)]
    dim = call.argument("dim", 0) % call.output.dim()
    return _joined_along(call, [call.labels(t) for t in tensors], [t.shape for t in tensors], dim)


def _stacked(call: Call) -> Labels:
    tensors = call.args[0]
    dim = call.argument("dim", 0) % call.output.dim()
    labels = [call.labels(t).map(lambda slot: slot.unsqueeze(dim)) for t in tensors]
    return _joined_along(call, labels, [t.unsqueeze(dim).shape for t in tensors], dim)


def _joined_along(
    call: Call, operands: Sequence[Labels], shapes: Sequence[Sequence[int]], dim: int
) -> Labels:
    """Labels side by side along `dim`; along the other dimensions they must agree."""
    operands = [
        Labels(tuple(call.relations.rooted(s).expand(s.shape) for s in each.channels), each.places)
        for each in operands
    ]
    across = [
        Labels(
            tuple(s.narrow(dim, 0, 1) for s in operand.channels if dim not in varying(compact(s))),
            tuple(p.narrow(dim, 0, 1) for p in operand.places if dim not in varying(compact(p))),
        )
        for operand in operands
    ]
    shape = [1 if d == dim else size for d, size in enumerate(shapes[0])]
    call.relations.together(across, shape)

    def side_by_side(slots_of: Callable[[Labels], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        rows: dict[tuple[frozenset[int], int], list[Tensor | None]] = {}
        for i, operand in enumerate(operands):
            count: dict[frozenset[int], int] = {}
            for slot in slots_of(operand):
                key = frozenset(varying(compact(slot)) | {dim})
                count[key] = count.get(key, -1) + 1
                rows.setdefault((key, count[key]), [None] * len(operands))[i] = slot
        none = torch.zeros((), dtype=torch.int64)
        filled = [
            [
                none.expand(tuple(size)) if slot is None else slot
                for slot, size in zip(row, shapes, strict=True)
            ]
            for row in rows.values()
        ]
        return tuple(torch.cat(_thinned(row, {dim}), dim).expand(call.output.shape) for row in filled)

    channels = [call.relations.rooted(slot).expand(slot.shape) for slot in side_by_side(lambda o: o.channels)]
    return Labels(tuple(channels), side_by_side(lambda o: o.places))


def _reduced(call: Call) -> Sequence[Labels]:
    source = call.args[0]
    dims = _dims(call)
    labels = call.labels(source)
    if _takes_zeros(call, dims):
        alone = [s for s in map(compact, labels.channels) if varying(s) and varying(s) <= dims]
        call.relations.read(alone)
        labels = Labels(tuple(s for s in labels.channels if not varying(compact(s)) <= dims), labels.places)
    labels = call.relations.reduced(labels, dims, f"{call.name} is taken over them")
    outputs = list(tensors_of_args((call.output,), {}))
    kept = [dim for dim in range(source.dim()) if dim not in dims]

    def fit(slot: Tensor) -> Tensor:
        return (
            slot
            if outputs[0].dim() == source.dim()
            else slot.permute(*kept, *sorted(dims)).flatten(len(kept))[..., 0]
        )

    return [labels.map(fit)] * len(outputs)


def _takes_zeros(call: Call, dims: set[int]) -> bool:
    """Whether channels that are zero might as well be missing from what is computed over `dims`."""
    if call.name in ("sum", "norm", "linalg_vector_norm"):
        return True
    if isinstance(call.layer, nn.MultiheadAttention):
        return True  # the mean of the attention weights, which the heads left have too
    if call.name in ("any", "all") and len(dims) == call.args[0].dim():
        return True  # a check of all values, such as whether one is NaN
    return call.name == "mean" and len(dims) == 1 and _counts_whole(call)


def _dims(call: Call) -> set[int]:
    """The dimensions that an operator computes something over, by default all."""
    ndim = call.args[0].dim()
    dims = call.argument("dim", call.argument("dims", ()))
    dims = [dims] if isinstance(dims, int) else list(dims) or range(ndim)
    return {dim % max(1, ndim) for dim in dims}


def _coupled_along(call: Call) -> Labels:
    """Each element of the output depends on all along some dimensions, as in a softmax."""
    source, dims, shape = call.args[0], _dims(call), first_output(call).shape
    labels, reason = call.labels(source), f"{call.name} runs over them"
    if shape == source.shape:
        return call.relations.coupled(labels, dims, reason)
    reduced = call.relations.reduced(labels, dims, reason)
    channels = tuple(s.expand(shape) for s in reduced.channels)
    return Labels(channels, (*(p.expand(shape) for p in reduced.places), *places(shape, sorted(dims))))


def _product(call: Call) -> Labels:
    """mm, bmm, mv, dot, addmm, baddbmm, addmv: channels along the summed dimension are read by it."""
    name = call.name
    bias, factors = (call.args[0], call.args[1:3]) if "add" in name else (None, call.args[:2])
    a, b = factors
    left, right = call.labels(a), call.labels(b)
    batch = [max(a.shape[0], b.shape[0])] if a.dim() == 3 else []
    rows, inner = (list(a.shape) if a.dim() == 1 else list(a.shape[-2:])) if a.dim() > 1 else (1, a.shape[0])
    columns = b.shape[-1] if b.dim() > 1 else 1
    if a.dim() == 1:
        left = left.map(lambda slot: slot[None])
    if b.dim() == 1:
        right = right.map(lambda slot: slot[:, None])
    left = left.map(lambda slot: slot.unsqueeze(-1))
    right = right.map(lambda slot: slot.unsqueeze(-3))
    call.relations.multiplications += a.numel() * columns
    labels = call.relations.contracted([left, right], [*batch, rows, inner, columns], len(batch) + 1)
    labels = labels.map(lambda slot: slot.squeeze(len(batch) + 1).reshape(call.output.shape))
    if bias is None:
        return labels
    return call.relations.together([labels, call.labels(bias)], call.output.shape)


def _trilinear(call: Call) -> Labels:
    """Three factors, each with dimensions put in, multiplied and summed: what a bilinear layer is made of."""
    expanded = [call.argument(f"expand{i}") for i in (1, 2, 3)]
    factors = [_with_dims(t.shape, dims) for t, dims in zip(call.args[:3], expanded, strict=True)]
    shape = [max(sizes) for sizes in zip(*factors, strict=True)]
    call.relations.multiplications += prod(shape)
    labels = [
        call.labels(t).map(lambda slot, s=size: slot.reshape(s))  # type: ignore[misc]
        for t, size in zip(call.args[:3], factors, strict=True)
    ]
    return _summed(call, labels, shape, call.argument("sumdim"))


def _distances(call: Call) -> Labels:
    """Each row of one matrix against each of another: channels that are zero in both add nothing."""
    a, b = call.args[:2]
    labels = [call.labels(a).map(lambda s: s.unsqueeze(-2)), call.labels(b).map(lambda s: s.unsqueeze(-3))]
    call.relations.multiplications += call.output.numel() * a.shape[-1]
    return _summed(call, labels, [*call.output.shape, a.shape[-1]], [call.output.dim()])


def _summed(call: Call, factors: Sequence[Labels], shape: Sequence[int], dims: Sequence[int]) -> Labels:
    """Labels of a product summed over `dims`, which are gone."""
    shape = list(shape)
    for dim in dims:
        factors = [call.relations.contracted(factors, shape, dim)]
        shape[dim] = 1
    (labels,) = factors
    return labels.map(lambda slot: slot.reshape(call.output.shape))


def _with_dims(shape: Iterable[int], dims: Iterable[int]) -> list[int]:
    """A shape with a size of 1 put in at each of `dims`."""
    sizes = list(shape)
    for dim in sorted(dims):
        sizes.insert(dim, 1)
    return sizes


def _convolved(call: Call) -> Labels:
    x, weight, bias, transposed, groups = (
        call.argument(name) for name in ("input", "weight", "bias", "transposed", "groups")
    )
    batch, channels = x.shape[:2]
    relations = call.relations
    data = _over_trailing(call, call.labels(x), 2).map(lambda slot: slot.reshape(batch, 1, groups, -1, 1))
    inside = channels // groups
    kernel = _over_trailing(call, call.labels(weight), 2).map(lambda slot: slot.reshape(weight.shape[:2]))
    outside = weight.shape[1] if transposed else weight.shape[0] // groups
    whole_groups = groups > 1 and not thin_groups(inside, outside, transposed)
    if whole_groups:
        relations.fix(
            [s for s in kernel.channels if varying(compact(s)) == {1}], "all groups of a kernel share them"
        )
        kernel = Labels(tuple(s for s in kernel.channels if varying(compact(s)) == {0}), kernel.places)
    filters = kernel.map(lambda slot: _filter(slot, groups, transposed))
    data = data.map(canonical)
    if groups > 1 and not whole_groups:
        # What stands at one place of every group goes together.
        data, filters = (
            Labels(
                tuple(relations.along(compact(s), [2]).expand(s.shape) for s in each.channels), each.places
            )
            for each in (data, filters)
        )
    relations.multiplications += call.output.numel() * weight.numel() // weight.shape[1 if transposed else 0]
    labels = relations.contracted([data, filters], [batch, 1, groups, inside, outside], 3)
    if whole_groups:
        # A group goes with all its outputs.
        labels = Labels(
            tuple(relations.along(compact(s), [4]).expand(s.shape) for s in labels.channels), labels.places
        )
    out = call.output
    spatial = [1] * (out.dim() - 2)
    labels = labels.map(lambda slot: slot.reshape(batch, groups * outside))
    if bias is not None:
        labels = relations.together([labels, call.labels(bias)], (batch, groups * outside))
    labels = labels.map(lambda slot: canonical(slot).reshape(batch, -1, *spatial).expand(out.shape))
    return Labels(labels.channels, (*labels.places, *places(out.shape, range(2, out.dim()))))


def thin_groups(inside: int, outside: int, transposed: bool) -> bool:
    """Whether a grouped kernel loses channels inside each group, the same in all, rather than whole groups."""
    return not transposed and min(inside, outside) >= THINNEST_GROUP


def _filter(slot: Tensor, groups: int, transposed: bool) -> Tensor:
    """A slot of a kernel as (1, 1, groups, inputs of a group, outputs of a group)."""
    if transposed:
        return canonical(slot.reshape(1, 1, groups, -1, slot.shape[1]))
    return canonical(slot.reshape(1, 1, groups, -1, slot.shape[1]).transpose(-1, -2))


def _over_trailing(call: Call, labels: Labels, leading: int) -> Labels:
    """Labels joined along all dimensions after the first `leading`, which are cut to size 1."""
    shapes = [s.shape for s in (*labels.channels, *labels.places)]
    if not shapes:
        return labels
    dims = set(range(leading, len(shapes[0])))
    kept = []
    for slot in map(compact, labels.channels):
        if varying(slot) and varying(slot) <= dims:
            continue
        kept.append(call.relations.along(slot, dims & varying(slot)))
    shape = [*shapes[0][:leading], *[1] * len(dims)]
    places = [_first(place, dims) for place in labels.places]
    return Labels(
        tuple(s.expand(shape) for s in kept), tuple(p.expand(shape) for p in places if varying(compact(p)))
    )


def _first(place: Tensor, dims: set[int]) -> Tensor:
    for dim in dims:
        place = place.narrow(dim, 0, 1)
    return place


def _resampled(call: Call) -> Labels:
    """Pooling and interpolation: leading dimensions as before, the others anew."""
    source = call.args[0]
    return _anew(call, call.labels(source), source.dim() - _WINDOWS[call.name])


def _unpooled(call: Call) -> Labels:
    """Values put back where indices say, which were taken from as many channels."""
    source = call.args[0]
    labels = call.relations.together(list(map(call.labels, call.args[:2])), source.shape)
    return _anew(call, labels, source.dim() - _WINDOWS[call.name])


def _folded(call: Call) -> Labels:
    """Windows put back into a picture: a channel owns all positions of its window."""
    source, window = call.args[0], prod(call.argument("kernel_size"))
    split = (*source.shape[:-2], -1, window, source.shape[-1])
    labels = call.labels(source).map(lambda slot: canonical(slot.reshape(split)))
    return _anew(call, labels, source.dim() - 1)


def _anew(call: Call, labels: Labels, leading: int) -> Labels:
    """Labels along the first `leading` dimensions, and places along those of the output after them."""
    for slot in map(compact, labels.channels):
        if varying(slot) and min(varying(slot)) >= leading:
            call.relations.fix([slot], f"{call.name} runs over them")
    shape = first_output(call).shape
    kept = _over_trailing(call, labels, leading).map(lambda slot: slot.expand(shape))
    return Labels(kept.channels, (*kept.places, *places(shape, range(leading, len(shape)))))


def _batch_norm(call: Call) -> Sequence[Labels]:
    source = call.args[0]
    labels = call.labels(source)
    training = call.argument("training", False)
    kept = []
    for slot in map(compact, labels.channels):
        others = varying(slot) - {1}
        if not training or not others:
            kept.append(slot)
        elif 1 in varying(slot):
            kept.append(call.relations.along(slot, others))
        else:
            if call.layer is None or not standardises(call.layer):
                call.relations.fix([slot], "batch statistics are taken over them")
            kept.append(slot)
    labels = Labels(tuple(s.expand(source.shape) for s in kept), labels.places)
    names = ("weight", "bias", "running_mean", "running_var")
    own = [call.labels(call.argument(name)) for name in names]
    column = (1, source.shape[1], *[1] * (source.dim() - 2))
    own = [each.map(lambda slot: slot.reshape(column)) for each in own]
    result = call.relations.together([labels, *own], source.shape)
    return [result, Labels(), Labels(), Labels()][: len(call.output)]


def _layer_norm(call: Call) -> Sequence[Labels]:
    source, shape = call.args[0], call.args[1]
    first = source.dim() - len(shape)
    dims = set(range(first, source.dim()))
    labels = call.labels(source)
    slots = list(map(compact, labels.channels))
    mixed = any(varying(slot) & dims and varying(slot) - dims for slot in slots)
    if _counts_whole(call) and len(shape) == 1:
        slots = [call.relations.along(s, dims) if varying(s) - dims else s for s in slots]
        labels = Labels(tuple(s.expand(source.shape) for s in slots), labels.places)
    else:
        labels = call.relations.coupled(labels, dims, "a norm without a layer of its own runs over them")
    own = [call.labels(call.argument(name)) for name in ("weight", "bias")]
    if mixed:
        # Channels of several blocks share these parameters, which stay whole.
        for each in own:
            call.relations.fix(each, "several heads share them")
        own = []
    return [call.relations.together([labels, *own], source.shape), Labels(), Labels()]


def _counts_whole(call: Call) -> bool:
    return call.layer is not None and counts_whole(call.layer)


def _group_norm(call: Call) -> Sequence[Labels]:
    source, groups = call.args[0], call.args[6]
    labels = call.labels(source)
    if groups == 1 and _counts_whole(call):
        kept = list(map(compact, labels.channels))
    else:
        kept = [_within_groups(call.relations, slot, source.shape, groups) for slot in labels.channels]
    labels = Labels(tuple(s.expand(source.shape) for s in kept), labels.places)
    column = (1, source.shape[1], *[1] * (source.dim() - 2))
    own = [call.labels(call.argument(n)).map(lambda s: s.reshape(column)) for n in ("weight", "bias")]
    return [call.relations.together([labels, *own], source.shape), Labels(), Labels()]


def _within_groups(relations: Relations, slot: Tensor, shape: Sequence[int], groups: int) -> Tensor:
    split = compact(slot).expand(shape[0], shape[1], *compact(slot).shape[2:])
    split = split.reshape(shape[0], groups, -1, *split.shape[2:])
    joined = relations.along(compact(split, checked=False), range(2, split.dim())).expand(split.shape)
    return canonical(joined.reshape(shape[0], shape[1], *split.shape[3:])).expand(shape)


def _recurrent(call: Call) -> Sequence[Labels]:
    """One layer of an LSTM, fused: a unit owns its rows of each gate and its column of the recurrent weights."""
    x, w_input, w_hidden, b_input, b_hidden, h, c = call.args[:7]
    relations = call.relations
    units = w_hidden.shape[1]
    rows = x.numel() // x.shape[-1]

    def by_unit(labels: Labels) -> Labels:
        """Labels along the rows of gates, joined over the gates."""
        rows = [s.select(-1, 0) if s.dim() == 2 else s for s in labels.channels if 0 in varying(compact(s))]
        gates = [canonical(s.reshape(-1, units)) for s in rows]
        return Labels(tuple(relations.along(compact(s), [0]).expand(1, units) for s in gates))

    columns = Labels(tuple(s[:1] for s in call.labels(w_hidden).channels if varying(compact(s)) == {1}))
    states = [call.labels(state).map(lambda s: s.reshape(-1, units)[:1]) for state in (h, c)]
    gates = [by_unit(call.labels(t)) for t in (w_input, w_hidden, b_input, b_hidden)]
    own = relations.together([columns, *states, *gates], (1, units))
    relations.read(map(compact, own.channels))

    features = call.labels(x).map(lambda s: s.reshape(-1, x.shape[-1], 1))
    weights = call.labels(w_input)
    weights = Labels(tuple(s[:1].t()[None] for s in weights.channels if varying(compact(s)) == {1}))
    relations.contracted([features.map(canonical), weights], (rows, x.shape[-1], 1), 1)
    relations.multiplications += rows * (w_input.numel() + w_hidden.numel())
    return [
        Labels(tuple(s[0].expand(out.shape) for s in own.channels), places(out.shape, range(out.dim() - 1)))
        if out.dim() and out.shape[-1] == units
        else Labels()
        for out in tensors_of_args((call.output,), {})
    ]


def _packed(call: Call) -> Sequence[Labels]:
    data = call.output[0]
    rows = call.labels(call.args[0]).map(lambda slot: slot[:1, 0].expand(data.shape))
    return [Labels(rows.channels, places(data.shape, (0,))), Labels()]


def _applied(operator: OpOverload, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """An operator that moves elements, on integers; some know floats alone."""
    try:
        moved: Tensor = operator(*args, **kwargs)
    except (NotImplementedError, RuntimeError):
        moved = operator(args[0].double(), *args[1:], **kwargs).long()
    return moved


_WINDOWS = {
    "max_pool2d_with_indices": 2,
    "max_pool3d_with_indices": 3,
    "fractional_max_pool2d": 2,
    "fractional_max_pool3d": 3,
    "max_unpool2d": 2,
    "max_unpool3d": 3,
    "avg_pool2d": 2,
    "avg_pool3d": 3,
    "_adaptive_avg_pool2d": 2,
    "_adaptive_avg_pool3d": 3,
    "adaptive_max_pool2d": 2,
    "adaptive_max_pool3d": 3,
    "upsample_nearest1d": 1,
    "upsample_nearest2d": 2,
    "upsample_nearest3d": 3,
    "_upsample_nearest_exact1d": 1,
    "_upsample_nearest_exact2d": 2,
    "_upsample_nearest_exact3d": 3,
    "upsample_linear1d": 1,
    "upsample_bilinear2d": 2,
    "_upsample_bilinear2d_aa": 2,
    "upsample_bicubic2d": 2,
    "_upsample_bicubic2d_aa": 2,
    "_upsample_lanczos2d_aa": 2,
    "upsample_trilinear3d": 3,
    "grid_sampler_2d": 2,
    "grid_sampler_3d": 3,
}

_ALIKE: Mapping[Rule, str] = {
    _elementwise: """
        _prelu_kernel hardswish hardsigmoid masked_fill fill dropout bernoulli native_dropout rrelu_with_noise
        log_sigmoid_forward fake_quantize_per_tensor_affine_cachemask floor_divide complex polar
        """,
    _same: "clone _to_copy contiguous lift_fresh lift detach alias cumsum renorm embedding_renorm",
    _copied: "copy",
    _constant: """
        zeros ones empty full arange rand randn zeros_like ones_like empty_like full_like rand_like randn_like
        randint_like new_zeros new_ones new_empty new_full scalar_tensor eye linspace logspace randint randperm normal
        uniform random exponential zero empty_strided new_empty_strided tril_indices triu_indices hann_window
        _local_scalar_dense is_nonzero equal item _assert_async
        """,
    _moved: """
        roll flip rot90 repeat pixel_shuffle pixel_unshuffle tril triu im2col
        _unsafe_view _reshape_copy view_copy permute_copy t_copy transpose_copy expand_copy slice_copy select_copy
        diagonal_copy unfold_copy
        """,
    _shuffled: "channel_shuffle native_channel_shuffle",
    _padded: """
        constant_pad_nd reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d
        replication_pad3d
        """,
    _split: "unsafe_split unsafe_split_with_sizes split_copy split_with_sizes_copy",
    _gated: "glu",
    _concatenated: "cat",
    _stacked: "stack",
    indexing.indexed: "index _unsafe_index",
    indexing.index_selected: "index_select",
    indexing.gathered: "gather",
    indexing.scattered: "scatter scatter_add scatter_reduce index_add index_copy index_fill index_reduce",
    indexing.put: "index_put _index_put_impl _unsafe_index_put",
    indexing.embedded: "embedding",
    indexing.embedded_bags: "_embedding_bag _embedding_bag_forward_only",
    _reduced: """
        sum mean amax amin max min argmax argmin var std var_mean std_mean norm linalg_vector_norm prod any all
        logsumexp median nanmedian nansum kthvalue mode aminmax count_nonzero
        """,
    _coupled_along: """
        _softmax _log_softmax _safe_softmax cumprod logcumsumexp cummax cummin sort topk _fft_r2c _fft_c2r _fft_c2c
        """,
    _product: "mm bmm mv dot addmm baddbmm addmv",
    _trilinear: "_trilinear",
    _distances: "_cdist_forward",
    _convolved: "convolution",
    _resampled: " ".join(_WINDOWS),
    _unpooled: "max_unpool2d max_unpool3d",
    _folded: "col2im",
    _batch_norm: "native_batch_norm cudnn_batch_norm _native_batch_norm_legit _batch_norm_with_update",
    _layer_norm: "native_layer_norm",
    _group_norm: "native_group_norm",
    _packed: "_pack_padded_sequence",
    _recurrent: "mkldnn_rnn_layer",
}

RULES: Mapping[str, Rule] = {name: rule for rule, names in _ALIKE.items() for name in names.split()}
"""Operator, without overload and without the underscore of one in place -> rule."""


MOST_ELEMENTS = 1 << 25
"""Of a tensor whose labels are moved one by one, which takes 8 bytes each, in each of up to five numberings."""

_ONE_BY_ONE = frozenset(
    {
        _moved,
        _shuffled,
        _copied,
        _stacked,
        _folded,
        _unpooled,
        indexing.indexed,
        indexing.index_selected,
        indexing.gathered,
        indexing.scattered,
        indexing.put,
    }
)


def _too_large(call: Call) -> Sequence[Labels]:
    return left_whole(
        call, f"they go through {call.name} in a tensor of more than {MOST_ELEMENTS:,} elements"
    )


def rule_of(operator: OpOverload, elements: int) -> Rule:
    """The rule of an operator whose largest tensor has so many `elements`."""
    name = name_of(operator)
    rule = RULES.get(name) or (_elementwise if _is_elementwise(operator, name) else unknown)
    return _too_large if rule in _ONE_BY_ONE and elements > MOST_ELEMENTS else rule


def _is_elementwise(operator: OpOverload, name: str) -> bool:
    """Whether torch tags any of the operator's overloads so: those in place it often forgets."""
    packet = getattr(torch.ops.aten, name, operator.overloadpacket)
    return any(torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads())
