"""Tiny real federations: a task, the device that trains on it, and what a coordinator would send."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimfleet.client.state import Held
from slimfleet.client.workbench import Workbench
from slimfleet.compression import (
    Assignment,
    Budget,
    DeviceProfile,
    Evaluation,
    Examples,
    Payload,
    Plan,
    Tensors,
    Training,
)
from slimfleet.compression.codec import CodecSpec, Snapshot, encode, encode_model, publish
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.pruning import IndexMap, pack_channels, select_channels
from slimfleet.compression.pruning.blueprint import Blueprint, blueprint
from slimfleet.compression.tensors import tensors_of
from slimfleet.compression.wire import Envelope, PayloadKind


class Blobs:
    """Two Gaussian blobs in 2-d pictures, told apart by a convolution with batch normalisation."""

    name = "blobs"
    partitions = 4

    def build_model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 2)
        )

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 1, 4, 4),)

    def load(self, partition: int) -> Examples:
        rng = torch.Generator().manual_seed(partition)
        targets = torch.arange(40) % 2
        inputs = torch.randn(40, 1, 4, 4, generator=rng) + (2.0 * targets - 1).view(-1, 1, 1, 1)
        return Examples(inputs, targets)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        examples = self.load(0)
        with torch.no_grad():
            outputs = model(examples.inputs)
        accuracy = float((outputs.argmax(1) == examples.targets).float().mean())
        return Evaluation(float(self.loss(outputs, examples.targets)), accuracy)


PHONE = DeviceProfile(
    name="phone",
    device_class="phone-mid",
    ram_bytes=4 * 2**30,
    train_flops_per_s=1e6,
    idle_w=0.3,
    train_w=4.0,
    uplink_bytes_per_s=10_000,
    downlink_bytes_per_s=20_000,
    radio_j_per_byte_up=1e-5,
    radio_j_per_byte_down=5e-6,
    radio_j_per_burst=0.5,
)

Send = Callable[..., tuple[Assignment, Payload]]


@dataclass(frozen=True)
class Published:
    """A version of the global model on its grid, cut to a width."""

    full: Snapshot
    index_map: IndexMap
    others: Tensors
    """The sub-model's buffers and integers."""
    held: Held
    """As a device holds it."""
    payload: Payload
    """The sub-model, whole."""


@pytest.fixture(scope="session")
def task() -> Blobs:
    return Blobs()


@pytest.fixture(scope="session")
def architecture(task: Blobs) -> Blueprint:
    return blueprint(task, seed=1)


@pytest.fixture(scope="session")
def workbench(task: Blobs, architecture: Blueprint) -> Workbench:
    return Workbench(task, architecture, RUNTIMES["lite"])


@pytest.fixture(scope="session")
def phone() -> DeviceProfile:
    return PHONE


@pytest.fixture(scope="session")
def send(architecture: Blueprint) -> Send:
    """Make what goes out to a device: its assignment and the model shrunk to the plan's width, in float32."""

    def make(
        *,
        round_number: int = 1,
        plan_id: int = 7,
        budget: Budget | None = None,
        training: Training | None = None,
        acknowledged_round: int | None = None,
        **plan: object,
    ) -> tuple[Assignment, Payload]:
        wanted = {"width": 1.0, "local_steps": 3, "batch_size": 8, "nmse": 0.1} | plan
        assignment = Assignment(
            round_number=round_number,
            plan_id=plan_id,
            plan=Plan(**wanted),  # type: ignore[arg-type]
            budget=budget or Budget(),
            training=training or Training(learning_rate=0.1),
            acknowledged_round=acknowledged_round,
        )
        channels = select_channels(architecture.groups, assignment.plan.width, "prefix")
        index_map = architecture.index_map(channels)
        encoded = encode(
            index_map.shrink(tensors_of(architecture.model)),
            index_map.schema,
            CodecSpec(bits=32),
            envelope=Envelope(
                kind=PayloadKind.MODEL,
                base_version=round_number,
                side=pack_channels(architecture.groups, channels),
            ),
        )
        return assignment, encoded.payload

    return make


@pytest.fixture(scope="session")
def no_residual(architecture: Blueprint) -> Tensors:
    return {t.name: np.zeros(t.shape, np.float32) for t in architecture.schema.tensors}


@pytest.fixture(scope="session")
def published(architecture: Blueprint) -> Callable[..., Published]:
    """Make the version that round `number` publishes, after the version `before`, as a device of some width gets it."""

    def make(number: int, width: float = 1.0, before: Snapshot | None = None) -> Published:
        rng = np.random.default_rng(number)
        model = {
            name: (array + rng.normal(0, 0.01, array.shape)).astype(array.dtype)
            for name, array in tensors_of(architecture.model).items()
        }
        full = publish(model, architecture.schema, 6, before)
        channels = select_channels(architecture.groups, width, "prefix")
        index_map = architecture.index_map(channels)
        side = pack_channels(architecture.groups, channels)
        part = Snapshot({n: index_map.cut(n, levels) for n, levels in full.levels.items()}, full.units)
        others = {t.name: index_map.cut(t.name, model[t.name]) for t in index_map.schema.tensors}
        payload = encode_model(part, others, index_map.schema, version=number, side=side)
        return Published(full, index_map, others, Held(number, side, part), payload)

    return make
