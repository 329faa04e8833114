"""What is found in layers outside the plain path, and what is rightly left whole."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from slimfleet.compression.pruning import ChannelGroup, index_map
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import load_tensors, schema_of, tensors_of


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.out = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv(x).chunk(2, dim=1)
        return self.out((value * torch.sigmoid(gate)).mean(dim=(2, 3)))


class Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 4, 3)
        self.right = nn.Conv2d(1, 6, 3)
        self.conv = nn.Conv2d(10, 5, 3)
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], dim=1)
        return self.out(torch.relu(self.conv(x)).amax(dim=(2, 3)))


class ConvolutionalRecurrent(nn.Module):
    """A convolution over time, read by one recurrent layer, read by another."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 6, 3, padding=1)
        self.below = nn.GRU(6, 8, batch_first=True, bidirectional=True)
        self.above = nn.LSTM(16, 5, batch_first=True)
        self.norm = nn.BatchNorm1d(5)
        self.out = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).transpose(1, 2)
        states, _ = self.above(self.below(x)[0])
        return self.out(self.norm(states.amax(dim=1)))


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 6, batch_first=True)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, torch.full((len(x),), x.shape[1]), batch_first=True)
        states, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return self.out(states.mean(dim=1))


class OwnBlock(nn.Module):
    """A Transformer block written by hand: torch's attention, an MLP of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, kdim=3, vdim=3, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(12, 8)
        self.embed = nn.Linear(3, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.embed(x)
        y = y + self.attention(y, x, x)[0]
        return y + self.down(torch.nn.functional.gelu(self.up(self.norm(y))))


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(8, 4, 16)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.layer(x, memory)


class Added(nn.Module):
    """Two hidden states share their units by a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.GRU(3, 6, batch_first=True)
        self.b = nn.GRU(3, 6, batch_first=True)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.a(x)[0] + self.b(x)[0])


class SelfAttending(nn.Module):
    """Hidden states meet each other in dot products."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 6, batch_first=True)
        self.out = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        states = self.rnn(x)[0]
        return self.out(torch.softmax(states @ states.transpose(1, 2), dim=-1) @ states)


class Tied(nn.Module):
    """Two layers with one weight read the same units, and stay tied."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(3, 6)
        self.a = nn.Linear(6, 2)
        self.b = nn.Linear(6, 2)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        units = torch.relu(self.encode(x))
        return self.a(units) + self.b(units).square()


class Repeated(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))


def image(channels: int) -> tuple[Tensor, ...]:
    return (torch.linspace(-1, 1, channels * 64).reshape(1, channels, 8, 8).repeat(2, 1, 1, 1),)


def sequence(features: int) -> tuple[Tensor, ...]:
    return (torch.linspace(-1, 1, 2 * 7 * features).reshape(2, 7, features),)


def conv_then(*middle: nn.Module, out: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), *middle, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(out, 2)
    )


FOUND: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], dict[str, int]]] = {
    "depthwise": (
        lambda: conv_then(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 6, 1), out=6),
        image(1),
        {"0": 8, "3": 6},
    ),
    "depthwise that doubles": (lambda: conv_then(nn.Conv2d(8, 16, 3, groups=8), out=16), image(1), {"0": 8}),
    "grouped": (lambda: conv_then(nn.Conv2d(8, 12, 3, groups=4), out=12), image(1), {"0": 4}),
    "transposed": (lambda: conv_then(nn.ConvTranspose2d(8, 6, 3), out=6), image(1), {"0": 8, "1": 6}),
    "group norm": (lambda: conv_then(nn.GroupNorm(4, 8), nn.ReLU()), image(1), {"0": 4}),
    "instance norm": (lambda: conv_then(nn.InstanceNorm2d(8, affine=True), nn.PReLU(8)), image(1), {"0": 8}),
    "gate made by chunk": (Gated, image(1), {"conv": 4}),
    "concatenation": (Concatenated, image(1), {"left": 4, "right": 6, "conv": 5}),
    "recurrent on convolution": (
        ConvolutionalRecurrent,
        (torch.linspace(-1, 1, 42).reshape(2, 3, 7),),
        {"conv": 6, "below": 8, "above": 5},
    ),
    "packed sequence": (Packed, sequence(3), {"rnn": 6}),
    "hand-written block": (OwnBlock, sequence(3), {"attention": 2, "up": 12}),
    "decoder": (
        Decoder,
        (torch.linspace(-1, 1, 48).reshape(3, 2, 8), torch.linspace(1, -1, 64).reshape(4, 2, 8)),
        {"layer.self_attn": 4, "layer.multihead_attn": 4, "layer.linear1": 16},
    ),
    "sum of hidden states": (Added, sequence(3), {"a": 6}),
    "dot products of hidden states": (SelfAttending, sequence(3), {"rnn": 6}),
    "layer norm": (
        lambda: nn.Sequential(nn.Linear(3, 8), nn.LayerNorm(8), nn.Linear(8, 2)),
        sequence(3),
        {"0": 8},
    ),
    "embedding": (
        lambda: nn.Sequential(nn.Embedding(5, 8), nn.ReLU(), nn.Linear(8, 2)),
        (torch.tensor([[0, 1]]),),
        {"0": 8},
    ),
    "a layer under two names": (Repeated, sequence(4), {"first.self_attn": 2, "first.linear1": 6}),
    "tied parameters": (Tied, sequence(3), {"encode": 6}),
}


