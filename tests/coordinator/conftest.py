"""A small real federation, driven by hand: a coordinator, its devices, and nothing in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimfleet.client.device import Device
from slimfleet.client.store import FolderStore
from slimfleet.client.workbench import Workbench
from slimfleet.compression import Cost, DeviceProfile, Evaluation, Examples
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.messages import text_of
from slimfleet.compression.types import Tensors
from slimfleet.coordinator import Coordinator, CoordinatorSettings, Participation, RoundRow, Status
from slimfleet.coordinator.observing.prometheus import Metrics
from slimfleet.coordinator.planning import PlannerSettings
from slimfleet.coordinator.receiving.open_round import OpenRound
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.simulations.ledger import SimulatedLedger

torch.set_num_threads(1)
NODES = (11, 12, 13, 14)


class Blobs:
    """Two Gaussian blobs in 4x4 pictures, told apart by a convolution with batch normalisation."""

    name = "blobs"
    partitions = len(NODES)

    def build_model(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            *(nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 2)),
        )

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 1, 4, 4),)

    def load(self, partition: int) -> Examples:
        rng = torch.Generator().manual_seed(partition)
        targets = torch.arange(24 + 8 * partition) % 2
        inputs = torch.randn(len(targets), 1, 4, 4, generator=rng) + (1.0 * targets - 0.5).view(-1, 1, 1, 1)
        return Examples(inputs, targets)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        examples = self.load(99)
        with torch.no_grad():
            outputs = model(examples.inputs)
        accuracy = float((outputs.argmax(1) == examples.targets).float().mean())
        return Evaluation(float(self.loss(outputs, examples.targets)), accuracy)


PHONE = DeviceProfile(
    name="phone",
    device_class="phone-mid",
    ram_bytes=2**30,
    train_flops_per_s=1e7,
    idle_w=0.3,
    train_w=4.0,
    uplink_bytes_per_s=10_000,
    downlink_bytes_per_s=20_000,
    radio_j_per_byte_up=1e-5,
    radio_j_per_byte_down=5e-6,
    radio_j_per_burst=0.5,
)
PLANNER = PlannerSettings(
    widths=(1.0, 0.75, 0.5, 0.25), local_steps=(4, 2, 1), batch_sizes=(8,), nmse=(0.02, 0.2)
)
SETTINGS = CoordinatorSettings(rounds=6, seed=5, planner_settings=PLANNER, runtime="lite")


@dataclass
class World:
    """Time that passes a minute a round, and devices in whatever condition a test puts them."""

    statuses: dict[int, Status | None] = field(default_factory=dict)
    now: float = 0.0

    def now_s(self) -> float:
        return self.now

    def status(self, node: int, round_number: int) -> Status | None:
        return self.statuses.get(node, Status())

    def settle(self, participations: Sequence[Participation], round_number: int) -> list[Cost]:
        self.now += 60.0
        return [p.predicted for p in participations if p.spent is None]

    def to_json(self) -> dict[str, Any]:
        return {"now": self.now}

    def restore(self, values: dict[str, Any]) -> None:
        self.now = values["now"]


@dataclass
class Federation:
    """A coordinator and its devices in one process."""

    coordinator: Coordinator
    devices: dict[int, Device]
    world: World

    def answer(self, dispatch: Dispatch) -> tuple[int, bytes, str]:
        """What the device of this dispatch sends back."""
        payload, report = self.devices[dispatch.node].do_round(dispatch.assignment, dispatch.payload)
        return dispatch.node, payload, text_of(report)

    def open(self) -> OpenRound:
        return self.coordinator.open_round(list(self.devices))

    def run(self, rounds: int = 1) -> list[RoundRow]:
        rows = []
        for _ in range(rounds):
            opened = self.open()
            for dispatch in opened.dispatches:
                opened.receive(*self.answer(dispatch))
            rows.append(self.coordinator.close_round(opened))
        return rows

    def state_bytes(self) -> bytes:
        return bytes_of(self.coordinator.server.state())

    def model_bytes(self) -> bytes:
        return bytes_of(self.coordinator.server.model())


def bytes_of(tensors: Tensors) -> bytes:
    return b"".join(name.encode() + np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))


Federate = Callable[..., Federation]


@pytest.fixture(scope="session")
def phone() -> DeviceProfile:
    return PHONE


@pytest.fixture(scope="session")
def task() -> Blobs:
    return Blobs()


@pytest.fixture
def federate(task: Blobs, tmp_path: Path) -> Federate:
    """Make a federation; `state` names the folder of its devices, `profiles` may replace PHONE by node."""

    def make(
        settings: CoordinatorSettings = SETTINGS,
        *,
        state: str = "devices",
        profiles: dict[int, DeviceProfile] | None = None,
        metrics: Metrics | None = None,
        **changes: Any,
    ) -> Federation:
        world = World()
        coordinator = Coordinator(task, replace(settings, **changes), world, metrics)
        workbench = Workbench(task, coordinator.blueprint, RUNTIMES["lite"])
        store = FolderStore(tmp_path / state, coordinator.blueprint, durable=False)
        devices = {}
        for number, node in enumerate(NODES):
            profile = (profiles or {}).get(node, PHONE)
            devices[node] = Device(
                number,
                profile,
                workbench,
                store,
                lambda a, profile=profile: SimulatedLedger(profile, a.budget.power_w, 0.5),
            )
            coordinator.register(node, profile, devices[node].registration().examples)
        return Federation(coordinator, devices, world)

    return make
