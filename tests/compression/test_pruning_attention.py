"""SlimAttention against nn.MultiheadAttention with the removed heads silenced."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.pruning import ChannelGroup, index_map
from slimfleet.compression.pruning.attention import SlimAttention
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import schema_of, tensors_of


def seeded(build: type[nn.Module], *args: int, **kwargs: object) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return build(*args, **kwargs)


class Alone(nn.Module):
    """Attention whose weights are not an output."""

    def __init__(self, attention: nn.Module) -> None:
        super().__init__()
        self.attention = attention

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.attention(query, key, value)[0]


def heads_of(attention: nn.MultiheadAttention) -> tuple[ChannelGroup, ...]:
    sizes = (attention.embed_dim, attention.kdim, attention.vdim)
    return discover(Alone(attention), tuple(states(1, 3, size) for size in sizes)).groups


def slim_and_silenced(attention: nn.Module, heads: list[int]) -> tuple[nn.Module, nn.Module]:
    """The attention with only `heads`, and the full one whose other heads write nothing."""
    (group,) = heads_of(attention)
    model = Alone(attention)
    slim = shrink_model(model, index_map(schema_of(model), (group,), {"attention": np.array(heads)}))
    silenced = shrink_model(model, index_map(schema_of(model), (group,), {}))
    removed = np.setdiff1d(np.arange(group.size), heads)
    columns = next(m.positions for m in group.members if m.tensor.endswith("out_proj.weight"))[
        removed
    ].ravel()
    with torch.no_grad():
        silenced.get_parameter("attention.out_proj.weight")[:, columns] = 0
    return slim.get_submodule("attention"), silenced.get_submodule("attention")


def states(batch: int, length: int, features: int) -> Tensor:
    return torch.sin(torch.arange(batch * length * features).float()).reshape(batch, length, features)


CAUSAL = torch.ones(4, 4).triu(1).bool()
PADDED = torch.tensor([[False] * 4, [False, False, True, True], [False] * 3 + [True]])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "masks",
    [
        {},
        {"attn_mask": CAUSAL, "is_causal": True},
        {"attn_mask": CAUSAL.float() * -2},
        {"key_padding_mask": PADDED},
        {"attn_mask": CAUSAL, "key_padding_mask": PADDED},
    ],
)
def test_same_outputs_as_with_silent_heads(batch_first: bool, bias: bool, masks: dict[str, Tensor]) -> None:
    attention = seeded(nn.MultiheadAttention, 12, 4, bias=bias, batch_first=batch_first)
    slim, silenced = slim_and_silenced(attention, [0, 2, 3])
    x = states(3, 4, 12) if batch_first else states(3, 4, 12).transpose(0, 1)
    for need_weights in (False, True):
        got, _ = slim(x, x, x, need_weights=need_weights, **masks)
        expected, _ = silenced(x, x, x, need_weights=need_weights, **masks)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


def test_weights_are_those_of_the_heads_kept() -> None:
    attention = seeded(nn.MultiheadAttention, 12, 4, batch_first=True)
    slim, silenced = slim_and_silenced(attention, [1, 3])
    x = states(2, 5, 12)
    _, got = slim(x, x, x, average_attn_weights=False)
    _, expected = silenced(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(got, expected[:, [1, 3]])
    torch.testing.assert_close(slim(x, x, x)[1], expected[:, [1, 3]].mean(dim=1))


def test_separate_projections_and_unbatched_input() -> None:
    attention = seeded(nn.MultiheadAttention, 12, 4, kdim=5, vdim=6)
    slim, silenced = slim_and_silenced(attention, [2])
    query, key, value = states(1, 3, 12)[0], states(1, 7, 5)[0], states(1, 7, 6)[0]
    got, weights = slim(query, key, value, key_padding_mask=torch.arange(7) > 4)
    expected, _ = silenced(query, key, value, key_padding_mask=torch.arange(7) > 4)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert weights.shape == (3, 7)


def test_names_and_shapes_are_those_of_the_map() -> None:
    attention = seeded(nn.MultiheadAttention, 12, 4)
    model = Alone(attention)
    kept = index_map(schema_of(model), heads_of(attention), {"attention": np.array([1])})
    slim = shrink_model(model, kept)
    assert isinstance(slim.get_submodule("attention"), SlimAttention)
    assert schema_of(slim) == kept.schema
    assert list(tensors_of(slim)) == list(tensors_of(model))


@pytest.mark.parametrize("extra", ["add_bias_kv", "add_zero_attn"])
def test_attention_with_extra_positions_is_left_whole(extra: str) -> None:
    assert not heads_of(seeded(nn.MultiheadAttention, 12, 4, **{extra: True}))


def test_dropout_acts_in_training_only() -> None:
    slim, _ = slim_and_silenced(seeded(nn.MultiheadAttention, 12, 4, dropout=0.5, batch_first=True), [0, 1])
    x = states(1, 6, 12)
    assert not torch.equal(slim(x, x, x)[0], slim(x, x, x)[0])
    slim.eval()
    assert torch.equal(slim(x, x, x)[0], slim(x, x, x)[0])


def test_a_mask_for_each_head_is_refused() -> None:
    slim, _ = slim_and_silenced(seeded(nn.MultiheadAttention, 12, 4, batch_first=True), [0, 1])
    x = states(1, 4, 12)
    with pytest.raises(BadInput, match="mask for each head"):
        slim(x, x, x, attn_mask=torch.zeros(4, 4, 4))


def pruned_encoder(encoder: nn.Module) -> nn.Module:
    groups: tuple[ChannelGroup, ...] = discover(encoder, (states(1, 3, 12),)).groups
    halves = {group.name: np.arange(group.size // 2) for group in groups}
    return shrink_model(encoder, index_map(schema_of(encoder), groups, halves))


@pytest.mark.parametrize("padded", [False, True])
def test_an_encoder_computes_the_same_with_and_without_gradients(padded: bool) -> None:
    """Without gradients torch takes a fused kernel, and nested tensors for padding, unless told not to."""
    layer = seeded(nn.TransformerEncoderLayer, 12, 4, 8, batch_first=True, dropout=0.0)
    small = pruned_encoder(nn.TransformerEncoder(layer, 2))
    mask = {"src_key_padding_mask": PADDED} if padded else {}
    x = states(3, 4, 12)
    training = small(x, **mask)
    small.eval()
    with torch.no_grad():
        torch.testing.assert_close(small(x, **mask), training, rtol=1e-4, atol=1e-5)


def test_an_encoder_with_a_narrow_mlp_alone_keeps_the_fused_kernel_right() -> None:
    layer = seeded(nn.TransformerEncoderLayer, 12, 4, 8, batch_first=True, dropout=0.0)
    groups = discover(layer, (states(1, 3, 12),)).groups
    small = shrink_model(layer, index_map(schema_of(layer), groups, {"linear1": np.array([1, 4])}))
    x = states(3, 4, 12)
    training = small(x)
    small.eval()
    with torch.no_grad():
        torch.testing.assert_close(small(x), training, rtol=1e-4, atol=1e-5)
