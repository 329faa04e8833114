"""Models that are awkward to take apart: they shrink rightly, or stay whole and say why; discovery never raises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
import pytest
import torch
from half_width import small_and_zeroed
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.errors import BadInput
from slimfleet.compression.pruning import Discovery, index_map
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.nested import tensors_in
from slimfleet.compression.pruning.removable import LAYER
from slimfleet.compression.pruning.shadow import canonical
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import load_tensors, schema_of, tensors_of


class Written(nn.Module):
    """A model from parts and a forward pass written in a line."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = forward
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.run(self, *inputs)


@dataclass
class Answer:
    logits: Tensor


def linear(*sizes: int) -> dict[str, nn.Module]:
    """a: sizes[0] -> sizes[1], o: sizes[1] -> sizes[2]."""
    return {"a": nn.Linear(sizes[0], sizes[1]), "o": nn.Linear(sizes[1], sizes[2])}


class Standardised(nn.Conv2d):
    """A convolution that norms its kernel."""

    def forward(self, x: Tensor) -> Tensor:
        kernel = F.batch_norm(self.weight.reshape(1, len(self.weight), -1), None, None, training=True)
        return F.conv2d(x, kernel.reshape_as(self.weight), self.bias, padding=1, groups=self.groups)


def glu(x: Tensor, width: int) -> Tensor:
    gate, value = x.split([width, width], -1)
    return gate.sigmoid() * value.tanh()


