"""Operators that let channels through: those before and behind shrink, and removed channels are channels at zero."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from half_width import small_and_zeroed
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.nested import tensors_in


class Written(nn.Module):
    """A model from parts and a forward pass."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


def example(*shape: int) -> Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel()).reshape(shape)


ROWS, TOKENS, WAVE, IMAGE, VOLUME = (2, 4), (2, 6, 4), (2, 4, 8), (2, 4, 8, 8), (1, 4, 8, 8, 8)
CONVOLUTIONS = {WAVE: nn.Conv1d, IMAGE: nn.Conv2d, VOLUME: nn.Conv3d}

Operator = Callable[[Any, Tensor], Tensor]
Case = tuple[Callable[[], nn.Module], tuple[Tensor, ...], dict[str, int]]


def between(shape: tuple[int, ...], run: Operator, before: int = 8, after: int = 8, size: int = 8) -> Case:
    """An operator between `a`, which gives `before` channels, and `o`, which takes `after`; a group of `size`."""
    layer: Any = CONVOLUTIONS.get(shape)

    def build() -> nn.Module:
        a, o = (
            (layer(4, before, 3, padding=1), layer(after, 2, 1))
            if layer
            else (nn.Linear(4, before), nn.Linear(after, 2))
        )
        return Written(lambda s, x: s.o(run(s, s.a(x))), a=a, o=o)

    return build, (example(*shape),), {"a": size}


def two_rows(run: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...], out: int) -> Case:
    """What two layers give, compared; their channels go together."""
    return (
        lambda: Written(
            lambda s, x: s.o(run(s.a(x), s.b(x))), a=nn.Linear(4, 8), b=nn.Linear(4, 8), o=nn.Linear(out, 2)
        ),
        (example(*shape),),
        {"a": 8},
    )


def unpooled(run: Any, pool: Any) -> Operator:
    return lambda s, x: run(*pool(x, 2, return_indices=True), 2)


def segmented(s: Any, x: Tensor) -> Tensor:
    """As SegNet: values of one layer, put where the maxima of another were."""
    x, indices = F.max_pool2d(s.a(x), 2, return_indices=True)
    return s.o(F.max_unpool2d(s.c(s.b(x)), indices, 2))


def rotated_heads(s: Any, x: Tensor) -> Tensor:
    """As Llama's attention: pairs of channels are complex numbers, turned by their position."""
    b, t, _ = x.shape

    def turned(z: Tensor) -> Tensor:
        pairs = torch.view_as_complex(z.unflatten(-1, (-1, 2))) * s.angles[:, None]
        return torch.view_as_real(pairs).flatten(3).transpose(1, 2)

    q, k, v = (layer(x).view(b, t, s.heads, 6) for layer in (s.q, s.k, s.v))
    y = F.scaled_dot_product_attention(turned(q), turned(k), v.transpose(1, 2))
    return s.o(y.transpose(1, 2).reshape(b, t, -1))


def filtered(s: Any, x: Tensor) -> Tensor:
    """As GFNet: a learned filter in the frequency domain."""
    spectrum = torch.fft.rfft2(s.a(x), norm="ortho") * torch.view_as_complex(s.filter)
    return s.o(torch.fft.irfft2(spectrum, norm="ortho"))


def messages(s: Any, x: Tensor, edges: Tensor) -> Tensor:
    """As a graph network: sums over neighbours."""
    y = s.a(x)
    return s.o(y.new_zeros(y.shape).index_add(0, edges[0], y[edges[1]]).relu())


def written_at(s: Any, x: Tensor) -> Tensor:
    """Into an empty tensor, at some of the tokens."""
    y = x.new_zeros(len(x), 9, x.shape[2])
    y[:, torch.arange(6)] = x
    return y


def mask_token(s: Any, x: Tensor) -> Tensor:
    """As a masked autoencoder: a learned vector in the place of some tokens, none of the example's."""
    y = s.a(x).clone()
    y[x.sum(2) > 100] = s.token
    return s.o(y)


def clipped(s: Any, x: Tensor) -> Tensor:
    y = x.clone()
    y[y < 0] = 0
    return y


