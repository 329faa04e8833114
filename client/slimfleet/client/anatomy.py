"""Anatomy of a task's model: what of it shrinks, and what training costs at each width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimfleet.compression import Task
from slimfleet.compression.cost import Runtime, Work, peak_memory_bytes, work_of
from slimfleet.compression.pruning import select_channels
from slimfleet.compression.pruning.blueprint import Blueprint


@dataclass(frozen=True, slots=True)
class AtWidth:
    """A model at one width."""

    width: float
    channels: int
    """Channels kept, over all groups."""
    work: Work
    peak_bytes: int
    """Predicted peak memory of training."""


def at_width(task: Task, architecture: Blueprint, width: float, runtime: Runtime, batch_size: int) -> AtWidth:
    """Build the task's model at `width` (0 < width <= 1) and measure its work."""
    channels = select_channels(architecture.groups, width, "prefix")
    work = work_of(task, architecture.shrunk(channels))
    kept = sum(len(chosen) for chosen in channels.values())
    return AtWidth(width, kept, work, peak_memory_bytes(runtime, work, batch_size))


def whole_tensors(architecture: Blueprint) -> Sequence[str]:
    """Names of the tensors that every device gets in full, whatever its width."""
    shrinking = {member.tensor for group in architecture.groups for member in group.members}
    return [spec.name for spec in architecture.schema.tensors if spec.name not in shrinking]
