"""Every built-in task with every model, trained in one place: how long it takes and what it reaches.

    python tests/benchmarks/built_in_tasks.py                       # all of the table in docs/tasks.md, about an hour
    python tests/benchmarks/built_in_tasks.py reuters-r8 --epochs 2

Plain AdamW with one cycle of the learning rate, a batch of 64, one thread, seed 0. It prints a row of Markdown a model.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from slimfleet.client.tasks import TASKS
from slimfleet.compression import Examples, Task
from slimfleet.compression.cost.flops import FlopCounter
from slimfleet.compression.validation_split import evaluate_on, training_and_validation

BATCH = 64
WEIGHT_DECAY = 1e-2


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    task: str
    model: str
    epochs: int
    learning_rate: float = 3e-3


ROWS = (
    Row("fashion-mnist", "lenet-300-100", 10, 2e-3),
    Row("fashion-mnist", "lenet-5", 8, 2e-3),
    Row("fashion-mnist", "cnn", 8),
    Row("fashion-mnist", "mobilenet", 3, 5e-3),
    Row("fashion-mnist", "resnet20", 1, 5e-3),
    Row("spoken-digits", "gru", 15, 5e-3),
    Row("spoken-digits", "lstm", 15, 5e-3),
    Row("spoken-digits", "ds-cnn", 15, 5e-3),
    Row("activities", "cnn1d", 6),
    Row("activities", "gru", 10),
    Row("reuters-r8", "transformer", 6),
    Row("reuters-r8", "minilm", 1, 1e-4),
    Row("newsgroups", "transformer", 5),
)


def main() -> None:
    """Print the table, or the rows of one task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="*", help="tasks, or task:model; all without")
    parser.add_argument("--epochs", type=int, help="in place of those of the table")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| task | model | parameters | MFLOP | epochs | CPU seconds an epoch | validation | test |")
    print("| --- " * 8 + "|")
    for row in ROWS:
        if arguments.tasks and not {row.task, f"{row.task}:{row.model}"} & set(arguments.tasks):
            continue
        print(" | ".join(_cells(row, arguments.epochs or row.epochs)).join(("| ", " |")), flush=True)


def _cells(row: Row, epochs: int) -> Iterator[str]:
    torch.manual_seed(0)
    task = TASKS[row.task](partitions=1, seed=0, model=row.model)
    model = task.build_model()
    training, validation = training_and_validation(task, seed=0)
    started = time.process_time()
    train(task, model, training, epochs, row.learning_rate)
    seconds = (time.process_time() - started) / epochs
    yield from (
        row.task,
        row.model,
        f"{sum(p.numel() for p in model.parameters()):,}",
        f"{mflop(task, model):,.1f}",
    )
    yield from (str(epochs), f"{seconds:.0f}")
    for evaluation in (evaluate_on(task, model, validation), task.evaluate(model)):
        assert evaluation.accuracy is not None
        yield f"{100 * evaluation.accuracy:.1f} %"


def train(task: Task, model: nn.Module, examples: Examples, epochs: int, learning_rate: float) -> None:
    """Train in place."""
    steps = epochs * -(-len(examples) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for index in torch.randperm(len(examples)).split(BATCH):
            batch = examples.take(index)
            optimizer.zero_grad()
            task.loss(model(*batch.arguments), batch.targets).backward()
            optimizer.step()
            schedule.step()


def mflop(task: Task, model: nn.Module) -> float:
    """Millions of FLOPs of one example, forward; a multiply-add is two."""
    model.eval()
    with torch.no_grad(), FlopCounter() as counter:
        model(*task.example_inputs())
    return counter.flops / 1e6


if __name__ == "__main__":
    main()
