"""Built-in tasks: a model, its data and its loss, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from slimfleet.client.tasks.activities import activities
from slimfleet.client.tasks.digits import Digits
from slimfleet.client.tasks.fashion_mnist import FashionMnist
from slimfleet.client.tasks.partition import dirichlet_partition, grouped_partition
from slimfleet.client.tasks.spoken_digits import spoken_digits
from slimfleet.client.tasks.texts import newsgroups, reuters_r8
from slimfleet.compression.edge.task_loader import TaskFactory

__all__ = [
    "TASKS",
    "Digits",
    "FashionMnist",
    "activities",
    "dirichlet_partition",
    "grouped_partition",
    "newsgroups",
    "reuters_r8",
    "spoken_digits",
]


TASKS: Mapping[str, TaskFactory] = MappingProxyType(
    {
        "digits": Digits,
        "fashion-mnist": FashionMnist,
        "spoken-digits": spoken_digits,
        "activities": activities,
        "reuters-r8": reuters_r8,
        "newsgroups": newsgroups,
    }
)
