"""Benchmark of this machine: how fast it trains, in how much memory, at what power; measured in seconds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slimfleet.client.meters import Meter, Reading, net_of_idle, peak_memory_bytes, reset_peak_memory
from slimfleet.compression import BadInput, Plan, Task, Training
from slimfleet.compression.cost import work_of

WARM_UP_STEPS = 3
"""The first steps include the libraries' own initialisation."""

MOST_STEPS = 10**6

STRETCHES = 5
"""Speed varies while other programs run and the processor gets warm: one number would say nothing of that."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Some stretches of training."""

    speeds: tuple[float, ...]
    """Floating-point operations per second in each stretch, in ascending order."""
    steps: int
    seconds: float
    peak_bytes: int
    """Of this process while it trained; since its start where the kernel cannot reset the peak."""
    reading: Reading | None
    """Energy of the whole device; None without a meter's reading."""
    threads: int = 1

    @property
    def flops_per_s(self) -> float:
        """The median over the stretches."""
        return statistics.median(self.speeds)


def measure_training(
    task: Task,
    batch_size: int,
    seconds: float,
    meter: Meter,
    clock: Callable[[], float] = time.perf_counter,
    threads: int = 1,
) -> Benchmark:
    """Train the task's full model on partition 0 for about `seconds` in all.

    A step that takes longer than a stretch makes one of its own. Raises BadInput where nothing in the model can be
    counted as work.
    """
    import torch

    from slimfleet.client.training import local_sgd
    from slimfleet.compression.threads import torch_threads
    from slimfleet.compression.training import shuffled

    with torch_threads(threads), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = task.build_model()
        work = work_of(task, model)
        if work.flops_per_example <= 0:
            raise BadInput(
                f"the model of {task.name!r} has no convolution or matrix product to time: "
                "profile this machine with another task, such as digits"
            )
        batches = shuffled(task.load(0), batch_size, np.random.default_rng(0))
        trained: list[int] = []

        def train(steps: int, until_s: float) -> None:
            plan = Plan(width=1.0, local_steps=steps, batch_size=batch_size, nmse=0.0)
            gently = Training(learning_rate=1e-6)  # no loss runs away into NaN, which is slower or faster

            def may_step() -> str | None:
                return "deadline_s" if clock() >= until_s else None

            local_sgd(model, task, batches, plan, gently, may_step, trained.append)

        train(WARM_UP_STEPS, float("inf"))
        trained.clear()
        reset_peak_memory()
        speeds: list[float] = []
        steps = 0
        meter.start()
        began = now = clock()
        while not speeds or now < began + seconds:
            train(MOST_STEPS, now + seconds / STRETCHES)
            start, now = now, clock()
            speeds.append(work.flops_per_example * sum(trained) / (now - start))
            steps += len(trained)
            trained.clear()
        return Benchmark(
            speeds=tuple(sorted(speeds)),
            steps=steps,
            seconds=now - began,
            peak_bytes=peak_memory_bytes(),
            reading=meter.stop(),
            threads=threads,
        )


def measured_power(
    training: Reading | None, meter: Meter, seconds: float, sleep: Callable[[float], None] = time.sleep
) -> dict[str, float | None]:
    """`idle_w`, measured now while this process sleeps, and `train_w`, the power of `training` above it.

    Empty without a reading; `train_w` is None where training drew no more than rest.
    """
    if training is None:
        return {}
    meter.start()
    sleep(seconds)
    idle = meter.stop()
    if idle is None or idle.mean_w is None:
        return {}
    return {"idle_w": idle.mean_w, "train_w": net_of_idle(training, idle.mean_w).mean_w or None}
