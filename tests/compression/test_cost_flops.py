"""FLOPs against counts by hand: every figure below is multiply-adds, of the forward pass and of the backward pass."""

import logging
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from slimfleet.compression.cost import measure_work
from slimfleet.compression.cost.flops import FlopCounter


class Wrapped(nn.Module):
    """A module whose output is a tuple, or that takes its input more than once."""

    def __init__(self, inner: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.call = inner, call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(self.inner, x)


def multiply_adds(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[int, int]:
    with FlopCounter() as counter:
        out = model(x)
        forward = counter.flops
        out.float().sum().backward()
    assert not counter.uncounted
    return forward // 2, (counter.flops - forward) // 2


def first(inner: nn.Module) -> nn.Module:
    return Wrapped(inner, lambda module, x: module(x)[0])


def frozen(module: nn.Module) -> nn.Module:
    return module.requires_grad_(False)


def packed(lstm: nn.Module, x: Tensor) -> Tensor:
    lengths = [x.shape[1], *[2] * (x.shape[0] - 1)]
    return lstm(nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))[0].data


# Convolutions of one example: places of the output · kernel · channels in and out, over the groups. As the first layer
# they have no gradient of their input, so the backward pass costs what the forward pass does.
CONVOLUTIONS = {
    "plain": (nn.Conv2d(4, 6, 3, padding=1), (4, 8, 8), 64 * 9 * 4 * 6),
    "grouped": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 8, 8), 64 * 9 * 4 * 6 // 2),
    "depthwise": (nn.Conv2d(6, 6, 3, padding=1, groups=6), (6, 8, 8), 64 * 9 * 6),
    "depthwise, twice as many": (nn.Conv2d(6, 12, 3, groups=6), (6, 8, 8), 36 * 9 * 12),
    "strided and dilated": (nn.Conv2d(4, 6, 3, stride=2, dilation=2), (4, 9, 9), 9 * 9 * 4 * 6),
    "1d": (nn.Conv1d(4, 6, 5, groups=2), (4, 12), 8 * 5 * 4 * 6 // 2),
    "3d": (nn.Conv3d(2, 3, 3), (2, 5, 5, 5), 27 * 27 * 2 * 3),
    # Transposed: every place of the input meets the whole kernel.
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 5, 5), 25 * 9 * 4 * 6),
    "transposed, grouped": (nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 5, 5), 25 * 9 * 4 * 6 // 2),
    "transposed 1d, dilated": (
        nn.ConvTranspose1d(4, 6, 3, dilation=2, output_padding=0),
        (4, 7),
        7 * 3 * 4 * 6,
    ),
    "transposed 3d": (nn.ConvTranspose3d(2, 3, 2), (2, 3, 3, 3), 27 * 8 * 2 * 3),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("batch", [1, 3])
def test_convolutions(name: str, batch: int) -> None:
    layer, shape, by_hand = CONVOLUTIONS[name]
    x = torch.randn(batch, *shape)
    assert multiply_adds(layer, x) == (batch * by_hand, batch * by_hand)
    assert multiply_adds(layer, x.requires_grad_()) == (batch * by_hand, 2 * batch * by_hand)


# One example of 5 steps with 8 features through 6 units. A gate has 6 · (8 + 6) weights. Backward: those of all gates
# once for their own gradient, and the part of the state once a step but the first; the input has no gradient.
def recurrent(gates: int, inputs: int = 8, state: int = 6, units: int = 6, steps: int = 5) -> tuple[int, int]:
    of_input, of_state = gates * units * inputs * steps, gates * units * state
    return of_input + steps * of_state, of_input + (2 * steps - 1) * of_state


def total(*parts: tuple[int, int]) -> tuple[int, int]:
    return sum(part[0] for part in parts), sum(part[1] for part in parts)


INNER = (0, 4 * 6 * 12 * 5)
"""The gradient of the second layer's input, which is the output of two directions, in one direction."""

# Projected to 4: the state has 4 features, and every step one product 6 · 4, of which both gradients are needed.
PROJECTED = total(recurrent(4, state=4), (5 * 24, 10 * 24))

