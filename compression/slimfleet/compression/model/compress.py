"""Compression of a model: a recipe, given or searched for, then the file, and what it says is measured on the file."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask, Progress, central_task, silent
from slimfleet.compression.model.evaluation.measuring import Measured, measured
from slimfleet.compression.model.evaluation.threshold import points_lost
from slimfleet.compression.model.recipes.applying import Applied, applied
from slimfleet.compression.model.recipes.journal import Journal
from slimfleet.compression.model.recipes.recipe import Recipe
from slimfleet.compression.model.recipes.search import Found, excess_of, searched
from slimfleet.compression.model.saving.file import load_model, save_model
from slimfleet.compression.model.saving.stored import StoredTensor, stored_tensors
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.target import Target
from slimfleet.compression.model.training.teachers import Teachers
from slimfleet.compression.model.training.tuning import Tuning, tune
from slimfleet.compression.task import Evaluation, Task
from slimfleet.compression.types import DeviceProfile

__all__ = ["Compressed", "Request", "compress"]

MODEL, JOURNAL = "model.slim", "search.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a model has to become."""

    targets: tuple[Target, ...] = ()
    max_loss: float = 1.0
    """Points of accuracy that may be lost, at most; of a task without accuracy, percent of the loss gained."""
    recipe: Recipe | None = None
    """None searches for one that meets the targets."""
    minutes: float = 10.0
    """Of training in a search."""
    train: Tuning | None = None
    """Training of the model before anything else, for one that has none yet."""
    teachers: tuple[nn.Module, ...] = ()
    """Models that take the task's inputs, for soft labels; the model as it was, where there are none."""
    device: DeviceProfile | None = None
    """Whose joules are reported."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Compressed:
    """What became of a model."""

    task: str
    """Its name."""
    model: nn.Module
    """As read back from the file, in evaluation mode."""
    before: Measured
    after: Measured
    """Of the file, and of the model read back from it."""
    tested_before: Evaluation
    tested_after: Evaluation
    """On the task's test data, which no choice has looked at."""
    found: Found
    """The steps, and what a search has tried."""
    layers: tuple[StoredTensor, ...]
    """Every tensor of the file."""
    request: Request
    points_lost: float
    excess: float
    """How many times the largest limit; at most 1 where all targets are met."""

    @property
    def steps(self) -> tuple[Applied, ...]:
        """What each step of the recipe did."""
        return self.found.steps

    @property
    def recipe(self) -> Recipe:
        """The recipe, given or found."""
        return Recipe(tuple(each.step for each in self.steps))

    @property
    def met(self) -> bool:
        """Whether all targets are met, within the loss that was allowed."""
        return self.excess <= 1 and self.points_lost <= self.request.max_loss


def compress(
    model: nn.Module, task: Task, request: Request, folder: Path, progress: Progress = silent
) -> Compressed:
    """Make `model`, a trained model of `task`, small, and write it to `folder`/model.slim; `model` does not change.

    A search keeps its journal in the folder and goes on where it was interrupted. Raises BadInput for a model that is
    not the task's, one that holds NaN or infinity, a task with too few examples, and a folder with the search of
    something else.
    """
    check_model(model, task)
    central = central_task(task, request.seed, progress)
    central = replace(central, teachers=Teachers([deepcopy(teacher).eval() for teacher in request.teachers]))
    slim = SlimModel(deepcopy(model).eval())
    if request.train is not None:
        slim, _ = tune(slim, central, request.train, "training")
    if not central.teachers:
        central = replace(central, teachers=Teachers((deepcopy(slim.model).eval(),)))
    before = measured(slim, central, request.device)
    found = _found(slim, central, request, before, folder)
    made, path = found.slim, folder / MODEL
    save_model(made, path, task)
    loaded = load_model(path, task)
    for name, tensor in made.model.state_dict().items():
        if not torch.equal(tensor, loaded.state_dict()[name]):
            raise AssertionError(f"{path} does not hold {name!r} as it was measured")
    stored = replace(made, model=loaded)
    after = replace(measured(stored, central, request.device), bytes=path.stat().st_size)
    tested_before, tested_after = central.tested(slim.model), central.tested(loaded)
    return Compressed(
        task=task.name,
        model=loaded,
        before=before,
        after=after,
        tested_before=tested_before,
        tested_after=tested_after,
        found=found,
        layers=stored_tensors(stored, path),
        request=request,
        points_lost=points_lost(tested_after, tested_before),
        excess=excess_of(after, request.targets, before),
    )


def check_model(model: nn.Module, task: Task) -> None:
    """Raise BadInput where `model` has not the tensors of the model that `task` builds, or numbers that are none."""
    wanted, found = (
        {n: tuple(t.shape) for n, t in m.state_dict().items()} for m in (task.build_model(), model)
    )
    for name in wanted.keys() | found.keys():
        if wanted.get(name) != found.get(name):
            raise BadInput(
                f"this is no model of task {task.name!r}: tensor {name!r} is {_shape(found.get(name))}, "
                f"it should be {_shape(wanted.get(name))}"
            )
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise BadInput(f"parameter {name!r} holds NaN or infinity: train the model again")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else str(list(shape))


def _found(slim: SlimModel, central: CentralTask, request: Request, before: Measured, folder: Path) -> Found:
    if request.recipe is not None:
        return Found(*applied(slim, central, request.recipe, before, request.device))
    if not request.targets:
        raise BadInput(
            "nothing to do: give a target such as size=0.1, or a recipe such as 'quantise: weights=8'"
        )
    journal = Journal(folder / JOURNAL, _about(slim.model, central, request))
    return searched(slim, central, request.targets, before, request.minutes, journal, request.device)


def _about(model: nn.Module, central: CentralTask, request: Request) -> dict[str, Any]:
    """What a journal is of: another model, task, target or seed is another search."""
    digest = sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return {
        "model": digest.hexdigest(),
        "task": central.task.name,
        "targets": [str(target) for target in request.targets],
        "seed": request.seed,
    }