def shape_asserted(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    assert h.shape[1] == 8, "the width is 8"
    return s.o(h)


def not_halved(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    assert h.shape[1] != 64, "64 of 128"
    return s.o(h)


def caching(s: Any, x: Tensor) -> Tensor:
    s.cache = s.p * 2
    return s.o(s.a(x + s.cache).relu())


def auxiliary(s: Any, x: Tensor) -> Tensor:
    h = s.a(x).relu()
    return s.o(h) + s.x(h) if s.training else s.o(h)


def twice_side_by_side(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    return s.o(torch.cat([y, y], 1))


def autoencoder(s: Any, x: Tensor) -> Tensor:
    mean, spread = s.a(x).chunk(2, -1)
    return s.o(mean + torch.randn_like(mean) * (spread / 2).exp())


def fused_heads(s: Any, x: Tensor) -> Tensor:
    """As timm's attention."""
    b, n, _ = x.shape
    q, k, v = s.qkv(x).reshape(b, n, 3, s.num_heads, s.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
    y = F.scaled_dot_product_attention(q, k, v)
    return s.proj(y.transpose(1, 2).reshape(b, n, s.num_heads * s.head_dim))


def causal_heads(s: Any, x: Tensor) -> Tensor:
    """As minGPT's attention: sizes come from the input's."""
    b, t, c = x.shape
    q, k, v = s.c_attn(x).split(s.n_embd, dim=2)
    q, k, v = (z.view(b, t, s.n_head, c // s.n_head).transpose(1, 2) for z in (q, k, v))
    weights = (q @ k.transpose(-2, -1)) / sqrt(k.size(-1))
    weights = weights.masked_fill(s.mask[:, :, :t, :t] == 0, float("-inf")).softmax(-1)
    return s.c_proj((weights @ v).transpose(1, 2).contiguous().view(b, t, c))


def causal_heads_layer(width: int, heads: int) -> Written:
    layer = Written(
        causal_heads,
        c_attn=nn.Linear(width, 3 * width),
        c_proj=nn.Linear(width, width),
        n_embd=width,
        n_head=heads,
    )
    layer.register_buffer("mask", torch.ones(6, 6).tril()[None, None])
    return layer


def residual(s: Any, x: Tensor) -> Tensor:
    y = s.e(x) + s.position
    return s.o(s.norm(y + s.attention(y)))


def shuffled(s: Any, x: Tensor) -> Tensor:
    y = s.b(s.a(x).relu())
    y = y.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)
    return s.o(s.c(y).relu())


def started(s: Any, x: Tensor) -> Tensor:
    return s.o(s.r(x, s.h0.expand(-1, len(x), -1).contiguous())[0][:, -1])


def masked(s: Any, x: Tensor) -> Tensor:
    return s.o(s.t(s.e(x), src_key_padding_mask=x == 0).mean(1))


def own_rms(s: Any, x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * s.weight


def weighted(s: Any, x: Tensor) -> Tensor:
    y = s.a(x)
    for scale in s.scales:
        y = y + scale * s.b(y)
    return s.o(y)


ROW = (torch.linspace(-1, 1, 4)[None],)
SEQUENCE = (torch.linspace(-1, 1, 18).reshape(1, 6, 3),)
IMAGE = (torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8),)
WORDS = (torch.tensor([[3, 1, 4, 1, 0]]),)

FOUND: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], dict[str, int]]] = {
    "a tensor is cached": (
        lambda: Written(caching, p=nn.Parameter(torch.ones(4)), **linear(4, 8, 2)),
        ROW,
        {"a": 8},
    ),
    "a tuple with a bool is returned": (
        lambda: Written(lambda s, x: (s.o(s.a(x)), x > 0), **linear(4, 8, 2)),
        ROW,
        {"a": 8},
    ),
    "a dict of a dataclass is returned": (
        lambda: Written(lambda s, x: {"answer": Answer(s.o(s.a(x)))}, **linear(4, 8, 2)),
        ROW,
        {"a": 8},
    ),
    "training has a head of its own": (
        lambda: Written(auxiliary, x=nn.Linear(8, 2), **linear(4, 8, 2)),
        ROW,
        {"a": 8},
    ),
    "instance norm, side by side": (
        lambda: Written(
            twice_side_by_side,
            a=nn.Sequential(nn.Conv2d(3, 8, 3), nn.InstanceNorm2d(8, affine=True), nn.ReLU(True)),
            o=nn.Conv2d(16, 5, 1),
        ),
        IMAGE,
        {"a.0": 8},
    ),
    "noise in evaluation": (
        lambda: Written(autoencoder, a=nn.Linear(4, 8), o=nn.Linear(4, 2)),
        ROW,
        {"a": 4},
    ),
    "fused heads": (
        lambda: nn.Sequential(
            nn.Linear(3, 12),
            Written(fused_heads, qkv=nn.Linear(12, 48), proj=nn.Linear(16, 12), num_heads=4, head_dim=4),
            nn.Linear(12, 2),
        ),
        SEQUENCE,
        {"0": 12, "1.qkv": 4, "1.proj": 12},
    ),
    "heads sized by the input": (
        lambda: Written(
            residual,
            e=nn.Linear(3, 12),
            position=nn.Parameter(torch.randn(6, 12)),
            attention=causal_heads_layer(12, 4),
            norm=nn.LayerNorm(12),
            o=nn.Linear(12, 2),
        ),
        SEQUENCE,
        {"e": 4},
    ),
    "channels shuffled by unflatten": (
        lambda: Written(
            shuffled,
            a=nn.Conv2d(3, 8, 1),
            b=nn.Conv2d(8, 8, 3, groups=8),
            c=nn.Conv2d(8, 6, 1),
            o=nn.Conv2d(6, 2, 1),
        ),
        IMAGE,
        {"c": 6},
    ),
    "learned initial state": (
        lambda: Written(
            started, r=nn.GRU(3, 6, batch_first=True), h0=nn.Parameter(torch.randn(1, 1, 6)), o=nn.Linear(6, 2)
        ),
        SEQUENCE,
        {"r": 6},
    ),
    "layer scale": (
        lambda: Written(
            lambda s, x: s.o(s.a(x) * s.gamma), gamma=nn.Parameter(torch.ones(8)), **linear(4, 8, 2)
        ),
        ROW,
        {"a": 8},
    ),
    "scales in a list": (
        lambda: Written(
            weighted,
            b=nn.Linear(8, 8),
            scales=nn.ParameterList([nn.Parameter(torch.ones(8)), nn.Parameter(torch.ones(1))]),
            **linear(4, 8, 2),
        ),
        ROW,
        {"b": 8},
    ),
    "a norm written by hand": (
        lambda: nn.Sequential(
            nn.Linear(4, 8), Written(own_rms, weight=nn.Parameter(torch.ones(8))), nn.Linear(8, 2)
        ),
        ROW,
        {"0": 8},
    ),
    "group norm of one group": (
        lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(1, 8), nn.Conv2d(8, 2, 1)),
        IMAGE,
        {"0": 8},
    ),
    "channels inside the groups of a convolution": (
        lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3, groups=2), nn.ReLU(), nn.Conv2d(24, 2, 1)),
        IMAGE,
        {"0": 8, "1": 12},
    ),
    "pixels made of channels": (
        lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.PixelShuffle(2), nn.Conv2d(4, 2, 1)),
        IMAGE,
        {"0": 4},
    ),
    "low-rank addition to a weight": (
        lambda: Written(
            lambda s, x: s.o(F.linear(x, s.a.weight + s.up @ s.down, s.a.bias)),
            up=nn.Parameter(torch.randn(8, 3)),
            down=nn.Parameter(torch.randn(3, 4)),
            **linear(4, 8, 2),
        ),
        ROW,
        {"up": 3, "a": 8},
    ),
    "half precision": (
        lambda: nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)).bfloat16(),
        (ROW[0].bfloat16(),),
        {"0": 8},
    ),
    "kernels that are standardised": (
        lambda: nn.Sequential(
            Standardised(3, 8, 3), nn.ReLU(), Standardised(8, 8, 3, groups=2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2),
        ),
        (torch.randn(1, 3, 8, 8),),
        {"0": 4, "2": 4},
    ),
    "one size that many layers share": (
        lambda: Written(
            lambda s, x: s.o(torch.cat([glu(f(x), s.width) for f in s.f], -1)),
            f=nn.ModuleList(nn.Linear(4, 12) for _ in range(12)),
            width=6,
            o=nn.Linear(72, 2),
        ),
        ROW,
        {"f.0": 6},
    ),
    "integers, frozen and empty tensors": (
        lambda: Written(
            lambda s, x: s.o(s.a(x) + s.n),
            n=nn.Parameter(torch.tensor(3), requires_grad=False),
            empty=nn.Parameter(torch.zeros(0, 3)),
            **linear(4, 8, 2),
        ),
        ROW,
        {"a": 8},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_it_shrinks(case: str) -> None:
    build, inputs, expected = FOUND[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build()
    found = discover(model, inputs)
    assert {group.name: group.size for group in found.groups} == expected, found.whole
    kept, small, zeroed = small_and_zeroed(model, found.groups)
    assert schema_of(small) == kept.schema
    for training in (False, True):
        outputs = []
        for each in (small.train(training), zeroed.train(training)):
            torch.manual_seed(1)
            outputs.append([t.float() for t in tensors_in(each(*inputs))])
        if case != "noise in evaluation":
            torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-2 if case == "half precision" else 1e-5)
    sum(t.sum() for t in outputs[0] if t.requires_grad).backward()
    load_tensors(small, kept.shrink(tensors_of(model)))


def whole(found: Discovery) -> dict[str, str]:
    return {left.name: left.reason for left in found.whole}


LEFT: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], str, str]] = {
    "its outputs": (lambda: nn.Linear(4, 3), ROW, "", "outputs of the model"),
    "an asserted width": (
        lambda: Written(shape_asserted, **linear(4, 8, 2)), ROW, "a",
        "AssertionError: the width is 8",
    ),
    "a forward pass that fails": (
        lambda: Written(lambda s, x: s.o(s.a(x)), **linear(5, 8, 2)), ROW, "a", "could not be followed: RuntimeError",
    ),
    "an operator without a rule": (
        lambda: Written(lambda s, x: s.o(torch.fft.rfft(s.a(x)).real), a=nn.Linear(4, 8), o=nn.Linear(5, 2)),
        ROW, "a", "_fft_r2c",
    ),
    "a softmax": (lambda: Written(lambda s, x: s.o(s.a(x).softmax(-1)), **linear(4, 8, 2)), ROW, "a", "softmax"),
    "a factor from a softmax": (
        lambda: Written(
            lambda s, x: s.o(s.a(x) * s.b(x).softmax(-1)), a=nn.Linear(4, 8), b=nn.Linear(4, 8), o=nn.Linear(8, 2)
        ),
        ROW, "a", "data whose size is fixed",
    ),
    "a width that fails at one half alone": (
        lambda: Written(not_halved, **linear(4, 128, 2)), ROW, "a", "fails in eval mode: AssertionError: 64 of 128",
    ),
    "added to the inputs": (
        lambda: Written(lambda s, x: s.o(x + s.a(x)), **linear(4, 4, 2)), ROW, "a", "data whose size is fixed",
    ),
    "nothing reads it": (
        lambda: Written(lambda s, x: s.o(x), a=nn.Linear(4, 8), o=nn.Linear(4, 2)), ROW, "a", "no layer reads",
    ),
    "projections of a recurrent layer": (
        lambda: Written(lambda s, x: s.o(s.r(x)[0]), r=nn.LSTM(3, 6, proj_size=2), o=nn.Linear(2, 2)),
        SEQUENCE, "r", "projections",
    ),
    "a fixed permutation": (
        lambda: Written(lambda s, x: s.o(s.a(x)[:, [1, 0, 3, 2]]), **linear(4, 4, 2)), ROW, "a", "chosen by an index",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_it_stays_whole_for_a_reason(case: str) -> None:
    build, inputs, layer, reason = LEFT[case]
    found = discover(build(), inputs)
    assert layer not in {group.name for group in found.groups}
    assert reason in whole(found)[layer]
    assert "\n" not in whole(found)[layer]


def padded() -> nn.Module:
    return Written(
        masked,
        e=nn.Embedding(9, 16),
        t=nn.TransformerEncoderLayer(16, 4, 32, batch_first=True),
        o=nn.Linear(16, 5),
    )


@pytest.mark.parametrize("token", [0, 1])
def test_what_the_example_holds_does_not_matter(token: int) -> None:
    found = discover(padded(), (torch.full((1, 6), token),))
    assert {group.name: group.size for group in found.groups} == {"e": 16, "t.self_attn": 4, "t.linear1": 32}


def test_a_training_head_loses_its_columns_too() -> None:
    model = Written(auxiliary, x=nn.Linear(8, 2), **linear(4, 8, 2))
    (group,) = discover(model, ROW).groups
    assert ("x.weight", 1) in {(member.tensor, member.dim) for member in group.members}


def test_a_lazy_layer_is_refused() -> None:
    with pytest.raises(BadInput) as refused:
        discover(nn.LazyLinear(3), ROW)
    assert "\n" not in str(refused.value)


@pytest.mark.filterwarnings("ignore")
def test_quantised_layers_have_nothing_to_remove() -> None:
    model = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})
    assert discover(model, ROW).groups == ()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["weight norm", "old weight norm", "spectral norm", "scripted"])
