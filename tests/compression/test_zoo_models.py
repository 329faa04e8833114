"""Small models of the kinds that phones run: half the width is half the channels, the same function, and it trains.

`make bench-zoo` tries the models themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from models_zoo.hand_count import training_flops
from models_zoo.ours import error, halved
from torch import Tensor, nn
from torch.nn import functional as F

from slimfleet.compression.cost import measure_work
from slimfleet.compression.pruning import Discovery
from slimfleet.compression.pruning.discover import discover
from slimfleet.compression.pruning.nested import tensors_in

CLASSES = 5


def convolution(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class SqueezedSeparable(nn.Module):
    """Expand, filter each channel, weigh the channels, project, add: MobileNetV3, EfficientNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = convolution(3, width)
        self.expand = convolution(width, 4 * width, 1)
        self.depthwise = convolution(4 * width, 4 * width, 5, groups=4 * width)
        self.squeeze = nn.Sequential(nn.Conv2d(4 * width, width, 1), nn.SiLU())
        self.excite = nn.Sequential(nn.Conv2d(width, 4 * width, 1), nn.Hardsigmoid())
        self.project = nn.Sequential(nn.Conv2d(4 * width, width, 1, bias=False), nn.BatchNorm2d(width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(self.expand(x))
        y = y * self.excite(self.squeeze(y.mean((2, 3), keepdim=True)))
        return self.head((x + self.project(y)).mean((2, 3)))


class Shuffled(nn.Module):
    """Half of the channels pass by, the other half is filtered, both are interleaved: ShuffleNetV2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.stem = convolution(3, width)
        self.branches = nn.ModuleList(
            nn.Sequential(
                convolution(half, half, 1),
                convolution(half, half, 3, groups=half),
                convolution(half, half, 1),
            )
            for _ in range(2)
        )
        self.last = convolution(width, 2 * width, 1)
        self.head = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            passing, filtered = x.chunk(2, dim=1)
            both = torch.cat([passing, branch(filtered)], dim=1)
            batch, channels, height, width = both.shape
            x = (
                both.view(batch, 2, channels // 2, height, width)
                .transpose(1, 2)
                .reshape(batch, channels, height, width)
            )
        return self.head(self.last(x).mean((2, 3)))


class Dense(nn.Module):
    """Every layer reads the outputs of all before it: DenseNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        widths = [width * i for i in range(1, 4)]
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, width, 3, padding=1, bias=False))
            for n in widths
        )
        self.transition = nn.Sequential(
            nn.BatchNorm2d(4 * width), nn.ReLU(), nn.Conv2d(4 * width, 2 * width, 1)
        )
        self.head = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        features = [self.stem(x)]
        for layer in self.layers:
            features.append(layer(torch.cat(features, dim=1)))
        return self.head(F.avg_pool2d(self.transition(torch.cat(features, dim=1)), 2).mean((2, 3)))


