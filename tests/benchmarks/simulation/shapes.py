"""Never slower than the plain loop: rounds of a few devices by the loop and by the engine `cohort`, shape by shape.

Every model of the built-in tasks, on inputs drawn for it. Both do the whole round of a device, from the payload that it
receives to the one that it sends, in turn in one process and thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from page_parts import table

from slimfleet.client.cohort.forms import CPU
from slimfleet.client.cohort.rounds import CohortRounds, Job
from slimfleet.client.cohort.rule import usual_group
from slimfleet.client.device import Device
from slimfleet.client.store import MemoryStore
from slimfleet.client.tasks import Digits, FashionMnist, activities, newsgroups, reuters_r8, spoken_digits
from slimfleet.client.workbench import Workbench
from slimfleet.compression import Assignment, Budget, Examples, Plan, Task, Training
from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.profiles import load_profiles
from slimfleet.compression.pruning import pack_channels, select_channels
from slimfleet.compression.pruning.blueprint import Blueprint, blueprint
from slimfleet.compression.tensors import tensors_of
from slimfleet.compression.wire import Envelope, PayloadKind
from slimfleet.simulations.ledger import SimulatedLedger

__all__ = ["shapes"]

STEPS, WIDTHS, BATCHES = 3, (1.0, 0.5), (8, 32)
DEVICES = (8, 16, 32)
"""As many of them as are trained at once, or the next larger number."""

NOISE = 0.95
"""A ratio below this is a shape on which the cohort is slower."""

TASKS: dict[str, Callable[[], Task]] = {
    "digits": partial(Digits, 1),
    **{
        f"fashion-mnist, {model}": partial(FashionMnist, 1, model=model)
        for model in ("cnn", "lenet-300-100", "lenet-5", "mobilenet", "resnet20")
    },
    **{
        f"spoken-digits, {model}": partial(spoken_digits, 1, model=model)
        for model in ("ds-cnn", "gru", "lstm")
    },
    **{f"activities, {model}": partial(activities, 1, model=model) for model in ("cnn1d", "gru")},
    "reuters-r8, transformer": partial(reuters_r8, 1),
    "newsgroups, transformer": partial(newsgroups, 1),
}


class Drawn:
    """A task whose examples are drawn: as many as three batches, every other device a quarter of a batch less."""

    partitions = DEVICES[-1]

    def __init__(self, task: Task, batch_size: int) -> None:
        self.batch_size = batch_size
        self.name, self.build_model, self.example_inputs = task.name, task.build_model, task.example_inputs
        self.loss = task.loss

    def load(self, partition: int) -> Examples:
        """Normal floats, numbers of common tokens, and lengths as in the example."""
        rng = torch.Generator().manual_seed(partition)
        count = STEPS * self.batch_size - partition % 2 * (self.batch_size // 4)
        inputs = tuple(_drawn(each, count, rng) for each in self.example_inputs())
        return Examples(inputs, torch.randint(6, (count,), generator=rng))


def _drawn(example: torch.Tensor, count: int, rng: torch.Generator) -> torch.Tensor:
    shape = (count, *example.shape[1:])
    if example.is_floating_point():
        return torch.randn(shape, generator=rng)
    return torch.randint(1, 50, shape, generator=rng) if example.dim() > 1 else example.expand(shape).clone()


@dataclass(frozen=True, slots=True)
class Measured:
    """One shape."""

    name: str
    width: float
    batch_size: int
    at_once: int
    loop_s: float
    """Processor time of a device's round."""
    cohort_s: float

    @property
    def ratio(self) -> float:
        """Above 1 where the cohort is faster."""
        return self.loop_s / self.cohort_s


