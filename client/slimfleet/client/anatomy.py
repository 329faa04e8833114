"""Anatomy of a task's model: what of it shrinks, and what training costs at each width."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slimfleet.compression import Task
from slimfleet.compression.cost import Runtime, Work, peak_memory_bytes, work_of
from slimfleet.compression.pruning import ChannelGroup, select_channels
from slimfleet.compression.pruning.blueprint import Blueprint
from slimfleet.compression.schema import ModelSchema


@dataclass(frozen=True, slots=True)
class AtWidth:
    """A model at one width."""

    width: float
    channels: int
    """Channels kept, over all groups."""
    work: Work
    peak_bytes: int
    """Predicted peak memory of training."""

    def record(self) -> dict[str, float | int]:
        """Plain numbers for JSON: FLOPs and bytes of activations are per example."""
        return {
            "width": self.width,
            "channels": self.channels,
            "parameters": self.work.parameters,
            "flops": round(self.work.flops_per_example),
            "activation_bytes": round(self.work.activation_bytes_per_example),
            "peak_memory_bytes": self.peak_bytes,
        }


def at_width(task: Task, architecture: Blueprint, width: float, runtime: Runtime, batch_size: int) -> AtWidth:
    """Build the task's model at `width` (0 < width <= 1) and measure its work."""
    channels = select_channels(architecture.groups, width, "prefix")
    work = work_of(task, architecture.shrunk(channels))
    kept = sum(len(chosen) for chosen in channels.values())
    return AtWidth(width, kept, work, peak_memory_bytes(runtime, work, batch_size))


def anatomy(
    name: str, architecture: Blueprint, rows: Sequence[AtWidth], runtime: str, batch_size: int
) -> dict[str, Any]:
    """What `slimfleet-device inspect --json` prints of the task `name`."""
    return {
        "task": name,
        "runtime": runtime,
        "batch_size": batch_size,
        "groups": [
            {
                "name": group.name,
                "size": group.size,
                "least": group.min_channels,
                "tensors": tensors_of_group(group),
                "members": members_record(group),
            }
            for group in architecture.groups
        ],
        "tensors": schema_record(architecture.schema),
        "whole": [asdict(each) for each in architecture.whole],
        "whole_tensors": list(whole_tensors(architecture)),
        "widths": [row.record() for row in rows],
    }


def schema_record(schema: ModelSchema) -> list[dict[str, Any]]:
    """A schema as JSON has it: what a client in another language needs to know of the model (docs/wire-format.md)."""
    return [
        {"name": t.name, "shape": list(t.shape), "dtype": t.dtype, "kind": t.kind} for t in schema.tensors
    ]


def members_record(group: ChannelGroup) -> list[dict[str, Any]]:
    """What the channels of a group own, as JSON has it: for each channel its positions along a tensor's dimension."""
    return [{"tensor": m.tensor, "dim": m.dim, "positions": m.positions.tolist()} for m in group.members]


def tensors_of_group(group: ChannelGroup) -> list[str]:
    """Names of the tensors that the group's channels reach into, each once."""
    return list(dict.fromkeys(member.tensor for member in group.members))


def whole_tensors(architecture: Blueprint) -> Sequence[str]:
    """Names of the tensors that every device gets in full, whatever its width; scalars, such as counters, aside."""
    shrinking = {member.tensor for group in architecture.groups for member in group.members}
    return [spec.name for spec in architecture.schema.tensors if spec.shape and spec.name not in shrinking]
