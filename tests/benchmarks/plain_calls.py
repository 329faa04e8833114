"""A federation by plain calls in one process: which model one that is served must end with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from slimfleet.client.device import Device
from slimfleet.client.tasks import TASKS
from slimfleet.compression.edge.task_loader import load_task
from slimfleet.coordinator import Coordinator, WallEnvironment
from slimfleet.coordinator.gateway import read_served
from slimfleet.coordinator.pki.identity import node_of
from slimfleet.simulations.in_process import InProcess


def differs_from_plain(settings: Path, model: Path, devices: Mapping[str, Device]) -> str:
    """Which tensors of a published model are not bit for bit those of plain calls; empty where all are.

    `settings` is the federation.toml of the run; `devices`, by name, have done no round yet.
    """
    served = read_served(settings)
    task = load_task(served.task.name, TASKS, partitions=1, seed=0, options=served.task.options)
    coordinator = Coordinator(task, served.settings, WallEnvironment())
    rounds = InProcess(coordinator, {node_of(name): device for name, device in devices.items()})
    for _ in range(served.settings.rounds):
        rounds.round()
    expected, published = coordinator.published(), load_file(model)
    if expected.keys() != published.keys():
        return "other tensors"
    return ", ".join(name for name in expected if not np.array_equal(expected[name], published[name]))
