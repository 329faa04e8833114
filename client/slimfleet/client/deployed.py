"""Deployed device: a real one, as its node-config describes it. Only its state folder outlasts a message."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from datetime import time as clock_time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, MinLen

from slimfleet.client.condition import looking, read_condition
from slimfleet.client.device import Device
from slimfleet.client.figures import cores
from slimfleet.client.governor import MEMORY_RESERVE_BYTES, PowerGovernor
from slimfleet.client.ledger import Balance, DeviceLedger
from slimfleet.client.meters import build_meter
from slimfleet.client.policy import Policy, read_policy
from slimfleet.client.startup import Began
from slimfleet.client.store import FolderStore
from slimfleet.client.tasks import TASKS
from slimfleet.client.watch import Watch
from slimfleet.client.workbench import Workbench
from slimfleet.compression import Assignment, BadInput
from slimfleet.compression.cost import RUNTIMES, work_of
from slimfleet.compression.edge.app_config import Config, config_as
from slimfleet.compression.edge.input_files import read_profile
from slimfleet.compression.edge.task_loader import load_task
from slimfleet.compression.examined import Examined
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.types import Condition, Count, Startup

Text = Annotated[str, MinLen(1)]

SHARES = 10
"""Shares that a task's data are cut into where nobody says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig:
    """What an operator says about one device; dashes in the keys of the node-config are underscores here."""

    partition_id: Count
    """Number of this device, and of its share of the task's data."""
    num_partitions: Annotated[int, Ge(1)] | None = None
    """Shares that the task's data are cut into, whatever the number of devices: a device keeps its share when others
    join. Numbers past the last share begin again with the first. By default `task.partitions`, else `SHARES`."""
    profile: Text
    """JSON file, as `slimfleet-device calibrate` or `profile --json` writes it."""
    state: Text
    """Folder of the file that this device keeps between rounds: its residual, and the models that it holds."""
    meter: str = "power-supply"
    """A name of `METERS`: the one that the profile's watts were measured with. Without its sensor energy is estimated
    from the profile."""
    threads: Annotated[int, Ge(1), Le(1_024)] | None = None
    """Threads to train on; by default as many as there are cores."""
    policy: Text | None = None
    """File with the policy of this device, which no coordinator can override; without one everything is allowed."""
    metered: bool | None = None
    """Whether the bytes of its link cost its owner money; unknown where it is not said."""
    memory_reserve_bytes: Count = MEMORY_RESERVE_BYTES
    """Free memory that rounds leave to the system."""


def deployed_device(
    node_config: Config,
    task: str,
    arguments: Mapping[str, Any],
    began: Callable[[], Began] | None = None,
    root: Path = Path("/"),
    clock: Callable[[], float] = time.monotonic,
) -> Device:
    """The device of this node, for a task by name or `module:object` and its arguments.

    `began` tells when the work on the message at hand began; its round is charged from there on, by default from now.
    Under `root`
    are the files that show the device's condition; `clock` is in seconds. What is found out about the model is kept in
    the state folder. Raises BadInput, in one line that says what to put right.
    """
    moment = Began.now()
    since = began or (lambda: moment)
    node = config_as(NodeConfig, node_config, "node-config")
    meter = build_meter(node.meter)
    policy = Policy() if node.policy is None else read_policy(Path(node.policy))
    profile = read_profile(Path(node.profile))
    shares = _shares(node, arguments)
    options = {**arguments, "partitions": shares}
    loaded = load_task(task, TASKS, partitions=shares, seed=0, options=options)
    state = _state_folder(node)
    examined = Examined(state)
    architecture = blueprint(loaded, seed=0, examined=examined)
    # The first message, a registration, counts the work of the full model, so that no round has to.
    work_of(loaded, architecture.model, examined)

    threads = node.threads or cores()

    def startup() -> Startup:
        return since().startup(profile.train_w)

    def open_ledger(assignment: Assignment) -> DeviceLedger:
        governor = PowerGovernor(assignment.budget.power_w, threads, torch.set_num_threads)
        return DeviceLedger(profile, governor, meter, clock, time.sleep, began=since())

    condition = looking(partial(read_condition, root, node.metered, node.memory_reserve_bytes), clock)

    def sense(round_number: int, spent: Balance) -> tuple[Condition, clock_time]:
        return condition(), datetime.now().time()

    return Device(
        node.partition_id,
        profile,
        Workbench(loaded, architecture, RUNTIMES["torch"].on(profile), examined),
        FolderStore(state, architecture),
        open_ledger,
        startup=startup,
        threads=threads,
        share=node.partition_id % shares,
        watch=Watch(policy, sense),
    )


def _shares(node: NodeConfig, arguments: Mapping[str, Any]) -> int:
    """How many shares the data are cut into: the node's word before the task's."""
    shares = node.num_partitions or arguments.get("partitions", SHARES)
    if not isinstance(shares, int) or shares < 1:
        raise BadInput(f"run-config: task.partitions = {shares!r}: must be an integer of at least 1")
    return shares


def _state_folder(node: NodeConfig) -> Path:
    """The folder of the state, made where it is missing."""
    folder = Path(node.state)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(
            f"node-config: state = {node.state}: cannot make this folder: {error.strerror}"
        ) from error
    return folder
