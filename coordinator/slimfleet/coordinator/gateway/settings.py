"""Settings of a gateway: `[gateway]` of federation.toml, and `[task]` beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, MinLen

from slimfleet.compression.edge.checked import checked
from slimfleet.compression.edge.input_files import read_toml
from slimfleet.coordinator.settings import CoordinatorSettings, settings_of

__all__ = ["GatewaySettings", "Served", "ServedTask", "read_served"]

Text = Annotated[str, MinLen(1)]
Wait = Annotated[float, Ge(0), Le(3_600)]
Limit = Annotated[float, Gt(0), Le(86_400)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedTask:
    """`[task]`: what is learned. Devices name the same task, and hold its examples."""

    name: Text = "digits"
    """A built-in task (docs/tasks.md), or the `module:object` of a user's own."""
    import_from: tuple[str, ...] = ()
    """Folders that hold the modules of a user's own task and policies, relative to the file; by default its own."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """`[gateway]`: where devices connect, and what one of them may take of the server."""

    host: Text = "127.0.0.1"
    """Address to listen on; `0.0.0.0` is every address of this machine."""
    port: Annotated[int, Ge(0), Le(65_535)] = 8443
    """Port to listen on; 0 takes a free one."""
    pki: Text = "pki"
    """Folder of the keys and certificates, as `slimfleet-coordinator pki` makes it; relative to the file."""
    out: Text = "slimfleet-out"
    """Folder of the checkpoints, the model and the report; relative to the file."""
    hold_s: Wait = 20.0
    """Longest time for which a check-in is held open until there is work. 0 answers at once."""
    wait_s: Wait = 1.0
    """After how long a device without work is to check in again."""
    away_s: Limit = 90.0
    """A device that has not been heard for so long counts as away, and gets no work."""
    idle_s: Limit = 30.0
    """A call, or a connection without one, that does not move for so long is ended."""
    connections: Annotated[int, Ge(1), Le(100_000)] = 1_000
    """Connections at a time, of all devices."""
    connections_per_address: Annotated[int, Ge(1), Le(100_000)] = 200
    """Connections at a time from one network address; many devices may share one."""
    calls_per_s: Annotated[float, Gt(0), Le(10_000)] = 20.0
    """Calls a second of one device, on average over five seconds; more are refused."""
    metrics_port: Annotated[int, Ge(0), Le(65_535)] = 0
    """Port on which Prometheus finds metrics, on this machine only; 0 serves none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """All that a federation.toml says to `slimfleet-coordinator serve`."""

    settings: CoordinatorSettings
    task: ServedTask
    gateway: GatewaySettings
    beside: Path
    """The folder of the file, from which its paths start."""
    text: str
    """The file itself, which the results keep."""


def read_served(path: Path) -> Served:
    """Read a federation.toml with its tables `[task]` and `[gateway]`.

    Raises BadInput, in one line that names the file, the key and what is right.
    """
    source = f"the settings {path}"
    tables = read_toml(path, source)
    task = checked(ServedTask, tables.pop("task", {}), source, "task")
    gateway = checked(GatewaySettings, tables.pop("gateway", {}), source, "gateway")
    known = {"task": asdict(ServedTask()), "gateway": asdict(GatewaySettings())}
    settings = settings_of(tables, source, others=known)
    return Served(
        settings=settings, task=task, gateway=gateway, beside=path.parent, text=path.read_text("utf-8")
    )
