"""Introducing: what a device says of itself, found out by a process of its own.

To count its examples a device loads them, and with them torch. The process that does so ends, so that the resident one
stays small until there is work.

python -m slimfleet.client.gateway.introducing < description.json
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from slimfleet.client.child import answer, asked
from slimfleet.client.gateway.described import Described
from slimfleet.compression.edge.task_loader import make_importable

__all__ = ["introduction"]

LONGEST_S = 600.0


def introduction(described: Described) -> str:
    """The registration of a device as JSON. Raises BadInput where something in its description is wrong, and
    SlimfleetError where it cannot be examined."""
    what = "examining the device"
    return str(asked("slimfleet.client.gateway.introducing", asdict(described), what, LONGEST_S))


def _introduction(described: dict[str, Any]) -> str:
    """The same in this process."""
    from slimfleet.client.deployed import deployed_device
    from slimfleet.client.startup import Began
    from slimfleet.compression.messages import text_of

    make_importable(described["import_from"])
    began = Began.of_process()
    device = deployed_device(described["node"], described["task"], described["options"], lambda: began)
    return text_of(device.registration())


if __name__ == "__main__":
    answer(_introduction)
