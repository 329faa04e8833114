"""Orders: the texts in which a cohort's work goes to a worker and its answers come back.

They travel between processes of one simulation. What a device says is judged all the same, by the bytes that it sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict, TypeAdapter

from slimfleet.compression import Assignment, Budget
from slimfleet.compression.messages import Spent
from slimfleet.simulations.fleet import Moment

__all__ = ["ANSWERED", "GROUPS", "Answered", "Order"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One device's work."""

    node: int
    assignment: Assignment
    limits: Budget
    moment: Moment
    """When the device begins."""


GROUPS = TypeAdapter(tuple[tuple[Order, ...], ...], config=ConfigDict(ser_json_inf_nan="constants"))
"""The work of one message: groups of devices that may be trained at once. A device may stay for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What became of one device's work that is no part of a lot."""

    plan_id: int
    report: str | None = None
    """The device's report, where it has sent an update: the next of the message's payloads."""
    refused: str | None = None
    """The reason of a device that refused."""
    message: str = ""
    spent: Spent | None = None
    error: Literal["lost", "raised"] | None = None
    """Of a device that vanished, or whose code raised."""


ANSWERED = TypeAdapter(tuple[Answered, ...])
