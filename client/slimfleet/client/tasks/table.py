"""Task table: the built-in tasks by their short names."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from slimfleet.client.tasks.digits import Digits
from slimfleet.client.tasks.fashion_mnist import FashionMnist
from slimfleet.compression.edge.task_loader import TaskFactory

TASKS: Mapping[str, TaskFactory] = MappingProxyType({"digits": Digits, "fashion-mnist": FashionMnist})
