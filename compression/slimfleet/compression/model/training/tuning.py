"""Fine-tuning: the one loop of training that every technique uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil, cos, inf, isfinite, pi
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from torch import Tensor, nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Constrained, Constraints
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.training.memory_format import channels_first, channels_last
from slimfleet.compression.model.training.recalibration import has_statistics, recalibrated
from slimfleet.compression.model.training.soft_labels import Loss, Weighting, distillation_loss
from slimfleet.compression.model.training.teachers import Batch
from slimfleet.compression.modes import evaluating
from slimfleet.compression.task import Evaluation
from slimfleet.compression.threads import denormals_flushed
from slimfleet.compression.training import prepared, shuffled_places, train_step
from slimfleet.compression.types import Precision

__all__ = ["Tuned", "Tuner", "Tuning", "Watch", "better", "soft_loss", "tune"]

Watch = Callable[[nn.Module, Mapping[str, Tensor]], None]
"""Sees the model at every step, with the gradients of its weights before constraints change them, and what the
optimiser moves, by the names of the parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How weights are trained."""

    epochs: Annotated[float, Ge(0), Le(10_000)] = 5.0
    learning_rate: Annotated[float, Gt(0), Le(10)] = 0.01
    batch_size: Annotated[int, Ge(1), Le(65_536)] = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    momentum: Annotated[float, Ge(0), Lt(1)] = 0.9
    weight_decay: Annotated[float, Ge(0), Lt(1)] = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    """`cosine` lowers the learning rate to 0 at the end (Loshchilov and Hutter 2017, arXiv 1608.03983, eq. 5)."""
    warmup: Annotated[float, Ge(0), Le(1)] = 0.0
    """Share of the steps over which the learning rate rises from 0."""
    patience: Annotated[int, Ge(0)] = 0
    """Epochs without a better validation loss after which training stops; 0 never stops early."""
    precision: Precision = "float32"
    """`bfloat16` runs the forward pass under torch's autocast: faster where the processor has it."""
    soft_labels: Annotated[float, Ge(0), Le(1)] = 0.0
    """Weight of what the teachers say, of a recipe the model as it was; the task's own loss has the rest."""
    temperature: Annotated[float, Gt(0), Le(100)] = 4.0
    """At which the teachers' outputs are soft labels."""
    weighting: Weighting = "dynamic"
    """Of several teachers: on each example by how likely they find the right label, or equal."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What fine-tuning did."""

    steps: int
    validation: Evaluation
    """Of the weights that were kept."""


