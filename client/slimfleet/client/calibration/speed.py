"""Speed: a task trained for some seconds, and the power that this takes above rest, in a process of its own.

python -m slimfleet.client.calibration.speed < request.json
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from slimfleet.client.benchmark import Benchmark
from slimfleet.client.child import answer, asked

__all__ = ["Speed", "measured_speed"]

LONGEST_S = 1_800.0
"""Beyond the seconds that are asked for: the start of Python, and a task that prepares its data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What a device found of a task."""

    benchmark: Benchmark
    power: dict[str, float | None]
    """`idle_w` and `train_w`; empty without a reading."""
    examples: int
    """Of its share of the data."""
    activation_bytes: float
    """Of one example at full width."""


def measured_speed(request: dict[str, Any]) -> Speed:
    """The speed, measured in a new process. `request` has task, options, import_from, shares, batch_size, seconds,
    threads and meter. Raises BadInput for a task that cannot be trained."""
    longest_s = 2 * request["seconds"] + LONGEST_S
    found = asked("slimfleet.client.calibration.speed", request, "measuring the speed", longest_s)
    benchmark = Benchmark(**found["benchmark"] | {"speeds": tuple(found["benchmark"]["speeds"])})
    return Speed(**found | {"benchmark": benchmark})


def _measure(request: dict[str, Any]) -> dict[str, Any]:
    """The same in this process."""
    from slimfleet.client.benchmark import measure_training, measured_power
    from slimfleet.client.meters import build_meter
    from slimfleet.client.tasks import TASKS
    from slimfleet.compression.cost import work_of
    from slimfleet.compression.edge.task_loader import load_task, make_importable

    make_importable(request["import_from"])
    task = load_task(request["task"], TASKS, partitions=request["shares"], seed=0, options=request["options"])
    model, meter, seconds = task.build_model(), build_meter(request["meter"]), request["seconds"]
    task.rehearse_model(model)
    task.rehearse_training(model, partitions=1)
    benchmark = measure_training(task, request["batch_size"], seconds, meter, threads=request["threads"])
    speed = Speed(
        benchmark=replace(benchmark, reading=None),
        power=measured_power(benchmark.reading, meter, seconds),
        examples=len(task.load(0)),
        activation_bytes=work_of(task, model).activation_bytes_per_example,
    )
    return asdict(speed)


if __name__ == "__main__":
    answer(_measure)