RECURRENT = {
    "LSTM": (nn.LSTM(8, 6, batch_first=True), recurrent(4)),
    "GRU": (nn.GRU(8, 6, batch_first=True), recurrent(3)),
    "RNN": (nn.RNN(8, 6, batch_first=True), recurrent(1)),
    "without biases": (nn.LSTM(8, 6, batch_first=True, bias=False), recurrent(4)),
    "two directions": (
        nn.LSTM(8, 6, batch_first=True, bidirectional=True),
        total(recurrent(4), recurrent(4)),
    ),
    "two layers, two directions": (
        nn.LSTM(8, 6, num_layers=2, batch_first=True, bidirectional=True, dropout=0.5),
        total(*[recurrent(4)] * 2, *[recurrent(4, inputs=12), INNER] * 2),
    ),
    "projected": (nn.LSTM(8, 6, batch_first=True, proj_size=4), PROJECTED),
}


@pytest.mark.parametrize("name", RECURRENT)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.filterwarnings("ignore:TF32", "ignore:LSTM with projections")
def test_recurrent_layers_with_fused_kernels_and_without(name: str, fused: bool) -> None:
    layer, by_hand = RECURRENT[name]
    with torch.backends.mkldnn.flags(enabled=fused):
        assert multiply_adds(first(layer), torch.randn(1, 5, 8)) == by_hand


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.filterwarnings("ignore:TF32")
def test_frozen_parts_of_a_recurrent_layer_have_no_gradient(fused: bool) -> None:
    layer = nn.LSTM(8, 6, batch_first=True)
    frozen_input = nn.LSTM(8, 6, batch_first=True)
    frozen_input.weight_ih_l0.requires_grad_(False)
    of_input, of_state = 4 * 6 * 8 * 5, 4 * 6 * 6
    with torch.backends.mkldnn.flags(enabled=fused):
        x = torch.randn(1, 5, 8)
        assert multiply_adds(first(frozen_input), x)[1] == 9 * of_state
        assert multiply_adds(first(frozen(layer)), x.requires_grad_())[1] == of_input + 4 * of_state


def test_packed_sequences_count_the_steps_they_have() -> None:
    forward, backward = multiply_adds(Wrapped(nn.LSTM(8, 6, batch_first=True), packed), torch.randn(3, 5, 8))
    steps, of_input, of_state = 5 + 2 + 2, 4 * 6 * 8, 4 * 6 * 6
    assert forward == steps * (of_input + of_state)
    assert backward == steps * of_input + (2 * steps - 3) * of_state


@pytest.mark.parametrize(("cell", "gates"), [(nn.LSTMCell, 4), (nn.GRUCell, 3), (nn.RNNCell, 1)])
def test_cells(cell: type[nn.Module], gates: int) -> None:
    def state(inner: nn.Module, x: Tensor) -> Tensor:
        found = inner(x)
        return found[0] if isinstance(found, tuple) else found

    by_hand = 3 * gates * 6 * (8 + 6)
    assert multiply_adds(Wrapped(cell(8, 6), state), torch.randn(3, 8)) == (by_hand, by_hand)


def heads(*shape: int) -> Tensor:
    return torch.randn(2, 4, *shape, requires_grad=True)


ATTENTION = {
    "plain": {},
    "dropout": {"dropout_p": 0.5},
    "mask": {"attn_mask": torch.zeros(5, 7)},
    "boolean mask": {"attn_mask": torch.ones(5, 7, dtype=torch.bool)},
    "learned mask": {"attn_mask": torch.zeros(5, 7, requires_grad=True)},
    "causal": {"is_causal": True},
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_counts_the_same_on_every_path(name: str) -> None:
    query, key, value = heads(5, 8), heads(7, 8), heads(7, 8)
    product = 2 * 4 * 5 * 7 * 8
    found = multiply_adds(
        lambda q: functional.scaled_dot_product_attention(q, key, value, **ATTENTION[name]), query
    )
    assert found == (2 * product, 4 * product)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_attention_without_some_gradients(dropout: float) -> None:
    product = 2 * 4 * 5 * 7 * 8
    for needed, backward in (("q", 2), ("k", 2), ("v", 1), ("qk", 3), ("kv", 3), ("qkv", 4)):
        q, k, v = (
            torch.randn(2, 4, length, 8, requires_grad=name in needed)
            for name, length in (("q", 5), ("k", 7), ("v", 7))
        )
        found = multiply_adds(
            lambda q, k=k, v=v: functional.scaled_dot_product_attention(q, k, v, dropout_p=dropout), q
        )
        assert found == (2 * product, backward * product), needed


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_queries_that_share_a_key_head_each_meet_it(dropout: float) -> None:
    key, value = (torch.randn(2, 2, 7, 8, requires_grad=True) for _ in range(2))
    product = 2 * 4 * 5 * 7 * 8
    found = multiply_adds(
        lambda q: functional.scaled_dot_product_attention(q, key, value, dropout_p=dropout, enable_gqa=True),
        heads(5, 8),
    )
    assert found == (2 * product, 4 * product)


# 2 examples of 5 tokens with 32 features, 4 heads, 64 hidden features.
ENCODER = 2 * (5 * 4 * 32 * 32 + 2 * 5 * 5 * 32 + 2 * 5 * 32 * 64)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("training", [True, False])
def test_a_transformer_layer(dropout: float, training: bool) -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=dropout, batch_first=True).train(training)
    x = torch.randn(2, 5, 32)
    # Backward twice the forward pass, but the first projection has no gradient of its input.
    assert multiply_adds(layer, x) == (ENCODER, 2 * ENCODER - 2 * 5 * 3 * 32 * 32)
    for without_gradients in (torch.no_grad(), torch.inference_mode()):
        with without_gradients, FlopCounter() as counter:
            layer(x)
        assert counter.flops == 2 * ENCODER