def shapes(repeats: int, only: str = "") -> str:
    """The table of all shapes, or of those whose name holds `only`, each measured in turn, the least of `repeats`."""
    found = []
    for each in _measured(repeats, only):
        found.append(each)
        print(f"{each.name}, width {each.width}, batch {each.batch_size}: {each.ratio:.2f}x", flush=True)
    slower = sorted((each for each in found if each.ratio < NOISE), key=lambda each: each.ratio)
    verdict = ", ".join(f"{each.name} at width {each.width} and {each.batch_size}" for each in slower)
    return f"{_table(found)}\n\nSlower than the loop by more than 5%: {verdict or 'none'}."


def _table(found: list[Measured]) -> str:
    rows = [
        [
            *(each.name, f"{each.width}", str(each.batch_size), str(each.at_once)),
            *(f"{1e3 * each.loop_s:.2f}", f"{1e3 * each.cohort_s:.2f}", f"{each.ratio:.2f}x"),
        ]
        for each in found
    ]
    return table(("model", "width", "batch", "at once", "loop, ms", "cohort, ms", "ratio"), rows)


def _measured(repeats: int, only: str) -> Iterator[Measured]:
    torch.set_num_threads(1)
    for name, make in TASKS.items():
        if only in name:
            for batch_size in BATCHES:
                task = Drawn(make(), batch_size)
                architecture = blueprint(task, seed=1)
                for width in WIDTHS:
                    yield _of_shape(name, task, architecture, width, repeats)


def _of_shape(name: str, task: Drawn, architecture: Blueprint, width: float, repeats: int) -> Measured:
    jobs = _jobs(task, architecture, width)
    first = jobs[0].device
    assert isinstance(first, Device)
    at_once = usual_group(first.workbench.open(jobs[0].payload).work, task.batch_size, CPU)
    devices = next(each for each in DEVICES if at_once <= each)
    # Those of one size beside each other, as they are packed.
    ordered = [*jobs[:devices:2], *jobs[1:devices:2]]
    groups = [ordered[begin : begin + at_once] for begin in range(0, devices, at_once)]
    rounds = CohortRounds()

    def loop() -> None:
        for job in ordered:
            job.device.do_round(job.assignment, job.payload)

    def cohort() -> None:
        for outcome in rounds.together(groups):
            assert not isinstance(outcome, Exception), outcome

    loop_s, cohort_s = _in_turn(loop, cohort, repeats)
    return Measured(name, width, task.batch_size, at_once, loop_s / devices, cohort_s / devices)


def _in_turn(one: Callable[[], None], other: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Least processor time of each over some repeats, after one that does not count: what else a machine does only
    adds to it. Each goes first as often as second."""
    taken: dict[Callable[[], None], list[float]] = {one: [], other: []}
    for repeat in range(repeats + 1):
        for each in (one, other) if repeat % 2 else (other, one):
            began = time.process_time()
            each()
            taken[each].append(time.process_time() - began)
    return min(taken[one][1:]), min(taken[other][1:])


def _jobs(task: Drawn, architecture: Blueprint, width: float) -> list[Job]:
    """The round of every device, in float32 both ways."""
    bench, phone = Workbench(task, architecture, RUNTIMES["lite"]), load_profiles()[0].profile
    channels = select_channels(architecture.groups, width, "prefix")
    index_map = architecture.index_map(channels)
    side = pack_channels(architecture.groups, channels)
    model = index_map.shrink(tensors_of(architecture.model))
    envelope = Envelope(kind=PayloadKind.MODEL, base_version=1, side=side)
    payload = encode(model, index_map.schema, CodecSpec(bits=32), envelope=envelope).payload
    plan = Plan(width=width, local_steps=STEPS, batch_size=task.batch_size, nmse=0.0)
    training = Training(learning_rate=0.01, feedback=False)
    store = MemoryStore()
    return [
        Job(
            Device(number, phone, bench, store, lambda a: SimulatedLedger(phone, a.budget.power_w, 0.5)),
            Assignment(round_number=1, plan_id=number + 1, plan=plan, budget=Budget(), training=training),
            payload,
        )
        for number in range(DEVICES[-1])
    ]