class Tuner:
    """Training of a copy of a slim model, some steps at a time; constraints may change between them.

    `loss` stands in for the task's own, and for soft labels. Raises BudgetExceeded("examples") where the model cannot
    train on batches of this size; BadInput for soft labels without a teacher, or of one that does not fit, and, from
    `run`, where the loss is no longer finite.
    """

    def __init__(
        self,
        slim: SlimModel,
        central: CentralTask,
        settings: Tuning,
        what: str = "training",
        loss: Loss | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.model = channels_last(deepcopy(slim.model))
        self._constrained = Constrained(self.model, slim.constraints)
        self._watch = watch
        self._central, self._settings, self._what = central, settings, what
        self._loss = loss or soft_loss(self.model, central, settings)
        self.epoch = ceil(len(central.training) / settings.batch_size)
        """Steps of an epoch."""
        self.planned = round(settings.epochs * self.epoch)
        self.done = 0
        trained = [self.model, loss] if isinstance(loss, nn.Module) else [self.model]
        self._optimizer = _optimizer(trained, settings)
        self._train_steps(slim.constraints)
        single = prepared(self.model, central.task, central.training, settings.batch_size)
        self._training = [module for module in self.model.modules() if module.training]
        rng = np.random.default_rng([central.seed, 7])
        self._places = shuffled_places(len(central.training), settings.batch_size, rng, single=single)

    @property
    def slim(self) -> SlimModel:
        """The model as it is now, in evaluation mode. It changes with further steps."""
        self.model.eval()
        return SlimModel(self.model, dict(self._constrained.constraints))

    @property
    def moved(self) -> dict[str, Tensor]:
        """What the optimiser moves, by the name of the parameter: weights before they are rounded."""
        return self._constrained.moved

    def constrain(self, more: Constraints) -> None:
        """Let the weights obey these constraints too, from now on."""
        self._constrained.constrain(more)
        self._train_steps(more)

    def _train_steps(self, of: Constraints) -> None:
        if steps := [self._constrained.steps[name] for name in of if name in self._constrained.steps]:
            self._optimizer.add_param_group({"params": steps, "weight_decay": 0.0})

    def run(self, steps: int) -> float:
        """Take so many steps, at most those that are left; their mean loss."""
        with torch.random.fork_rng(devices=[]), denormals_flushed():
            torch.manual_seed(self._central.seed + 1_000_003 * self.done)  # dropout is random too
            return self._run(min(steps, self.planned - self.done))

    def _run(self, count: int) -> float:
        for module in self._training:
            module.training = True
        total = 0.0
        for index in islice(self._places, count):
            self._set_learning_rate()
            loss = train_step(
                self.model,
                self._central.task,
                Batch.taken(self._central.training, index),
                self._optimizer,
                self._settings.precision,
                loss=self._loss,
                adjust=self._adjust,
            )
            if not isfinite(loss):
                raise BadInput(
                    f"{self._what}: the loss is {loss} at step {self.done + 1:,}: lower learning_rate "
                    f"({self._settings.learning_rate:g})"
                )
            total += loss
            self._constrained.after_step()
            self.done += 1
            self._central.progress(self._what, self.done, self.planned)
        return total / max(count, 1)

    def _adjust(self) -> None:
        if self._watch is not None:
            self._watch(self.model, self.moved)
        self._constrained.before_step()

    def finish(self) -> tuple[SlimModel, Tuned]:
        """Take the steps that are left, with an evaluation after every epoch; the best model since now is kept.

        That before the first step counts too, as it is and with statistics of batch normalisations estimated anew.
        """
        best, kept = self._now()
        waited = 0
        while self.done < self.planned and (not self._settings.patience or waited < self._settings.patience):
            self.run(self.epoch)
            now = self.validated()
            waited += 1
            if better(now, best):
                best, kept, waited = now, deepcopy(self.slim), 0
        return replace(kept, model=channels_first(kept.model)), Tuned(self.done, best)

    def _now(self) -> tuple[Evaluation, SlimModel]:
        best, kept = self.validated(), deepcopy(self.slim)
        if has_statistics(kept.model):
            tried = recalibrated(kept.model, self._central)
            now = self._central.validated(tried)
            if better(now, best):
                return now, replace(kept, model=tried)
        return best, kept

    def validated(self) -> Evaluation:
        """The present weights on the validation data."""
        return self._central.validated(self.model)

    def _set_learning_rate(self) -> None:
        settings = self._settings
        done = self.done / max(self.planned, 1)
        warm = min(done / settings.warmup, 1.0) if settings.warmup else 1.0
        rest = max(done - settings.warmup, 0.0) / max(1.0 - settings.warmup, 1e-9)
        level = 0.5 * (1 + cos(pi * rest)) if settings.schedule == "cosine" else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = settings.learning_rate * warm * level


def tune(
    slim: SlimModel,
    central: CentralTask,
    settings: Tuning,
    what: str = "fine-tuning",
    loss: Loss | None = None,
) -> tuple[SlimModel, Tuned]:
    """Train a copy of `slim`, as `Tuner.finish` does; `loss` stands in for the task's own.

    The weights before the first step count too, so that training never makes a model worse on the validation data.
    """
    tuner = Tuner(slim, central, settings, what, loss)
    return tuner.finish()


def soft_loss(student: nn.Module, central: CentralTask, settings: Tuning) -> Loss | None:
    """The loss with soft labels; None where they count for nothing. Raises BadInput as `Tuner` does."""
    if not settings.soft_labels:
        return None
    if not central.teachers:
        raise BadInput("soft_labels needs a teacher: give one, such as the model before the recipe")
    with torch.no_grad(), evaluating(student):
        central.teachers.check(student(*central.example_inputs), central.example_inputs)
    return distillation_loss(central, settings.soft_labels, settings.temperature, settings.weighting)


def better(one: Evaluation, other: Evaluation) -> bool:
    """Whether the first has the higher accuracy, or the lower loss where that is equal or unknown."""
    return _merit(one) > _merit(other)


def _merit(evaluation: Evaluation) -> tuple[float, float]:
    accuracy = -inf if evaluation.accuracy is None else evaluation.accuracy
    return accuracy, -evaluation.loss


def _optimizer(trained: Sequence[nn.Module], settings: Tuning) -> torch.optim.Optimizer:
    parameters = [p for module in trained for p in module.parameters() if p.requires_grad]
    decayed = [p for p in parameters if p.dim() >= 2]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.momentum)