def test_the_fused_transformer_layer_is_there_again_afterwards() -> None:
    with FlopCounter(), FlopCounter():
        assert not torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.mha.get_fastpath_enabled()


def test_attention_over_another_sequence() -> None:
    layer = nn.MultiheadAttention(32, 4, kdim=16, vdim=8, dropout=0.1, batch_first=True)
    by_hand = 2 * (5 * 32 * 32 + 7 * 16 * 32 + 7 * 8 * 32 + 2 * 5 * 7 * 32 + 5 * 32 * 32)
    key, value = torch.randn(2, 7, 16), torch.randn(2, 7, 8)
    for weights in (True, False):
        found = multiply_adds(
            lambda x, weights=weights: layer(x, key, value, need_weights=weights)[0], torch.randn(2, 5, 32)
        )
        assert found[0] == by_hand


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.long()) @ self.table.weight.T


PRODUCTS = {
    "linear": (nn.Linear(6, 4), (3, 6), (72, 72)),
    "linear over a sequence": (nn.Linear(6, 4, bias=False), (3, 5, 6), (360, 360)),
    "bilinear": (Wrapped(nn.Bilinear(4, 5, 6), lambda b, x: b(x[:, :4], x[:, 4:])), (3, 9), (360, 360)),
    "embedding": (Wrapped(nn.Embedding(9, 4), lambda e, x: e(x.long())), (3, 5), (0, 0)),
    "bag of embeddings": (Wrapped(nn.EmbeddingBag(9, 4), lambda e, x: e(x.long())), (3, 5), (0, 0)),
    "tied embedding": (Tied(), (3, 5), (15 * 36, 2 * 15 * 36)),
    "normalised": (nn.Sequential(nn.BatchNorm1d(6), nn.GELU(), nn.LayerNorm(6)), (3, 6), (0, 0)),
    "one after another": (nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 5)), (3, 6), (132, 192)),
    "frozen below": (nn.Sequential(frozen(nn.Linear(6, 4)), nn.Linear(4, 5)), (3, 6), (132, 60)),
    "frozen above": (nn.Sequential(nn.Linear(6, 4), frozen(nn.Linear(4, 5))), (3, 6), (132, 132)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_other_layers(name: str) -> None:
    layer, shape, by_hand = PRODUCTS[name]
    assert multiply_adds(layer, torch.zeros(shape)) == by_hand


W = torch.randn(3, 4, 5, requires_grad=True)


@pytest.mark.parametrize(
    ("function", "shape", "by_hand"),
    [
        (lambda x: x @ W, (3, 2, 4), (120, 120)),
        (lambda x: torch.bmm(x, W), (3, 2, 4), (120, 120)),
        (lambda x: torch.baddbmm(torch.zeros(3, 2, 5), x, W), (3, 2, 4), (120, 120)),
        (lambda x: torch.addbmm(torch.zeros(2, 5), x, W), (3, 2, 4), (120, 120)),
        (lambda x: torch.einsum("bij,bjk->bik", x, W), (3, 2, 4), (120, 120)),
        (lambda x: torch.tensordot(x, W, dims=([0, 2], [0, 1])), (3, 2, 4), (120, 120)),
        (lambda x: x.to_sparse() @ W[0], (3, 4), (0, 0)),
        (lambda x: torch.sparse.mm(torch.eye(4).to_sparse(), W[0]) + x[:4], (4, 5), (20, 20)),
        (lambda x: torch.cdist(x.requires_grad_(), W[0, :, :4]), (30, 4), (480, 960)),
        (lambda x: torch.cdist(x.requires_grad_(), W[0, :, :4]), (3, 4), (48, 96)),
        (lambda x: W[0] @ x, (5,), (20, 0)),  # the gradient, an outer product, adds nothing up
    ],
)
def test_products(
    function: Callable[[Tensor], Tensor], shape: tuple[int, ...], by_hand: tuple[int, int]
) -> None:
    assert multiply_adds(function, torch.zeros(shape)) == by_hand


def test_a_complex_multiply_add_is_four() -> None:
    z = torch.randn(3, 4, dtype=torch.complex64)
    with FlopCounter() as counter:
        z @ z.T
    assert counter.flops == 8 * 36


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_segment_runs_twice(reentrant: bool) -> None:
    segment = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 6), nn.ReLU())
    x = torch.randn(3, 6, requires_grad=True)
    forward, backward = multiply_adds(lambda x: checkpoint(segment, x, use_reentrant=reentrant), x)
    assert (forward, backward) == (144, 3 * 144)


