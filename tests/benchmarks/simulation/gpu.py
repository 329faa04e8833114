"""Training on a GPU: devices trained together beside the plain loop, on the models of this benchmark.

    PYTHONPATH=client:compression:coordinator:simulations:tests/benchmarks python tests/benchmarks/simulation/gpu.py OUT

writes `simulation-gpu.md` into OUT, or prints it. Needs torch, numpy and pydantic, and a GPU for the rows of one.
Images are drawn: how long training takes does not depend on what they show.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import torch
from page_parts import table, when
from torch import Tensor, nn
from torch.nn import functional
from work import BATCH, EXAMPLES, LEARNING_RATE, MODELS, first

from slimfleet.client.cohort.forms import CPU, rehearsed, trained_names
from slimfleet.client.cohort.training import train_together
from slimfleet.client.training import local_sgd
from slimfleet.compression import Examples, Plan, Training
from slimfleet.compression.tensors import load_tensors, tensors_of

DEVICES, FEW = 512, 32
"""Devices that are trained, and those of them by a loop."""
GROUPS = (64, 512)
REPEATS = 5
STEPS = EXAMPLES // BATCH
TRAINING = Training(learning_rate=LEARNING_RATE, momentum=0.0)
PLAN = Plan(width=1.0, local_steps=STEPS, batch_size=BATCH, nmse=0.1)
TARGET = 20.0


class Drawn:
    """A task as far as training asks for one."""

    name = "drawn"

    @staticmethod
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits [n, 10]."""
        return functional.cross_entropy(outputs, targets)


def main() -> None:
    """Measure, and write the page or print it."""
    torch.set_num_threads(1)
    found = {name: measured(name) for name in MODELS}
    text = page(found)
    if len(sys.argv) > 1:
        (Path(sys.argv[1]) / "simulation-gpu.md").write_text(text)
    else:
        print(text)


def measured(name: str) -> dict[str, float]:
    """Milliseconds a device, by way of training."""
    model = first(name)
    start = tensors_of(model)
    torch.manual_seed(0)
    shape = (1, 28, 28) if name == "cnn" else (784,)
    data = [Examples(torch.randn(EXAMPLES, *shape), torch.randint(10, (EXAMPLES,))) for _ in range(DEVICES)]
    batches = list(torch.arange(EXAMPLES).split(BATCH))
    form = rehearsed(Drawn(), model, data[0], vmaps=False)  # type: ignore[arg-type]
    assert form is not None
    work = [(each, batches) for each in data]

    def together(where: torch.device, group: int, many: int) -> dict[str, torch.Tensor]:
        for place in range(0, many, group):
            trained = train_together(
                form, start, trained_names(model), work[place : place + group], TRAINING, where
            )
        return {key: torch.from_numpy(each) for key, each in trained.tensors.items()}

    ways: dict[str, tuple[Callable[[], object], int]] = {
        "loop, one processor core": (lambda: loop(model, start, data[:FEW], batches, CPU), FEW),
        "together, one processor core": (lambda: together(CPU, 4 if name == "cnn" else 16, FEW), FEW),
    }
    if torch.cuda.is_available():
        gpu = torch.device("cuda")
        ways["loop, GPU"] = (lambda: loop(model.to(gpu), start, data[:FEW], batches, gpu), FEW)
        for group in GROUPS:
            ways[f"together, GPU, groups of {group}"] = (
                lambda group=group: together(gpu, group, DEVICES),
                DEVICES,
            )
        agree(model, start, data, batches, together(gpu, GROUPS[0], GROUPS[0]))
    took = {way: 1e3 * timed(do) / many for way, (do, many) in ways.items()}
    model.to(CPU)
    return took


def loop(
    model: nn.Module, start: dict, data: Sequence[Examples], batches: Sequence[Tensor], where: torch.device
) -> None:
    """One device after the other, each from the first weights to the trained ones on the processor."""
    for each in data:
        load_tensors(model, start)
        own = Examples(each.inputs.to(where), each.targets.to(where))
        taken = map(own.take, [places.to(where) for places in batches])
        local_sgd(model, Drawn(), taken, PLAN, TRAINING, lambda: None, lambda examples: None)  # type: ignore[arg-type]
        for parameter in model.parameters():
            parameter.detach().cpu()


def agree(
    model: nn.Module,
    start: dict,
    data: Sequence[Examples],
    batches: Sequence[Tensor],
    trained: dict[str, Tensor],
) -> None:
    """Stop where the GPU has learned for the last device what the loop on the processor does not."""
    place = len(next(iter(trained.values()))) - 1
    loop(model.to(CPU), start, [data[place]], batches, CPU)
    for key, array in tensors_of(model).items():
        expected = torch.from_numpy(array)
        apart = float((trained[key][place] - expected).abs().max() / expected.abs().max())
        assert apart < 1e-3, f"{key}: {apart:.2g} apart"


def timed(do: Callable[[], object]) -> float:
    """Median seconds, the first time left out."""
    took = []
    for _ in range(1 + REPEATS):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        began = time.perf_counter()
        do()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        took.append(time.perf_counter() - began)
    return median(took[1:])


def page(found: dict[str, dict[str, float]]) -> str:
    """The page in Markdown."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    ways = list(next(iter(found.values())))
    head = ["", *(f"{name}, ms a device" for name in found), *(f"{name}, times the loop" for name in found)]
    rows = []
    for way in ways:
        own = "loop, GPU" if "GPU" in way else "loop, one processor core"
        ratios = [found[name][own] / found[name][way] for name in found]
        rows.append(
            [way, *(f"{found[name][way]:.3f}" for name in found), *(f"{each:.1f}x" for each in ratios)]
        )
    text = (
        "# Training together on a GPU\n\n"
        f"Written by `tests/benchmarks/simulation/gpu.py` ({when()}, {gpu}, torch {torch.__version__}).\n"
        f"A device trains {STEPS} batches of {BATCH} images; copies to the GPU and back are counted; medians of\n"
        f"{REPEATS} repeats. *Times the loop* is against the plain loop on the same processor.\n\n"
        + table(head, rows)
    )
    if not torch.cuda.is_available():
        return text + "\n\nThe GPU is not measured.\n"
    best = {name: max(found[name]["loop, GPU"] / found[name][way] for way in ways) for name in found}
    core = {name: found[name]["loop, one processor core"] / min(found[name].values()) for name in found}
    met = "met" if min(best.values()) >= TARGET else "missed"
    said = ", ".join(f"{name} {best[name]:.1f}x ({core[name]:.1f}x one core's loop)" for name in found)
    return text + f"\n\nAt best {said}; target: at least {TARGET:g}x the loop on the GPU; **{met}**.\n"


if __name__ == "__main__":
    main()
