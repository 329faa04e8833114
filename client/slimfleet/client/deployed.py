"""Deployed device: a real one, as its node-config describes it. Only its state folder outlasts a message."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, MinLen

from slimfleet.client.device import Device
from slimfleet.client.ledger import DeviceLedger
from slimfleet.client.meters import build_meter
from slimfleet.client.store import FolderStore
from slimfleet.client.tasks import TASKS
from slimfleet.client.workbench import Workbench
from slimfleet.compression import Assignment, BadInput
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.edge.app_config import Config, config_as
from slimfleet.compression.edge.input_files import read_profile
from slimfleet.compression.edge.task_loader import load_task
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.types import Count

Text = Annotated[str, MinLen(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What an operator says about one device; dashes in the keys of the node-config are underscores here."""

    partition_id: Count
    """Which share of the task's data this device holds."""
    num_partitions: Annotated[int, Ge(1)]
    profile: Text
    """JSON file, as `slimfleet-device profile --json` writes it."""
    state: Text
    """Folder of the file that this device keeps between rounds: its residual, and the models that it holds."""
    meter: str = "power-supply"
    """A name of `METERS`; without its sensor on this machine, energy is estimated from the profile."""


def deployed_device(node_config: Config, task: str, arguments: Mapping[str, Any]) -> Device:
    """The device of this node, for a task by name or `module:object` and its arguments.

    Raises BadInput, in one line that says what to correct.
    """
    node = config_as(NodeConfig, node_config, "node-config")
    if node.partition_id >= node.num_partitions:
        raise BadInput(
            f"node-config: partition-id = {node.partition_id}: there are num-partitions = {node.num_partitions}, "
            f"counted from 0"
        )
    meter = build_meter(node.meter)
    profile = read_profile(Path(node.profile))
    # The node decides the number of partitions, even where the task's arguments name one.
    options = {**arguments, "partitions": node.num_partitions}
    loaded = load_task(task, TASKS, partitions=node.num_partitions, seed=0, options=options)
    architecture = blueprint(loaded, seed=0)

    def open_ledger(assignment: Assignment) -> DeviceLedger:
        return DeviceLedger(profile, assignment.budget.power_w, meter, time.monotonic, time.sleep)

    return Device(
        node.partition_id,
        profile,
        Workbench(loaded, architecture, RUNTIMES["torch"]),
        FolderStore(Path(node.state), architecture),
        open_ledger,
    )