@pytest.mark.parametrize("case", FOUND)
def test_groups_found_and_exact(case: str) -> None:
    build, inputs, expected = FOUND[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().eval()
    groups = discover(model, inputs).groups
    assert {group.name: group.size for group in groups} == expected
    rng = np.random.default_rng(1)
    channels = {g.name: np.sort(rng.permutation(g.size)[: g.size // 2]) for g in groups}
    kept = index_map(schema_of(model), groups, channels)
    small = shrink_model(model, kept)
    zeroed = shrink_model(model, index_map(kept.full, groups, {}))
    load_tensors(zeroed, kept.expand(kept.shrink(tensors_of(model))))
    torch.testing.assert_close(small(*inputs), zeroed(*inputs), rtol=1e-4, atol=1e-5)
    small.train()
    small(*inputs).sum().backward()


class Returned(nn.Module):
    """The hidden state is the output."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(3, 6, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


class Rotated(nn.Module):
    """Units are read in another order in each half of the sequence, without any bias to see it by."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(3, 6, bias=False)
        self.down = nn.Linear(6, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        units = torch.relu(self.up(x))
        return self.down(torch.cat([units[:, :3], units[:, 3:].roll(1, dims=2)], dim=1))


WHOLE: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "a single layer": (lambda: nn.Linear(3, 4), sequence(3)),
    "the model is recurrent": (Returned, sequence(3)),
    "units in another order, zeros for input": (Rotated, (torch.zeros(1, 7, 3),)),
    "group norm without parameters": (lambda: conv_then(nn.GroupNorm(4, 8, affine=False)), image(1)),
}


@pytest.mark.parametrize("case", WHOLE)
def test_what_cannot_shrink_is_left_whole(case: str) -> None:
    build, inputs = WHOLE[case]
    assert discover(build(), inputs).groups == ()


def test_a_flattened_convolution_over_time_owns_a_block_of_columns() -> None:
    model = nn.Sequential(
        nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(30, 8), nn.ReLU(), nn.Linear(8, 2)
    )
    groups = discover(model, (torch.zeros(1, 3, 7),)).groups
    assert [group.name for group in groups] == ["0", "3"]
    assert members(groups[0])["3.weight", 1] == np.arange(30).reshape(6, 5).tolist()


def test_group_norm_keeps_the_size_of_its_groups() -> None:
    model = conv_then(nn.GroupNorm(4, 8), nn.ReLU())
    groups = discover(model, image(1)).groups
    small = shrink_model(model, index_map(schema_of(model), groups, {"0": np.array([1, 2, 3])}))
    norm = small.get_submodule("1")
    assert isinstance(norm, nn.GroupNorm)
    assert (norm.num_groups, norm.num_channels) == (3, 6)


def test_grouped_convolution_loses_whole_groups() -> None:
    model = conv_then(nn.Conv2d(8, 12, 3, groups=4), out=12)
    groups = discover(model, image(1)).groups
    small = shrink_model(model, index_map(schema_of(model), groups, {"0": np.array([0, 3])}))
    conv = small.get_submodule("1")
    assert isinstance(conv, nn.Conv2d)
    assert (conv.groups, conv.in_channels, conv.out_channels) == (2, 4, 6)


def members(group: ChannelGroup) -> dict[tuple[str, int], list[list[int]]]:
    return {(m.tensor, m.dim): m.positions.tolist() for m in group.members}


def test_a_recurrent_unit_owns_its_rows_in_every_gate_layer_and_direction() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn = nn.LSTM(2, 2, num_layers=2, bidirectional=True)
            self.out = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.rnn(x)[0][-1])

    (group,) = discover(Model(), (torch.zeros(5, 1, 2),)).groups
    owned = members(group)
    assert owned["rnn.weight_hh_l1_reverse", 0] == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert owned["rnn.weight_hh_l1_reverse", 1] == [[0], [1]]
    assert owned["rnn.weight_ih_l1", 1] == [[0, 2], [1, 3]]
    assert ("rnn.weight_ih_l0", 1) not in owned
    assert owned["out.weight", 1] == [[0, 2], [1, 3]]
    assert ("out.weight", 0) not in owned


def test_a_head_owns_its_query_key_and_value_rows() -> None:
    model = nn.TransformerEncoderLayer(4, 2, 3, batch_first=True)
    heads, mlp = discover(model, (torch.zeros(1, 3, 4),)).groups
    assert members(heads) == {
        ("self_attn.in_proj_weight", 0): [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]],
        ("self_attn.in_proj_bias", 0): [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]],
        ("self_attn.out_proj.weight", 1): [[0, 1], [2, 3]],
    }
    assert members(mlp) == {
        ("linear1.weight", 0): [[0], [1], [2]],
        ("linear1.bias", 0): [[0], [1], [2]],
        ("linear2.weight", 1): [[0], [1], [2]],
    }


def test_a_flattened_channel_owns_a_block_and_batch_norm_its_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    (group,) = discover(model, (torch.zeros(1, 1, 4, 4),)).groups
    owned = members(group)
    assert owned["3.weight", 1] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    for tensor in ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"):
        assert owned[tensor, 0] == [[0], [1], [2]]
    assert not any(tensor == "1.num_batches_tracked" for tensor, _ in owned)
