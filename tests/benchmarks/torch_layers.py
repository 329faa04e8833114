"""What becomes of torch's own layers at half width: the table in docs/own-task.md, which a test holds to this.

    python tests/benchmarks/torch_layers.py            # a line a layer, with the reason
    python tests/benchmarks/torch_layers.py --write    # the table of the page, anew

Each layer stands in a small network, between two that shrink. A layer with parameters shrinks where it has fewer of
them at half width; one without lets channels through where the layer before it has fewer.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from slimfleet.compression import BadInput, Evaluation, Examples
from slimfleet.compression.checked_task import CheckedTask
from slimfleet.compression.pruning import select_channels
from slimfleet.compression.pruning.blueprint import blueprint

Verdict = Literal["shrinks", "lets channels through", "whole", "refused"]

PAGE = Path(__file__).parent.parent.parent / "docs" / "own-task.md"

VECTOR, SEQUENCE, WAVE, IMAGE, VOLUME = (4,), (6, 4), (4, 16), (4, 8, 8), (4, 8, 8, 8)
"""Shapes of one example: features; steps and features; channels and one, two or three dimensions."""

CONVOLUTIONS: Mapping[tuple[int, ...], type[nn.Module]] = {
    WAVE: nn.Conv1d,
    IMAGE: nn.Conv2d,
    VOLUME: nn.Conv3d,
}

Read = Callable[[Any, Tensor], Tensor]


class Between(nn.Module):
    """A layer between two that shrink; `read` calls it and takes what the second needs of its output."""

    def __init__(self, layer: nn.Module, shape: tuple[int, ...], after: nn.Module, read: Read) -> None:
        super().__init__()
        convolution = CONVOLUTIONS.get(shape)
        self.before = convolution(4, 8, 3, padding=1) if convolution else nn.Linear(4, 8)
        self.layer, self.after, self.out, self.read = layer, after, nn.Linear(8, 2), read

    def forward(self, x: Tensor) -> Tensor:
        found = self.after(self.read(self.layer, self.before(x))).relu()
        if found.dim() > 2:
            found = found.mean(1) if isinstance(self.after, nn.Linear) else found.flatten(2).mean(2)
        return self.out(found)


def call(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x)


def first(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x)[0]


def step(layer: nn.Module, x: Tensor) -> Tensor:
    found = layer(x)
    return found[0] if isinstance(found, tuple) else found


def with_itself(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x, x)


def attended(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x, x, x)[0]


def unpooled(layer: nn.Module, x: Tensor) -> Tensor:
    kind = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[x.dim() - 3]
    return layer(*kind(2, return_indices=True)(x))


class Words(nn.Module):
    """A table of vectors before two layers."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.after, self.out = layer, nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, words: Tensor) -> Tensor:
        found = self.layer(words)
        return self.out(self.after(found.mean(1) if found.dim() > 2 else found).relu())


@dataclass(frozen=True)
class Around:
    """A task around a model."""

    model: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]

    name = "layer"
    partitions = 1

    def build_model(self) -> nn.Module:
        return self.model()

    def example_inputs(self) -> tuple[Tensor, ...]:
        return self.inputs

    def load(self, partition: int) -> Examples:
        raise BadInput("no data")

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        raise BadInput("no data")


def between(
    make: Callable[[], nn.Module], shape: tuple[int, ...], after: int = 8, read: Read = call
) -> Around:
    """A task around a layer; the one behind it takes `after` channels."""
    convolution = CONVOLUTIONS.get(shape)

    def behind() -> nn.Module:
        return convolution(after, 8, 1) if convolution else nn.Linear(after, 8)

    return Around(lambda: Between(make(), shape, behind(), read), (torch.zeros(1, *shape),))