def test_layers_that_compute_their_weights_never_raise(kind: str) -> None:
    wrap: dict[str, Callable[[nn.Module], nn.Module]] = {
        "weight norm": nn.utils.parametrizations.weight_norm,
        "old weight norm": nn.utils.weight_norm,
        "spectral norm": nn.utils.parametrizations.spectral_norm,
        "scripted": torch.jit.script,
    }
    model = nn.Sequential(wrap[kind](nn.Linear(4, 8)), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    if kind == "old weight norm":  # torch cannot copy it
        with pytest.raises(BadInput, match="cannot be copied"):
            discover(model, ROW)
        return
    found = discover(model, ROW)
    assert ("2" in {group.name for group in found.groups}) or kind == "scripted"
    assert all(left.reason for left in found.whole)


def test_work_is_bounded_by_counting_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slimfleet.compression.pruning.discover.MOST_LABELS", 100)
    found = discover(padded(), WORDS)
    assert found.groups == ()
    assert set(whole(found).values()) == {"finding its channels takes more work than is allowed"}


def mixed(s: Any, x: Tensor) -> Tensor:
    h = s.a(x)
    assert h.shape[1] == 8
    return x + s.o(h.relu()) + s.p(s.b(x).relu())


def test_blocks_that_fail_alike_are_tried_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = {"a": (6, 8), "o": (8, 6), "b": (6, 8), "p": (8, 6)}
    blocks = [Written(mixed, **{name: nn.Linear(*size) for name, size in parts.items()}) for _ in range(12)]
    model = nn.Sequential(nn.Linear(4, 6), *blocks, nn.Linear(6, 2))
    # So many as pass in less than ten trials.
    monkeypatch.setattr("slimfleet.compression.pruning.removable.MOST_OPERATIONS", 10 * 61 * LAYER)
    found = discover(model, ROW)
    assert {group.name for group in found.groups} >= {"0", *(f"{i}.b" for i in range(1, 13))}
    assert all(f"{i}.a" not in {group.name for group in found.groups} for i in range(1, 13))
    assert all("AssertionError" in whole(found)[f"{i}.a"] for i in range(1, 13))


def test_labels_compared_in_pieces_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def groups() -> list[tuple[str, int]]:
        return [(group.name, group.size) for group in discover(padded(), WORDS).groups]

    expected = groups()
    monkeypatch.setattr("slimfleet.compression.pruning.relate.MOST_AT_ONCE", 7)
    assert groups() == expected


def test_labels_are_not_moved_in_a_tensor_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return s.o(s.b(s.a(x).roll(1, 0)).relu())

    model = Written(forward, a=nn.Linear(4, 8), b=nn.Linear(8, 6), o=nn.Linear(6, 2))
    assert {group.name for group in discover(model, ROW).groups} == {"a", "b"}
    monkeypatch.setattr("slimfleet.compression.pruning.rules.MOST_ELEMENTS", 7)
    found = discover(model, ROW)
    assert {group.name for group in found.groups} == {"b"}
    assert whole(found)["a"] == "they go through roll in a tensor of more than 7 elements"


def test_labels_of_a_view_do_not_keep_those_of_all() -> None:
    whole = torch.arange(1_000_000).reshape(1000, 1000)
    row = canonical(whole[:1].expand(1000, 1000))
    assert row.shape == whole.shape
    assert row.untyped_storage().nbytes() == 8 * 1000


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}, {"bias": False}])
def test_machines_with_and_without_a_fused_lstm_find_the_same(options: dict[str, Any]) -> None:
    def forward(s: Any, x: Tensor) -> Tensor:
        return s.o(s.r(s.e(x))[0].mean(1))

    def found() -> object:
        directions = 1 + options.get("bidirectional", False)
        parts = {"r": nn.LSTM(8, 6, batch_first=True, **options), "o": nn.Linear(6 * directions, 2)}
        groups = discover(Written(forward, e=nn.Embedding(9, 8), **parts), WORDS).groups
        return [(g.name, [(m.tensor, m.dim, m.positions.tolist()) for m in g.members]) for g in groups]

    fused = found()
    with torch.backends.mkldnn.flags(enabled=False):
        assert found() == fused
    assert [name for name, _ in fused] == ["e", "r"]


def test_the_same_groups_every_time() -> None:
    first, second = (
        [
            (g.name, g.sizes, [(m.tensor, m.dim, m.positions.tolist()) for m in g.members])
            for g in discover(padded(), WORDS).groups
        ]
        for _ in range(2)
    )
    assert first == second


def test_a_size_shrinks_by_what_its_channels_own() -> None:
    build, inputs, _ = FOUND["fused heads"]
    model = build()
    groups = discover(model, inputs).groups
    small = shrink_model(model, index_map(schema_of(model), groups, {"1.qkv": np.array([0, 2, 3])}))
    layer = small.get_submodule("1")
    assert (layer.num_heads, layer.head_dim) == (3, 4)
