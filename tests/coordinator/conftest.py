"""A small real federation in one process: a coordinator, its devices, and nothing in between."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimfleet.client.device import Device
from slimfleet.client.store import FolderStore
from slimfleet.client.workbench import Workbench
from slimfleet.compression import Condition, Cost, DeviceProfile, Evaluation, Examples
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.messages import text_of
from slimfleet.compression.types import Tensors
from slimfleet.coordinator import (
    Answer,
    Closed,
    Coordinator,
    Dispatch,
    Observer,
    Planned,
    RoundRow,
    Saved,
    State,
)
from slimfleet.coordinator.checkpoint import restore_checkpoint, save_checkpoint
from slimfleet.coordinator.conditions import FleetConditions
from slimfleet.coordinator.entries import Entry, apply
from slimfleet.coordinator.registry import Nodes, Registry
from slimfleet.coordinator.settings import settings_of
from slimfleet.simulations.in_process import InProcess
from slimfleet.simulations.ledger import SimulatedLedger

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
TABLES: dict[str, Any] = {
    "rounds": 6,
    "seed": 5,
    "planner": {
        "widths": [1.0, 0.75, 0.5, 0.25],
        "local_steps": [4, 2, 1],
        "batch_sizes": [8],
        "nmse": [0.02, 0.2],
    },
    "client": {"runtime": "lite"},
}
"""The settings of a small federation, as a file has them."""


@dataclass
class World:
    """Time that passes a minute a round, and devices in whatever condition a test puts them."""

    statuses: dict[int, Condition | None] = field(default_factory=dict)
    now: float = 0.0

    def now_s(self) -> float:
        return self.now

    def conditions(self, registry: Registry, nodes: Nodes, round_number: int) -> FleetConditions:
        return FleetConditions.of([self.statuses.get(node, Condition()) for node in nodes.tolist()])

    def charge(self, node: int) -> tuple[float | None, float | None]:
        return None, None

    def arrival_s(self, dispatch: Dispatch, took_s: float | None) -> float:
        return self.now

    def reach(self, moment_s: float, more_may_come: bool) -> bool:
        return moment_s <= self.now

    def rest(self) -> None:
        self.now += 60.0

    def spent(self, answers: Sequence[Answer]) -> Mapping[int, Cost]:
        silent = [a.dispatch for a in answers if a.dispatch is not None and a.report is None]
        return {dispatch.node: dispatch.predicted for dispatch in silent}

    def to_json(self) -> dict[str, Any]:
        return {"now": self.now}

    def restore(self, values: dict[str, Any]) -> None:
        self.now = values["now"]


@dataclass
class Federation:
    """A coordinator and its devices, with observers that are told what happens."""

    harness: InProcess
    world: World
    observers: Sequence[Observer] = ()

    @property
    def coordinator(self) -> Coordinator:
        return self.harness.coordinator

    @property
    def state(self) -> State:
        return self.harness.coordinator.state

    @property
    def devices(self) -> Mapping[int, Device]:
        return self.harness.devices  # type: ignore[return-value]

    def plan(self) -> Planned:
        return self._told(self.harness.plan())

    def answer(self, dispatch: Dispatch) -> tuple[bytes, str]:
        """What the device of this dispatch sends back."""
        payload, report = self.devices[dispatch.node].do_round(dispatch.assignment, dispatch.payload)
        return payload, text_of(report)

    def work(self, dispatch: Dispatch) -> Answer:
        return self._told(self.harness.work(dispatch))

    def receive(self, dispatch: Dispatch, payload: bytes, text: str) -> Answer:
        return self._told(self.coordinator.receive(dispatch.plan_id, payload, text))

    def step(self) -> Closed:
        return self._told(self.harness.step())

    def round(self) -> Closed:
        for dispatch in self.plan().dispatches:
            self.work(dispatch)
        return self.step()

    def run(self, rounds: int = 1) -> list[RoundRow]:
        return [self.round().row for _ in range(rounds)]

    def save(self, root: Path) -> Saved:
        return self._told(save_checkpoint(root, self.state, self.coordinator.environment))

    def restore(self, root: Path) -> None:
        restore_checkpoint(root, self.state, self.coordinator.environment)

    def take(self, entry: Entry) -> Sequence[Answer]:
        return apply(self.coordinator, entry)

    def state_bytes(self) -> bytes:
        return bytes_of(self.state.server.state())

    def model_bytes(self) -> bytes:
        return bytes_of(self.state.server.model())

    def _told(self, event: Any) -> Any:
        for observer in self.observers:
            observer(event)
        return event


def bytes_of(tensors: Tensors) -> bytes:
    return b"".join(name.encode() + np.ascontiguousarray(tensors[name]).tobytes() for name in sorted(tensors))


Federate = Callable[..., Federation]


@pytest.fixture(scope="session")
def phone() -> DeviceProfile:
    return PHONE


@pytest.fixture(scope="session")
def task() -> Blobs:
    return Blobs()


@pytest.fixture(scope="session")
def federate_in(task: Blobs) -> Callable[[Path], Federate]:
    """Make the function `federate` of a folder, in which the devices keep their state."""
    return lambda folder: partial(make_federation, folder, task)


@pytest.fixture
def federate(federate_in: Callable[[Path], Federate], tmp_path: Path) -> Federate:
    """Make a federation; the arguments are those of `make_federation`."""
    return federate_in(tmp_path)


def make_federation(
    folder: Path,
    task: Blobs,
    *,
    state: str = "devices",
    trained: Blobs | None = None,
    profiles: dict[int, DeviceProfile] | None = None,
    observers: Sequence[Observer] = (),
    **changes: Any,
) -> Federation:
    """Make a federation.

    `state` names the folder of its devices, `trained` may replace the task and `profiles` PHONE by node; whatever else
    is given are tables or values of the settings, over those of TABLES.
    """
    world, trained = World(), trained or task
    tables = {**TABLES}
    for key, value in changes.items():
        tables[key] = {**tables.get(key, {}), **value} if isinstance(value, dict) else value
    coordinator = Coordinator(trained, settings_of(tables, "the test"), world)
    workbench = Workbench(trained, coordinator.blueprint, RUNTIMES["lite"])
    store = FolderStore(folder / state, coordinator.blueprint, durable=False)
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
    return Federation(InProcess(coordinator, devices), world, observers)