class Bottleneck(nn.Module):
    """Narrow, grouped filter, wide, plus a shortcut of its own: ResNeXt, RegNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = convolution(3, width)
        self.body = nn.Sequential(
            convolution(width, 2 * width, 1),
            convolution(2 * width, 2 * width, 3, stride=2, groups=width // 2),
            *(nn.Conv2d(2 * width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1, 2, bias=False), nn.BatchNorm2d(4 * width)
        )
        self.head = nn.Linear(4 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.relu(self.body(x) + self.shortcut(x)).mean((2, 3)))


class Branches(nn.Module):
    """Filters of several sizes side by side, and a head of its own in the middle while training: GoogLeNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = convolution(3, width)
        self.small = convolution(width, width, 1)
        self.large = nn.Sequential(convolution(width, width // 2, 1), convolution(width // 2, width, 5))
        self.pooled = convolution(width, width, 1)
        self.auxiliary = nn.Sequential(
            convolution(3 * width, width, 1), nn.Flatten(), nn.Linear(64 * width, CLASSES)
        )
        self.last = convolution(3 * width, 2 * width)
        self.head = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = F.max_pool2d(self.stem(x), 2)
        x = torch.cat([self.small(x), self.large(x), self.pooled(F.max_pool2d(x, 3, 1, 1))], dim=1)
        logits = self.head(self.last(x).mean((2, 3)))
        return (logits, self.auxiliary(x)) if self.training else logits


class ScaledBlocks(nn.Module):
    """Depthwise filter, layer norm over channels, MLP, layer scale: ConvNeXt."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))
        self.last = nn.LayerNorm(width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(F.gelu(self.up(y)))
        return self.head(self.last((x + y.permute(0, 3, 1, 2)).mean((2, 3))))


class FusedAttention(nn.Module):
    """One matrix for queries, keys and values, heads taken apart by reshape and permute: ViT, DeiT."""

    HEAD = 8

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // self.HEAD
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.position
        x = x + self.attend(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return self.head(x[:, 0])

    def attend(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*qkv.unbind(0))
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, -1))


class Windows(nn.Module):
    """Attention in shifted windows with a learned bias, then four neighbours merged into one: Swin."""

    HEAD, SIDE = 8, 2

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = width // self.HEAD
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(self.heads, self.SIDE**2, self.SIDE**2))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norm3 = nn.LayerNorm(4 * width)
        self.merge = nn.Linear(4 * width, 2 * width, bias=False)
        self.head = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        x = x + self.attend(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        corners = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.head(self.merge(self.norm3(torch.cat(corners, dim=-1))).mean((1, 2)))

    def attend(self, x: Tensor) -> Tensor:
        batch, height, width, channels = x.shape
        side = self.SIDE
        x = torch.roll(x, (-1, -1), (1, 2)).view(batch, height // side, side, width // side, side, channels)
        x = x.permute(0, 1, 3, 2, 4, 5).reshape(-1, side**2, channels)
        query, key, value = (
            self.qkv(x).reshape(len(x), side**2, 3, self.heads, self.HEAD).permute(2, 0, 3, 1, 4)
        )
        weights = (query * self.HEAD**-0.5) @ key.transpose(-2, -1) + self.bias
        x = (weights.softmax(-1) @ value).transpose(1, 2).reshape(len(x), side**2, -1)
        x = self.proj(x).view(batch, height // side, width // side, side, side, channels)
        return torch.roll(x.permute(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels), (1, 1), (1, 2))


class HandWritten(nn.Module):
    """Causal attention spelled out, queries, keys and values split from one matrix: GPT."""

    HEAD = 8

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads, self.width = width // self.HEAD, width
        self.words, self.places = nn.Embedding(30, width), nn.Embedding(12, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.head = nn.Linear(width, CLASSES, bias=False)
        self.register_buffer("mask", torch.tril(torch.ones(12, 12)).view(1, 1, 12, 12))

    def forward(self, x: Tensor) -> Tensor:
        x = self.words(x) + self.places(torch.arange(x.shape[1]))
        x = x + self.attend(self.norm1(x))
        x = x + self.down(F.gelu(self.up(self.norm2(x))))
        return self.head(self.norm3(x)).transpose(1, 2)

    def attend(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        query, key, value = (
            t.view(batch, length, self.heads, self.HEAD).transpose(1, 2)
            for t in self.read(x).split(self.width, dim=2)
        )
        weights = query @ key.transpose(-2, -1) / self.HEAD**0.5
        weights = weights.masked_fill(self.mask[:, :, :length, :length] == 0, float("-inf"))
        return self.write((weights.softmax(-1) @ value).transpose(1, 2).contiguous().view(batch, length, -1))


class Mixer(nn.Module):
    """MLPs over places and over channels in turn: MLP-Mixer, ResMLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, 4)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.places = nn.Sequential(nn.Linear(16, width), nn.GELU(), nn.Linear(width, 16))
        self.channels = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = x + self.places(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.channels(self.norm2(x))).mean(1))


class UNet(nn.Module):
    """Down and up again with a transposed convolution; what was before goes around: U-Net."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before = convolution(3, width)
        self.below = convolution(width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.after = convolution(2 * width, width)
        self.head = nn.Conv2d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.head(self.after(torch.cat([x, self.up(self.below(F.max_pool2d(x, 2)))], dim=1)))


class Tagger(nn.Module):
    """A class for each word: embedding, GRU one way, LSTM both ways."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(30, 4)
        self.first = nn.GRU(4, width, batch_first=True)
        self.second = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(self.embed(x))[0])[0]).transpose(1, 2)