def layers() -> Mapping[str, Around]:
    """Every layer of torch.nn in its network."""
    found: dict[str, Around] = {}
    for name in (
        *(
            "ReLU",
            "ReLU6",
            "LeakyReLU",
            "PReLU",
            "RReLU",
            "ELU",
            "SELU",
            "CELU",
            "GELU",
            "SiLU",
            "Mish",
            "Sigmoid",
        ),
        *("Tanh", "Softplus", "Softsign", "Softshrink", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh"),
        *("LogSigmoid", "Tanhshrink", "Identity", "Dropout", "AlphaDropout"),
    ):
        found[name] = between(getattr(nn, name), VECTOR)
    found["PReLU"] = between(lambda: nn.PReLU(8), VECTOR)
    found["Threshold"] = between(lambda: nn.Threshold(0.0, 0.0), VECTOR)
    for name in ("Softmax", "Softmin", "LogSoftmax"):
        found[name] = between(lambda name=name: getattr(nn, name)(dim=1), VECTOR)
    found["GLU"] = between(lambda: nn.GLU(dim=1), VECTOR, after=4)
    found["Linear"] = between(lambda: nn.Linear(8, 8), VECTOR)
    found["Bilinear"] = between(lambda: nn.Bilinear(8, 8, 8), VECTOR, read=with_itself)
    found["LayerNorm"] = between(lambda: nn.LayerNorm(8), VECTOR)
    found["RMSNorm"] = between(lambda: nn.RMSNorm(8), VECTOR)
    for dims, shape in ((1, WAVE), (2, IMAGE), (3, VOLUME)):

        def of(
            name: str, *arguments: Any, after: int = 8, read: Any = call, shape: Any = shape, **more: Any
        ) -> None:
            found[name] = between(lambda: getattr(nn, name)(*arguments, **more), shape, after, read)

        of(f"Conv{dims}d", 8, 8, 3, padding=1)
        of(f"ConvTranspose{dims}d", 8, 8, 2)
        for norm in ("BatchNorm", "InstanceNorm"):
            of(f"{norm}{dims}d", 8, affine=True)
        for pool in ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool"):
            of(f"{pool}{dims}d", 2)
        of(f"LPPool{dims}d", 2, 2)
        of(f"MaxUnpool{dims}d", 2, read=unpooled)
        of(f"Dropout{dims}d")
        for pad in ("ReflectionPad", "ReplicationPad", "ZeroPad", "CircularPad"):
            of(f"{pad}{dims}d", 1)
        of(f"ConstantPad{dims}d", 1, 0.0)
        if dims > 1:
            of(f"FractionalMaxPool{dims}d", 2, output_size=4)
    found["GroupNorm"] = between(lambda: nn.GroupNorm(4, 8), IMAGE)
    found["SyncBatchNorm"] = between(lambda: nn.SyncBatchNorm(8), IMAGE)
    found["LocalResponseNorm"] = between(lambda: nn.LocalResponseNorm(3), IMAGE)
    found["CrossMapLRN2d"] = between(lambda: nn.CrossMapLRN2d(3), IMAGE)
    found["FeatureAlphaDropout"] = between(nn.FeatureAlphaDropout, IMAGE)
    found["Softmax2d"] = between(nn.Softmax2d, IMAGE)
    found["Upsample"] = between(lambda: nn.Upsample(scale_factor=2), IMAGE)
    found["UpsamplingNearest2d"] = between(lambda: nn.UpsamplingNearest2d(scale_factor=2), IMAGE)
    found["UpsamplingBilinear2d"] = between(lambda: nn.UpsamplingBilinear2d(scale_factor=2), IMAGE)
    found["PixelShuffle"] = between(lambda: nn.PixelShuffle(2), IMAGE, after=2)
    found["PixelUnshuffle"] = between(lambda: nn.PixelUnshuffle(2), IMAGE, after=32)
    found["ChannelShuffle"] = between(lambda: nn.ChannelShuffle(2), IMAGE)
    found["Flatten"] = Around(
        lambda: Between(nn.Flatten(), IMAGE, nn.Linear(8 * 64, 8), call), (torch.zeros(1, *IMAGE),)
    )
    found["Unflatten"] = between(
        lambda: nn.Unflatten(1, (8, 1, 1)), VECTOR, read=lambda m, x: m(x).flatten(1)
    )
    found["Unfold"] = between(lambda: nn.Unfold(2), IMAGE, after=32, read=lambda m, x: m(x)[:, :, :, None])
    found["Fold"] = between(lambda: nn.Fold((8, 8), 1), IMAGE, read=lambda m, x: m(x.flatten(2)))
    for name in ("RNN", "GRU", "LSTM"):
        found[name] = between(
            lambda name=name: getattr(nn, name)(8, 8, batch_first=True), SEQUENCE, read=first
        )
        found[f"{name}Cell"] = between(lambda name=name: getattr(nn, f"{name}Cell")(8, 8), VECTOR, read=step)
    found["MultiheadAttention"] = between(
        lambda: nn.MultiheadAttention(8, 4, batch_first=True), SEQUENCE, read=attended
    )
    found["TransformerEncoderLayer"] = between(
        lambda: nn.TransformerEncoderLayer(8, 4, 16, batch_first=True), SEQUENCE
    )
    found["TransformerEncoder"] = between(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 4, 16, batch_first=True), 2), SEQUENCE
    )
    found["TransformerDecoderLayer"] = between(
        lambda: nn.TransformerDecoderLayer(8, 4, 16, batch_first=True), SEQUENCE, read=with_itself
    )
    found["TransformerDecoder"] = between(
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 4, 16, batch_first=True), 2),
        SEQUENCE,
        read=with_itself,
    )
    found["Transformer"] = between(
        lambda: nn.Transformer(8, 4, 1, 1, 16, batch_first=True), SEQUENCE, read=with_itself
    )
    words = (torch.zeros(1, 5, dtype=torch.long),)
    found["Embedding"] = Around(lambda: Words(nn.Embedding(9, 8)), words)
    found["EmbeddingBag"] = Around(lambda: Words(nn.EmbeddingBag(9, 8)), words)
    return found


