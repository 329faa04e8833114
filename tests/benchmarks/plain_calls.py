"""The same federation by plain calls in one process: which model it must end with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from crowd.devices import devices_of
from crowd.fleet import fleet_of, name_of
from safetensors.numpy import load_file

from slimfleet.client.tasks import Digits
from slimfleet.coordinator import Coordinator, WallEnvironment
from slimfleet.coordinator.gateway import read_served
from slimfleet.coordinator.pki.identity import node_of
from slimfleet.simulations.in_process import InProcess


def differs_from_plain(folder: Path) -> str:
    """What of the model that a run has published is not that of plain calls; empty where all bytes are."""
    served, count = read_served(folder / "federation.toml"), fleet_of(folder)
    coordinator = Coordinator(Digits(1), served.settings, WallEnvironment())
    own = folder / "plain"
    own.mkdir(exist_ok=True)
    (own / "board.json").write_text((folder / "board.json").read_text())
    devices = {node_of(name_of(number)): each for number, each in devices_of(own, count, 0, count).items()}
    rounds = InProcess(coordinator, devices)
    for _ in range(served.settings.rounds):
        rounds.round()
    model, published = coordinator.published(), load_file(folder / "out" / "model.safetensors")
    if model.keys() != published.keys():
        return "other tensors"
    return ", ".join(name for name in model if not np.array_equal(model[name], published[name]))