def test_reduced_precision_counts_the_same() -> None:
    model = nn.Sequential(nn.Conv1d(8, 8, 1), nn.GRU(5, 6, batch_first=True))
    x = torch.randn(2, 8, 5)
    plain = multiply_adds(first(model), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert multiply_adds(first(model), x) == plain


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_operators_of_a_tensor_class_count_as_what_they_are_made_of() -> None:
    ragged = torch.nested.nested_tensor([torch.randn(3, 6), torch.randn(2, 6)], layout=torch.jagged)
    assert multiply_adds(lambda x: nn.Linear(6, 4)(x).values(), ragged) == (5 * 24, 5 * 24)


def depthwise_separable() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU6()),
        *(nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 16, 1)),
        *(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(16), nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 5)),
    )


def test_work_is_that_of_one_example() -> None:
    stem, depthwise, pointwise, head = 64 * 27 * 8, 64 * 9 * 8, 64 * 8 * 16, 16 * 5
    work = measure_work(depthwise_separable(), (torch.zeros(1, 3, 16, 16),), functional.cross_entropy)
    assert work.flops_per_example == 2 * (2 * stem + 3 * (depthwise + pointwise + head))


@pytest.mark.filterwarnings("ignore:TF32")
def test_the_work_of_a_recurrent_model_does_not_depend_on_dropout_or_kernels() -> None:
    def flops(dropout: float) -> float:
        model = nn.Sequential(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True),
            first(nn.LSTM(8, 6, num_layers=2, dropout=dropout, batch_first=True)),
            *(nn.Flatten(), nn.Linear(30, 3)),
        )
        return measure_work(model, (torch.zeros(1, 5, 8),), functional.cross_entropy).flops_per_example

    assert flops(0.0) == flops(0.5) > 0
    with torch.backends.mkldnn.flags(enabled=False):
        assert flops(0.5) == flops(0.0)


class Spectral(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.fft.rfft(x).abs())


def test_an_operator_without_a_formula_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            work = measure_work(Spectral(4, 2), (torch.zeros(1, 6),), functional.cross_entropy)
    assert [record.getMessage() for record in caplog.records] == [
        "the FLOPs of aten::_fft_r2c are not counted: there is no formula for them"
    ]
    assert work.flops_per_example == 2 * 2 * 8


def test_operators_that_move_add_or_compare_have_no_need_of_a_formula() -> None:
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    with FlopCounter() as counter:
        up = functional.interpolate(x, scale_factor=2, mode="bilinear")
        y = functional.pixel_shuffle(functional.max_pool2d(up, 2), 2).softmax(-1).cumsum(0).roll(1, 2)
        (y.norm() + torch.lgamma(y + 1).std() + y.sort().values.amax() + y.unfold(2, 2, 1).mean()).backward()
    assert (counter.flops, counter.uncounted) == (0, set())


def test_operators_of_others_are_named() -> None:
    library = torch.library.Library("flops_test", "DEF")
    library.define("squared(Tensor x) -> Tensor")
    library.impl("squared", lambda x: x @ x, "CPU")
    with FlopCounter() as counter:
        torch.ops.flops_test.squared(torch.ones(3, 3))
    assert counter.uncounted == {"flops_test::squared"}


def test_a_condition_is_named_and_does_not_fail() -> None:
    with FlopCounter() as counter, torch.no_grad():
        torch.cond(torch.tensor(True), lambda x: (x + 1,), lambda x: (x - 1,), (torch.ones(2),))
    assert counter.uncounted == {"cond"}
