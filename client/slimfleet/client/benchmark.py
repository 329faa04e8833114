"""How fast this machine trains, how much memory that takes, and what power it draws: measured, in seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from slimfleet.client.meters import Meter, Reading, net_of_idle, peak_memory_bytes, reset_peak_memory
from slimfleet.client.training import local_sgd
from slimfleet.compression import BadInput, Plan, Task, Training
from slimfleet.compression.cost import measure_work

WARM_UP_STEPS = 3
"""The first steps pay for the libraries' own start."""

MOST_STEPS = 10**6


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One stretch of training."""

    flops_per_s: float
    steps: int
    seconds: float
    peak_bytes: int
    """Of this process while it trained; since its start where the kernel cannot begin anew."""
    reading: Reading | None
    """Energy of the whole device; None where no meter could tell."""


def measure_training(
    task: Task,
    batch_size: int,
    seconds: float,
    meter: Meter,
    clock: Callable[[], float] = time.perf_counter,
) -> Benchmark:
    """Train the task's full model on partition 0 for about `seconds`, on one thread as in a round.

    Raises BadInput where nothing in the model can be counted as work.
    """
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = task.build_model()
        work = measure_work(model, task.example_inputs(), task.loss)
        if work.flops_per_example <= 0:
            raise BadInput(f"the model of {task.name!r} has no convolution or matrix product to time")
        examples, rng = task.load(0), np.random.default_rng(0)
        trained: list[int] = []

        def train(steps: int, until_s: float) -> None:
            plan = Plan(width=1.0, local_steps=steps, batch_size=batch_size, nmse=0.0)
            gently = Training(learning_rate=1e-6)  # no loss runs away into NaN, which is slower or faster

            def may_step() -> str | None:
                return "deadline_s" if clock() >= until_s else None

            local_sgd(model, task, examples, plan, gently, rng, may_step, trained.append)

        train(WARM_UP_STEPS, float("inf"))
        trained.clear()
        reset_peak_memory()
        meter.start()
        began = clock()
        train(MOST_STEPS, began + seconds)
        elapsed = clock() - began
        return Benchmark(
            flops_per_s=work.flops_per_example * sum(trained) / elapsed,
            steps=len(trained),
            seconds=elapsed,
            peak_bytes=peak_memory_bytes(),
            reading=meter.stop(),
        )


def mean_w(reading: Reading | None) -> float | None:
    """Mean power over a reading's window; None without a reading."""
    return None if reading is None or reading.duration_s <= 0 else reading.energy_j / reading.duration_s


def idle_w(meter: Meter, seconds: float, sleep: Callable[[float], None] = time.sleep) -> float | None:
    """Mean power of the device while this process sleeps; None where no meter can tell."""
    meter.start()
    sleep(seconds)
    return mean_w(meter.stop())


def train_w(reading: Reading, idle: float) -> float | None:
    """Power of training above `idle`; None where the meter saw none."""
    return mean_w(net_of_idle(reading, idle)) or None