def verdict_on(task: Around) -> tuple[Verdict, str]:
    """What becomes of the layer at half width; and the reason, where there is one."""
    checked = CheckedTask(task, "layer")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            architecture = blueprint(checked, seed=0)
            small = architecture.shrunk(select_channels(architecture.groups, 0.5, "prefix"))
            checked.rehearse_model(small)
    except BadInput as refused:
        return "refused", str(refused)
    has_own = any(True for _ in architecture.model.layer.parameters())
    part = "layer" if has_own else "before"
    full, half = (
        sum(p.numel() for p in getattr(model, part).parameters()) for model in (architecture.model, small)
    )
    if half < full:
        return ("shrinks" if has_own else "lets channels through"), ""
    reasons = {left.name: left.reason for left in architecture.whole}
    return "whole", next((why for name, why in reasons.items() if name.startswith(part)), "")


HEADINGS: Mapping[Verdict, str] = {
    "shrinks": "shrinks",
    "lets channels through": "without parameters: the layers around it shrink",
    "whole": "whole, and so are the channels that it takes",
    "refused": "refused",
}


def table() -> str:
    """The verdicts as the table of the page."""
    found: dict[Verdict, list[str]] = {verdict: [] for verdict in HEADINGS}
    for name, task in layers().items():
        found[verdict_on(task)[0]].append(name)
    rows = [f"| {HEADINGS[verdict]} | {_listed(names)} |" for verdict, names in found.items() if names]
    return "\n".join(["| at half width | layers of `torch.nn` |", "| --- | --- |", *rows])


def _listed(names: list[str]) -> str:
    """The names; those that differ only in the number of dimensions follow the first as `2d` and `3d`."""
    families: dict[str, list[str]] = {}
    for name in sorted(names):
        families.setdefault(re.sub(r"[123]d$", "", name), []).append(name)
    shown = [
        [first, *(name.removeprefix(stem) for name in others)] for stem, (first, *others) in families.items()
    ]
    return ", ".join(f"`{name}`" for family in shown for name in family)


def with_table(page: str) -> str:
    """The page with the table as it is now."""
    return re.sub(
        r"\| at half width \| layers of `torch\.nn` \|\n(\|.*\n)+", table().replace("\\", r"\\") + "\n", page
    )


def main() -> None:
    """Print what becomes of every layer, or write the page's table."""
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return
    for name, task in layers().items():
        verdict, why = verdict_on(task)
        print(f"{name:26} {verdict:22} {why}")


if __name__ == "__main__":
    main()
