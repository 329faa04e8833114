"""Point: one round of a deployed device in a process of its own, which tells what it took of memory.

python -m slimfleet.client.calibration.point < request.json
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from slimfleet.client.child import Wrap, answer, asked

__all__ = ["Peak", "Point", "measured_peak"]

LONGEST_S = 600.0
"""A round that takes longer is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A plan to measure."""

    task: str
    options: dict[str, Any]
    import_from: tuple[str, ...]
    node_config: dict[str, Any]
    """Of the device that does the round."""
    width: float
    batch_size: int
    steps: int = 4
    """The third takes no more than the second: momentum is there after the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peak:
    """What it took."""

    base_bytes: int
    """Resident once the libraries were there, before the task was."""
    peak_bytes: int
    """As the report of the round states it."""
    predicted_bytes: int
    """By the runtime of the device's profile."""
    parameter_bytes: int
    activation_bytes: float
    """Of one batch."""


def measured_peak(point: Point, wrap: Wrap = tuple) -> Peak:
    """Do the round of `point` in a new process, whose command `wrap` may change. Raises SlimfleetError where it
    fails."""
    what = f"the round of width {point.width:g} and batch {point.batch_size}"
    return Peak(**asked("slimfleet.client.calibration.point", asdict(point), what, LONGEST_S, wrap))


def _do_round(point: Point) -> Peak:
    """The round, in this process: the model goes out whole, in float32, and its update comes back coded."""
    from slimfleet.client.deployed import deployed_device
    from slimfleet.client.meters import peak_memory_bytes as peak_so_far
    from slimfleet.compression import Assignment, Budget, Plan, Training
    from slimfleet.compression.codec import CodecSpec, encode
    from slimfleet.compression.cost import peak_memory_bytes
    from slimfleet.compression.edge.task_loader import make_importable
    from slimfleet.compression.pruning import pack_channels, select_channels
    from slimfleet.compression.tensors import tensors_of
    from slimfleet.compression.wire import Envelope, PayloadKind

    base_bytes = peak_so_far()
    make_importable(point.import_from)
    device = deployed_device(point.node_config, point.task, point.options)
    workbench, architecture = device.workbench, device.workbench.blueprint
    channels = select_channels(architecture.groups, point.width, "prefix")
    index_map = architecture.index_map(channels)
    payload = encode(
        index_map.shrink(tensors_of(architecture.model)),
        index_map.schema,
        CodecSpec(bits=32),
        envelope=Envelope(
            kind=PayloadKind.MODEL, base_version=1, side=pack_channels(architecture.groups, channels)
        ),
    ).payload
    plan = Plan(width=point.width, local_steps=point.steps, batch_size=point.batch_size, nmse=0.1)
    # No loss runs away into NaN, whatever the model.
    training = Training(learning_rate=1e-6)
    assignment = Assignment(round_number=1, plan_id=1, plan=plan, budget=Budget(), training=training)
    _, report = device.do_round(assignment, payload)
    work = workbench.open(payload).work
    batch = min(point.batch_size, report.examples)
    return Peak(
        base_bytes=base_bytes,
        peak_bytes=report.spent.memory_bytes,
        predicted_bytes=peak_memory_bytes(workbench.runtime, work, batch),
        parameter_bytes=work.parameter_bytes,
        activation_bytes=work.activation_bytes_per_example * batch,
    )


if __name__ == "__main__":
    answer(lambda request: asdict(_do_round(Point(**request))))
