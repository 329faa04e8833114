"""Runs on a Ray cluster of two nodes, for test_ray_cluster.py: `two_nodes.py FOLDER` prints what came of them.

Every node is a raylet of its own on the loopback address, with one processor core and a store of its own.
"""

from __future__ import annotations

import json
import os
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

# Read when Ray is imported: its servers then listen on the loopback address only.
os.environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}

import ray
from ray._private import utils
from ray.cluster_utils import Cluster

from slimfleet.compression import BadInput
from slimfleet.coordinator import Event, Observer, Planned
from slimfleet.simulations import load_scenario, simulate

HERE = Path(__file__).parents[1] / "simulations"
SCENARIO = {
    "task.name": "points:Points",
    "task.import_from": json.dumps([str(HERE)]),
    "rounds": "4",
    "fleet.devices": "20",
    "fleet.dropout": "0.3",
    "selection.per_round": "10",
    "planner.batch_sizes": "[8]",
}
BLIND = """
import sys
class Blind:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "slimfleet":
            raise ModuleNotFoundError("No module named 'slimfleet'", name="slimfleet")
sys.meta_path.insert(0, Blind())
"""
"""A sitecustomize that makes slimfleet look as if it were not installed."""


class Machines:
    """Two nodes, of which the second comes and goes."""

    def __init__(self, folder: Path) -> None:
        self.cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 1, "include_dashboard": False, "temp_dir": str(folder)},
        )
        self.second = self.cluster.add_node(num_cpus=1)

    def lose_and_add(self, event: Event) -> None:
        """Observer: the second node is lost in round 2, another joins in round 3."""
        if not isinstance(event, Planned) or not event.dispatches:
            return
        if event.round_number == 2:
            self.cluster.remove_node(self.second, allow_graceful=False)
        if event.round_number == 3:
            self.second = self.cluster.add_node(num_cpus=1)

    def actors(self) -> list[str]:
        """States of the actors that are not dead."""
        table: dict[str, dict[str, Any]] = self.cluster.global_state.actor_table(None)
        return [actor["State"] for actor in table.values() if actor["State"] != "DEAD"]


def interrupt(event: Event) -> None:
    """Observer: Ctrl-C as soon as the first round is given out."""
    if isinstance(event, Planned):
        raise KeyboardInterrupt


def run(out: Path, backend: str, address: str = "", *observers: Observer) -> dict[str, Any]:
    """A run, as values to compare."""
    scenario = load_scenario(str(HERE / "plain.toml"), SCENARIO | {"run.ray_address": json.dumps(address)})
    record, _ = simulate(scenario, out, backend=backend, observers=observers)
    return {
        "model": sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "failed": dict(record.failed),
        "rows": [(row.selected, row.completed) for row in record.rows],
        "states": {path.name: sha256(path.read_bytes()).hexdigest() for path in (out / "devices").iterdir()},
    }


def refused(out: Path, address: str) -> str:
    """What is said where a run on the cluster is refused."""
    try:
        run(out, "ray", address)
    except BadInput as error:
        return str(error)
    return "not refused"


def main(folder: Path) -> None:
    """All of it; prints one line of JSON."""
    found: dict[str, Any] = {"here": run(folder / "here", "local")}
    machines = Machines(folder / "r")
    address = machines.cluster.address
    found["cluster"] = run(folder / "cluster", "ray", address, machines.lose_and_add)
    found["left"] = machines.actors()
    try:
        run(folder / "interrupted", "ray", address, interrupt)
    except KeyboardInterrupt:
        found["left by Ctrl-C"] = machines.actors()
    found["connected"] = ray.is_initialized()

    version, utils.compute_version_info = utils.compute_version_info, lambda: ("2.0.0", "3.9.1")
    found["other Ray"] = refused(folder / "other", address)
    utils.compute_version_info = version
    (folder / "blind").mkdir()
    (folder / "blind" / "sitecustomize.py").write_text(BLIND)
    machines.cluster.add_node(num_cpus=1, env_vars={"PYTHONPATH": str(folder / "blind")})
    found["no slimfleet"] = refused(folder / "lacking", address)
    found["written"] = sorted(path.name for path in folder.iterdir() if path.name in ("other", "lacking"))
    machines.cluster.shutdown()
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
