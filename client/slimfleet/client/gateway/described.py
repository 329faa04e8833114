"""Description of a device by its owner, and the resident device that it makes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimfleet.client.condition import read_condition
from slimfleet.client.gateway.backoff import Backoff
from slimfleet.client.gateway.calling import TransportName
from slimfleet.client.gateway.connection import Connection
from slimfleet.client.gateway.outbox import Outbox
from slimfleet.client.gateway.resident import Resident
from slimfleet.client.gateway.transports import connection_to
from slimfleet.client.governor.memory import MEMORY_RESERVE_BYTES
from slimfleet.client.policy import Policy, read_policy, reason_in_words, refusal
from slimfleet.client.startup import Began
from slimfleet.compression.edge.task_loader import make_importable
from slimfleet.compression.types import Condition

if TYPE_CHECKING:
    from slimfleet.client.device import Device

__all__ = ["Described", "resident"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """A device as its owner describes it."""

    node: Mapping[str, Any]
    """As a node-config has it."""
    task: str
    options: Mapping[str, Any]
    import_from: tuple[str, ...]
    gateway: str
    """host:port."""
    keys: str
    """Folder of ca.crt, device.crt and device.key."""
    transport: TransportName = "auto"

    def connection(self) -> Connection:
        """Raises DiskError where a key cannot be read, and ModuleNotFoundError where gRPC is not installed."""
        return connection_to(self.gateway, Path(self.keys), self.transport)

    def policy(self) -> Policy:
        """The policy of its owner. Raises BadInput where the file cannot be used."""
        path = self.node.get("policy")
        return Policy() if path is None else read_policy(Path(path))


def resident(described: Described, registration_json: str) -> Resident:
    """The resident device of a description."""
    return Resident(
        described.connection(),
        registration_json,
        Outbox(Path(described.node["state"])),
        _ready(described),
        _looking(described.policy(), described.node.get("metered")),
        Backoff(random.Random()),
        time.sleep,
    )


def _ready(described: Described) -> Callable[[], Device]:
    """Makes the device ready for a plan that has just come; the first time, it is built."""
    moments: list[Began] = []

    @cache
    def built() -> Device:
        from slimfleet.client.deployed import deployed_device  # loads torch

        make_importable(described.import_from)
        return deployed_device(described.node, described.task, described.options, lambda: moments[-1])

    def ready() -> Device:
        moments[:] = [Began.now()]
        return built()

    return ready


def _looking(policy: Policy, metered: bool | None) -> Callable[[], tuple[Condition, str | None]]:
    def look() -> tuple[Condition, str | None]:
        condition = read_condition(metered=metered, memory_reserve_bytes=MEMORY_RESERVE_BYTES)
        reason = refusal(policy, condition, datetime.now().time())
        return condition, None if reason is None else reason_in_words(reason, policy, condition)

    return look