class Gated(nn.Module):
    """Dilated filters with a gate, summed into the next and into the output: WaveNet."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv1d(3, width, 1)
        self.filters = nn.ModuleList(nn.Conv1d(width, 2 * width, 3, padding=d, dilation=d) for d in (1, 2))
        self.residual = nn.Conv1d(width, width, 1)
        self.skips = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(2))
        self.last = nn.Sequential(nn.ReLU(), nn.Conv1d(width, CLASSES, 1))

    def forward(self, x: Tensor) -> Tensor:
        x, out = self.first(x), []
        for both, skip in zip(self.filters, self.skips, strict=True):
            value, gate = both(x).chunk(2, dim=1)
            y = torch.tanh(value) * torch.sigmoid(gate)
            out.append(skip(y))
            x = x + self.residual(y)
        return self.last(x + torch.stack(out).sum(0))


class Pyramid(nn.Module):
    """Features of several sizes brought to one width, summed from the top down, one output each, in a dict: FPN."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList([convolution(3, width, 3, 2), convolution(width, 2 * width, 3, 2)])
        self.laterals = nn.ModuleList([nn.Conv2d(width, width, 1), nn.Conv2d(2 * width, width, 1)])
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.head = nn.Conv2d(width, CLASSES, 3, padding=1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fine = self.stages[0](x)
        coarse = self.stages[1](fine)
        top = self.laterals[1](coarse)
        below = self.laterals[0](fine) + F.interpolate(top, scale_factor=2.0, mode="nearest")
        return {
            name: self.head(s(y))
            for name, s, y in zip(("fine", "coarse"), self.smooth, (below, top), strict=True)
        }


def images() -> tuple[Tensor, ...]:
    return (torch.linspace(-1, 1, 3 * 256).reshape(1, 3, 16, 16),)


def words() -> tuple[Tensor, ...]:
    return (torch.arange(12).reshape(1, 12),)


def sounds() -> tuple[Tensor, ...]:
    return (torch.linspace(-1, 1, 3 * 20).reshape(1, 3, 20),)


KINDS: dict[type[nn.Module], Callable[[], tuple[Tensor, ...]]] = {
    SqueezedSeparable: images,
    Shuffled: images,
    Dense: images,
    Bottleneck: images,
    Branches: images,
    ScaledBlocks: images,
    FusedAttention: images,
    Windows: images,
    HandWritten: words,
    Mixer: images,
    UNet: images,
    Tagger: words,
    Gated: sounds,
    Pyramid: images,
}
WIDTH = 32
STILL = {Shuffled: 0.61, Mixer: 0.59}
"""Shares of the kinds that keep more than a model which is built narrower.

Interleaving ties a channel that passes by to others, block after block until none is left to remove alone. An MLP over
places has biases, with which a channel at zero does not stay there. Inside both, half of the units go.
"""


@dataclass(frozen=True)
class Case:
    kind: type[nn.Module]
    model: nn.Module
    inputs: tuple[Tensor, ...]
    found: Discovery


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.__name__)
def case(request: pytest.FixtureRequest) -> Case:
    kind, inputs = request.param, KINDS[request.param]()
    model = built(kind, WIDTH)
    return Case(kind, model, inputs, discover(model, inputs))


def built(kind: type[nn.Module], width: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return kind(width)


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def loss(outputs: object, _: Tensor) -> Tensor:
    return torch.stack([output.square().mean() for output in tensors_in(outputs)]).sum()


def test_half_the_width_has_the_parameters_of_a_model_built_with_half_the_channels(case: Case) -> None:
    half, narrow = halved(case.model, case.found.groups), built(case.kind, WIDTH // 2)
    limit = STILL.get(case.kind, 1.03 * parameters(narrow) / parameters(case.model))
    assert parameters(half) / parameters(case.model) <= limit


def test_removed_channels_are_channels_at_zero(case: Case) -> None:
    assert error(case.model, case.found.groups, case.inputs) <= 2.2e-5


def test_half_the_width_trains(case: Case) -> None:
    half = halved(case.model, case.found.groups).train()
    loss(half(*(torch.cat([x, x]) for x in case.inputs)), torch.zeros(2)).backward()
    for name, parameter in half.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name


def test_the_work_is_that_of_a_count_by_hand(case: Case) -> None:
    work = measure_work(case.model, case.inputs, loss, targets=torch.zeros(1))
    assert work.flops_per_example == pytest.approx(training_flops(case.model, case.inputs), rel=0.1)