def scattered(run: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Operator:
    return lambda s, x: run(torch.zeros_like(x), torch.zeros(x.shape, dtype=torch.long), x)


def packed(s: Any, x: Tensor) -> Tensor:
    """Sequences of different lengths, padded again."""
    steps = nn.utils.rnn.pack_padded_sequence(s.a(x), torch.tensor([6, 4])[: len(x)], batch_first=True)
    return s.o(nn.utils.rnn.pad_packed_sequence(s.r(steps)[0], batch_first=True)[0])


def checked(s: Any, x: Tensor) -> Tensor:
    assert not torch.isnan(x).any()
    assert torch.isfinite(x).all()
    return x


def bags(mode: str) -> Case:
    words = torch.tensor([[1, 2, 3], [4, 5, 6]])
    return lambda: nn.Sequential(nn.EmbeddingBag(9, 8, mode=mode), nn.Linear(8, 2)), (words,), {"0": 8}


CASES: dict[str, Case] = {
    "log sigmoid": between(ROWS, lambda s, x: F.logsigmoid(x)),
    "in place": between(
        ROWS, lambda s, x: F.threshold(F.mish(x.abs_(), inplace=True), 0.1, 0.0, inplace=True)
    ),
    "gated rows": between(ROWS, lambda s, x: F.glu(x), 16),
    "gated image": between(IMAGE, lambda s, x: F.glu(x, 1), 16),
    "shuffled in 2": between(IMAGE, lambda s, x: F.channel_shuffle(x, 2), size=4),
    "shuffled in 4": between(IMAGE, lambda s, x: F.channel_shuffle(x, 4), size=2),
    "pixels of two channels": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 1), nn.PixelShuffle(2), nn.Conv2d(2, 2, 1)),
        (example(*IMAGE),),
        {"0": 2},
    ),
    "folded": between(IMAGE, lambda s, x: F.fold(x.flatten(2)[..., :49], (8, 8), 2), 16, 4, 4),
    "unfolded and folded": between(IMAGE, lambda s, x: F.fold(F.unfold(x, 2), (8, 8), 2)),
    "fractional pooling 2d": between(IMAGE, lambda s, x: F.fractional_max_pool2d(x, 2, output_size=4)),
    "fractional pooling 3d": between(VOLUME, lambda s, x: F.fractional_max_pool3d(x, 2, output_size=4)),
    "unpooling 1d": between(WAVE, unpooled(F.max_unpool1d, F.max_pool1d)),
    "unpooling 2d": between(IMAGE, unpooled(F.max_unpool2d, F.max_pool2d)),
    "unpooling 3d": between(VOLUME, unpooled(F.max_unpool3d, F.max_pool3d)),
    "unpooling another's maxima": (
        lambda: Written(
            segmented,
            a=nn.Conv2d(4, 8, 1),
            b=nn.Conv2d(8, 6, 1),
            c=nn.Conv2d(6, 8, 1),
            o=nn.Conv2d(8, 2, 1),
        ),
        (example(*IMAGE),),
        {"a": 8, "b": 6},
    ),
    "nearest, exact 3d": between(VOLUME, lambda s, x: F.interpolate(x, size=4, mode="nearest-exact")),
    "turned by 90 degrees": between(IMAGE, lambda s, x: x.rot90(1, (2, 3))),
    "bilinear": (
        lambda: Written(
            lambda s, x: s.o(s.c(s.a(x), s.b(x))),
            a=nn.Linear(4, 8),
            b=nn.Linear(4, 6),
            c=nn.Bilinear(8, 6, 10),
            o=nn.Linear(10, 2),
        ),
        (example(*TOKENS),),
        {"a": 8, "b": 6, "c": 10},
    ),
    "distances": two_rows(torch.cdist, TOKENS, 6),
    "bags: mean": bags("mean"),
    "bags: sum": bags("sum"),
    "bags: max": bags("max"),
    "embedding of a limited norm": (
        lambda: nn.Sequential(nn.Embedding(9, 8, max_norm=1.0), nn.Linear(8, 2)),
        (torch.tensor([[1, 2, 3]]),),
        {"0": 8},
    ),
    "rows of a limited norm": between(ROWS, lambda s, x: x.renorm(2, 0, 1.0)),
    "running maximum": between(TOKENS, lambda s, x: x.cummax(1)[0]),
    "running minimum": between(TOKENS, lambda s, x: x.cummin(1)[0]),
    "sorted": between(TOKENS, lambda s, x: x.sort(1)[0]),
    "largest": between(TOKENS, lambda s, x: x.topk(3, 1)[0]),
    "third smallest": between(TOKENS, lambda s, x: x.kthvalue(3, 1)[0]),
    "most frequent": between(TOKENS, lambda s, x: x.mode(1)[0]),
    "quantile": between(TOKENS, lambda s, x: x.quantile(0.5, 1)),
    "least and largest": between(TOKENS, lambda s, x: sum(x.aminmax(dim=1))),
    "count": between(TOKENS, lambda s, x: x.relu().count_nonzero(1).float()),
    "spectrum of tokens": between(TOKENS, lambda s, x: torch.fft.fft(x, dim=1).real),
    "spectrum of an image": between(IMAGE, lambda s, x: torch.fft.irfft2(torch.fft.rfft2(x) * 2)),
    "filter in the frequency domain": (
        lambda: Written(
            filtered,
            a=nn.Conv2d(4, 8, 1),
            filter=nn.Parameter(torch.randn(8, 8, 5, 2)),
            o=nn.Conv2d(8, 2, 1),
        ),
        (example(*IMAGE),),
        {"a": 8},
    ),
    "rotary embedding of complex numbers": (
        lambda: Written(
            rotated_heads,
            **{name: nn.Linear(4, 24) for name in "qkv"},
            o=nn.Linear(24, 2),
            heads=4,
            angles=torch.polar(torch.ones(6, 3), example(6, 3)),
        ),
        (example(*TOKENS),),
        {"q": 4},
    ),
    "complex numbers": between(ROWS, lambda s, x: torch.complex(x, x.tanh()).abs()),
    "scatter": between(TOKENS, scattered(lambda y, at, x: y.scatter(1, at, x))),
    "scatter a number": between(TOKENS, scattered(lambda y, at, x: x.scatter(1, at, 1.0))),
    "scatter, adding": between(TOKENS, scattered(lambda y, at, x: y.scatter_add(1, at, x))),
    "scatter, averaging": between(TOKENS, scattered(lambda y, at, x: y.scatter_reduce(1, at, x, "mean"))),
    "copied at an index": between(TOKENS, lambda s, x: torch.zeros_like(x).index_copy(1, torch.arange(6), x)),
    "filled at an index": between(TOKENS, lambda s, x: x.index_fill(1, torch.tensor([1]), 0.5)),
    "neighbours in a graph": (
        lambda: Written(messages, a=nn.Linear(4, 8), o=nn.Linear(8, 2)),
        (example(4, 4), torch.tensor([[0, 1, 2, 2], [1, 0, 3, 1]])),
        {"a": 8},
    ),
    "written at an index": between(TOKENS, written_at),
    "a mask token": (
        lambda: Written(mask_token, a=nn.Linear(4, 8), token=nn.Parameter(torch.randn(8)), o=nn.Linear(8, 2)),
        (example(*TOKENS),),
        {"a": 8},
    ),
    "written where it is negative": between(TOKENS, clipped),
    "padded tokens": (
        lambda: Written(
            lambda s, x: s.o(s.b(F.pad(s.a(x), (0, 0, 1, 2))).relu()),
            a=nn.Linear(4, 8),
            b=nn.Linear(8, 6),
            o=nn.Linear(6, 2),
        ),
        (example(*TOKENS),),
        {"a": 8, "b": 6},
    ),
    "sequences of different lengths": (
        lambda: Written(packed, a=nn.Linear(4, 8), r=nn.LSTM(8, 6, batch_first=True), o=nn.Linear(6, 2)),
        (example(*TOKENS),),
        {"a": 8, "r": 6},
    ),
    "checked for NaN": between(TOKENS, checked),
    "data of more places than there are channels": (
        lambda: Written(
            lambda s, x, y: s.o(s.b((s.a(x).flatten(1) + y).view(-1, 4, 64)).relu()),
            a=nn.Conv1d(1, 4, 1),
            b=nn.Conv1d(4, 6, 1),
            o=nn.Conv1d(6, 2, 1),
        ),
        (example(2, 1, 64), example(2, 256)),
        {"b": 6},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_channels_go_through(case: str) -> None:
    build, inputs, expected = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
    found = discover(model, inputs)
    assert {group.name: group.size for group in found.groups} == expected, found.whole
    _, small, zeroed = small_and_zeroed(model, found.groups)
    if case.startswith("fractional"):
        return  # random regions, for each channel others
    for training in (False, True):
        outputs = [list(tensors_in(each.train(training)(*inputs))) for each in (small, zeroed)]
        torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    sum(t.sum() for t in outputs[0] if t.requires_grad).backward()


LEFT: dict[str, tuple[Case, str]] = {
    "normalised by its neighbours": (
        between(IMAGE, lambda s, x: F.local_response_norm(x, 3)),
        "runs over them",
    ),
    "spectrum of channels": (between(ROWS, lambda s, x: torch.fft.fft(x).real), "_fft_r2c runs over them"),
    "sorted channels": (between(ROWS, lambda s, x: x.sort(1)[0]), "sort runs over them"),
    "scattered channels": (
        between(ROWS, lambda s, x: torch.zeros_like(x).scatter(1, torch.zeros(x.shape).long(), x)),
        "chosen by an index",
    ),
    "channels written at an index": (
        between(
            ROWS,
            lambda s, x: x.new_zeros(len(x), 8).index_put((torch.arange(2)[:, None], torch.arange(8)), x),
        ),
        "written where an index says",
    ),
}


@pytest.mark.parametrize("case", LEFT)
def test_channels_that_depend_on_one_another_stay(case: str) -> None:
    (build, inputs, _), reason = LEFT[case]
    found = discover(build(), inputs)
    assert found.groups == ()
    assert reason in {left.name: left.reason for left in found.whole}["a"]
