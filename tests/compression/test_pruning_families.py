"""The three families end to end: found groups, models that really shrink, and the same function."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimfleet.compression.pruning import ChannelGroup, IndexMap, index_map, select_channels
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.tensors import load_tensors, schema_of, tensors_of


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(x)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.block = Residual(8)
        self.conv = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(12 * 16, 20)
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(torch.relu(self.norm(self.stem(x))))
        x = torch.relu(self.conv(x)).flatten(1)
        return self.fc2(torch.relu(self.fc1(x)))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.GRU] | type[nn.LSTM], bidirectional: bool, read: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 6)
        self.rnn = kind(6, 10, num_layers=2, bidirectional=bidirectional, batch_first=True)
        self.head = nn.Linear({"last": 10, "state": 10, "all": 50}[read] * (1 + bidirectional), 4)
        self.read = read

    def forward(self, x: Tensor) -> Tensor:
        states, final = self.rnn(self.embed(x))
        final = final[0] if isinstance(final, tuple) else final
        if self.read == "last":
            return self.head(states[:, -1])
        if self.read == "all":
            return self.head(states.flatten(1))
        directions = 1 + self.rnn.bidirectional
        return self.head(torch.cat([final[-i] for i in range(directions, 0, -1)], dim=1))


class Transformer(nn.Module):
    def __init__(self, norm_first: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 16)
        self.position = nn.Parameter(torch.randn(1, 5, 16))
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=norm_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x) + self.position).mean(dim=1))


def tokens(batch: int) -> Tensor:
    return torch.arange(batch * 5).reshape(batch, 5) % 30


def images(batch: int) -> Tensor:
    return torch.linspace(-1, 1, batch * 64).reshape(batch, 1, 8, 8)


TRANSFORMER = {
    "embed": 16,
    **{f"encoder.layers.{i}.{g}": n for i in range(2) for g, n in (("self_attn", 4), ("linear1", 24))},
}

FAMILIES: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor], dict[str, int]]] = {
    "cnn": (Convolutional, images, {"stem": 8, "block.conv1": 8, "conv": 12, "fc1": 20}),
    "gru": (lambda: Recurrent(nn.GRU, False, "last"), tokens, {"embed": 6, "rnn": 10}),
    "bidirectional gru": (lambda: Recurrent(nn.GRU, True, "state"), tokens, {"embed": 6, "rnn": 10}),
    "lstm": (lambda: Recurrent(nn.LSTM, False, "state"), tokens, {"embed": 6, "rnn": 10}),
    "bidirectional lstm": (lambda: Recurrent(nn.LSTM, True, "all"), tokens, {"embed": 6, "rnn": 10}),
    "transformer": (
        Transformer,
        tokens,
        TRANSFORMER,
    ),
    "transformer, norm first": (
        lambda: Transformer(norm_first=True),
        tokens,
        TRANSFORMER,
    ),
}

Built = tuple[nn.Module, Callable[[int], Tensor], tuple[ChannelGroup, ...]]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Built:
    build, batch, expected = FAMILIES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build()
    # Batch statistics and biases that are not at their neutral start.
    rng = np.random.default_rng(4)
    load_tensors(
        model,
        {
            name: (array + rng.uniform(0.1, 0.5, array.shape)).astype(array.dtype)
            if array.ndim == 1
            else array
            for name, array in tensors_of(model).items()
        },
    )
    before = tensors_of(model)
    random_state = torch.random.get_rng_state()
    groups = discover(model, (batch(1),)).groups
    assert {group.name: group.size for group in groups} == expected
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), random_state)
    for name, array in tensors_of(model).items():
        np.testing.assert_array_equal(array, before[name])
    return model, batch, groups


def scattered(groups: tuple[ChannelGroup, ...], share: float, seed: int) -> dict[str, NDArray[np.intp]]:
    rng = np.random.default_rng(seed)
    return {g.name: np.sort(rng.permutation(g.size)[: max(1, int(share * g.size))]) for g in groups}


def shrunk(model: nn.Module, kept: IndexMap) -> nn.Module:
    small = shrink_model(model, kept)
    assert schema_of(small) == kept.schema
    for name, array in kept.shrink(tensors_of(model)).items():
        np.testing.assert_array_equal(tensors_of(small)[name], array)
    return small


@pytest.mark.parametrize("width", [0.75, 0.5, 0.25, 0.01])
def test_a_narrow_model_trains_and_is_smaller(family: Built, width: float) -> None:
    model, batch, groups = family
    kept = index_map(schema_of(model), groups, select_channels(groups, width, "rolling", 3))
    small = shrunk(model, kept)
    parameters = sum(p.numel() for p in small.parameters())
    assert parameters < sum(p.numel() for p in model.parameters())
    small.train()
    small(batch(4)).square().mean().backward()
    for name, parameter in small.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.shape == parameter.shape
        assert bool(parameter.grad.isfinite().all())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_removed_channels_are_channels_at_zero(family: Built, seed: int) -> None:
    model, batch, groups = family
    kept = index_map(schema_of(model), groups, scattered(groups, 0.5, seed))
    small = shrunk(model, kept).eval()
    zeroed = shrink_model(model, index_map(kept.full, groups, {})).eval()
    load_tensors(zeroed, kept.expand(kept.shrink(tensors_of(model))))
    with torch.no_grad():
        assert model.eval()(batch(3)).sub(small(batch(3))).abs().max() > 1e-3
        torch.testing.assert_close(small(batch(3)), zeroed(batch(3)), rtol=1e-4, atol=1e-5)
    model.train()


def test_full_width_is_the_identity(family: Built) -> None:
    model, batch, groups = family
    kept = index_map(schema_of(model), groups, select_channels(groups, 1.0, "prefix"))
    same = shrunk(model, kept).eval()
    assert kept.schema == kept.full
    assert repr(same) == repr(model.eval())
    with torch.no_grad():
        assert torch.equal(same(batch(2)), model(batch(2)))
    model.train()


def test_expand_restores_kept_positions_and_leaves_zero_elsewhere(family: Built) -> None:
    model, _, groups = family
    full = tensors_of(model)
    kept = index_map(schema_of(model), groups, scattered(groups, 0.5, 5))
    back = kept.expand(kept.shrink(full))
    ones = kept.expand({name: np.ones(shape) for name, shape in kept.shapes.items()})
    for name, array in full.items():
        np.testing.assert_array_equal(back[name], np.where(ones[name] == 1, array, 0))


def test_no_position_belongs_to_two_channels(family: Built) -> None:
    _, _, groups = family
    owned: dict[tuple[str, int], list[int]] = {}
    for group in groups:
        for member in group.members:
            owned.setdefault((member.tensor, member.dim), []).extend(member.positions.ravel().tolist())
    assert all(len(set(positions)) == len(positions) for positions in owned.values())


def test_a_shrunk_model_shrinks_nothing_of_the_one_it_came_from(family: Built) -> None:
    model, _, groups = family
    before = tensors_of(model)
    small = shrink_model(model, index_map(schema_of(model), groups, select_channels(groups, 0.5, "prefix")))
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(1)
    for name, array in tensors_of(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_training_narrow_models_covers_the_full_one() -> None:
    """Two devices train other halves; each element is averaged over the devices that hold it."""
    model = Recurrent(nn.GRU, False, "last")
    groups = discover(model, (tokens(1),)).groups
    schema = schema_of(model)
    halves = [index_map(schema, groups, {"rnn": np.arange(start, start + 6)}) for start in (0, 4)]
    total = {name: np.zeros(array.shape) for name, array in tensors_of(model).items()}
    counts = {name: np.zeros(array.shape) for name, array in tensors_of(model).items()}
    for value, (kept, weight) in enumerate(zip(halves, (1, 3), strict=True), start=1):
        update = {name: np.full(shape, float(value * weight)) for name, shape in kept.shapes.items()}
        kept.add_into(total, update)
        kept.add_scalar(counts, weight)
    columns = total["head.weight"][0] / counts["head.weight"][0]
    np.testing.assert_array_equal(columns, [1, 1, 1, 1, 1.75, 1.75, 2, 2, 2, 2])
    # A recurrent weight between a unit of the first half alone and one of the second alone is held by no device.
    assert counts["rnn.weight_hh_l0"][0, 9] == 0
    assert counts["rnn.weight_hh_l0"][5, 4] == 4
