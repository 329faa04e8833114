"""Architecture search: the sub-network of a model that does best within what a device has, over width, depth, kernel
size and bits.

`supernet` trains the model so that its sub-networks work with the weights they share; then many are scored on
validation data as they are, on the way to the Pareto front of loss and cost (once-for-all, Cai et al. 2020, arXiv
1908.09791; NSGA-II, Deb et al. 2002, doi 10.1109/4235.996017). `halving` trains many a little, keeps the best third,
trains those three times as long, and so on (successive halving, Jamieson and Talwalkar 2016, arXiv 1502.07943). The
one chosen is fine-tuned.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from torch import nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.architectures.halving import halved
from slimfleet.compression.model.architectures.judging import ANCHORS, Judge, Scored, best_of
from slimfleet.compression.model.architectures.replacing import taught
from slimfleet.compression.model.architectures.subnets import Axes, space_of
from slimfleet.compression.model.architectures.supernet import supernet
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.pareto import front_plot
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.target import Target, target_of
from slimfleet.compression.model.technique import LayerChange, Plot, TechniqueReport
from slimfleet.compression.model.training.tuning import Tuning, tune

__all__ = ["Search", "search"]

LIMITED = ("flops", "latency", "memory", "energy", "size", "parameters")

Limit = float | str | None
"""A share of what the model has, or a number with its unit: see `target_of`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """Settings of `search`. Raises BadInput for a limit that is none."""

    flops: Limit = None
    latency: Limit = None
    memory: Limit = None
    energy: Limit = None
    size: Limit = None
    parameters: Limit = None
    """Limits, as shares of what the model has or with a unit: `0.3`, `12ms`, `200kB`. FLOPs, latency on one thread of
    this machine, peak memory and energy (simulated) are those of one example, `size` is that of model.slim. Without
    any, half the FLOPs."""
    device: str = ""
    """Name of the device profile that joules are simulated with; a limit in joules needs one."""
    width: bool = True
    depth: bool = True
    kernel: bool = True
    bits: bool = False
    """What is searched over: channels, blocks that keep shapes, kernels of five taps and more, bits of the weights.
    With bits the weights are on grids afterwards, so that later techniques cannot change layers."""
    narrowest: Annotated[float, Gt(0), Le(1)] = 0.25
    """Share of each group's channels that stays in any case."""
    strategy: Literal["supernet", "halving"] = "supernet"
    sampler: Literal["nsga2", "tpe"] = "nsga2"
    """Of `supernet`."""
    supernet_epochs: Annotated[float, Ge(0), Le(10_000)] = 5.0
    """Epochs that the supernet trains for, with the other settings of `tuning`."""
    trials: Annotated[int, Ge(2), Le(100_000)] = 200
    """Sub-networks that are scored."""
    minutes: Annotated[float, Gt(0)] = 10.0
    """Time for everything before the last fine-tuning; the supernet gets half of it, or less if it needs less. What
    is under way then ends early."""
    tuning: Tuning = field(default_factory=lambda: Tuning(soft_labels=0.7))

    def __post_init__(self) -> None:
        limits = self.limits
        if "energy" in limits and limits["energy"].share is None and not self.device:
            raise BadInput("search: a limit in joules needs the name of a device profile: give device=NAME")

    @property
    def limits(self) -> dict[str, Target]:
        """Name of a cost -> its limit. Raises BadInput for what is none."""
        given = {name: getattr(self, name) for name in LIMITED}
        found = {name: value for name, value in given.items() if value is not None} or {"flops": 0.5}
        return {name: target_of(f"{name}={value}") for name, value in found.items()}

    @property
    def axes(self) -> Axes:
        """What is searched over."""
        chosen = {"width": self.width, "depth": self.depth, "kernel": self.kernel, "bits": self.bits}
        return frozenset(axis for axis, wanted in chosen.items() if wanted)  # type: ignore[misc]


def search(slim: SlimModel, central: CentralTask, settings: Search) -> tuple[SlimModel, TechniqueReport]:
    """The best sub-network within the limits.

    Raises BadInput where nothing can be chosen, or where no sub-network that was found keeps to the limits.
    """
    original = slim.unconstrained("search")
    began = time.monotonic()
    until = began + 60 * settings.minutes
    space = space_of(original, central, settings.axes, settings.narrowest)
    if not space.axes:
        raise BadInput(
            "search finds nothing to choose in this model: it has no channels, blocks or kernels to remove"
        )
    judge = Judge(space, central, slim, settings.limits, settings.device)
    if settings.strategy == "supernet":
        tuning = replace(settings.tuning, epochs=settings.supernet_epochs)
        model, steps = supernet(slim, space, central, tuning, (began + until) / 2)
        tried = _explored(judge, model, settings, until)
        best = best_of(tried)
        small = judge.made(model, best.choice)
    else:
        small, best, tried, steps = halved(judge, original, settings.trials, settings.tuning, until)
    tuned, done = tune(small, taught(original, central), settings.tuning, "search: fine-tuning")
    return tuned, TechniqueReport(
        changed=tuple(LayerChange(axis.of, axis.told(value)) for axis, value in space.changes(best.choice)),
        whole=tuple(LayerChange(each.name, each.reason) for each in space.whole),
        plots={
            f"{cost} and validation loss": _plot(tried, cost, best, over)
            for cost, over in zip(settings.limits, best.over, strict=True)
        },
        steps=steps + done.steps,
    )


def _explored(judge: Judge, model: nn.Module, settings: Search, until: float) -> list[Scored]:
    """Sub-networks with the weights of `model`, the first ones equally small on every axis."""
    optuna = _optuna()
    space, known = judge.space, dict[tuple[int, ...], Scored]()

    def objective(trial: Any) -> tuple[float, ...]:
        places = {axis.name: trial.suggest_int(axis.name, 0, len(axis.values) - 1) for axis in space.axes}
        key = tuple(places.values())
        if key not in known:
            choice = {axis.name: axis.values[places[axis.name]] for axis in space.axes}
            known[key] = judge.scored(judge.made(model, choice), choice)
        judge.central.progress("search: scoring", trial.number + 1, settings.trials)
        for name, over in zip(settings.limits, known[key].over, strict=True):
            trial.set_constraint(name, over)
        return known[key].evaluation.loss, *known[key].costs.values()

    study = optuna.create_study(
        directions=["minimize"] * (1 + len(settings.limits)),
        sampler=_sampler(optuna, judge.central.seed, settings),
    )
    for anchor in range(min(ANCHORS, settings.trials)):
        choice = space.level(anchor / (ANCHORS - 1))
        study.enqueue_trial({axis.name: axis.values.index(choice[axis.name]) for axis in space.axes})
    study.optimize(objective, n_trials=settings.trials, timeout=max(until - time.monotonic(), 1))
    return list(known.values())


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise BadInput(
            "search needs Optuna for its supernet, which is not installed: pip install 'slimfleet[model]', or take "
            "strategy=halving"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _sampler(optuna: Any, seed: int, settings: Search) -> Any:
    if settings.sampler == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    population = max(min(settings.trials // 8, 50), 2)
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=population)


def _plot(tried: Sequence[Scored], cost: str, best: Scored, over: float) -> Plot:
    """Cost, as a share of the original's, against validation loss; `over` is the chosen one's, by the limit."""
    return front_plot(
        (f"{cost}, as a share of the model before", "validation loss"),
        [(each.costs[cost], each.evaluation.loss) for each in tried],
        (best.costs[cost], best.evaluation.loss),
        best.costs[cost] / (1 + over),
    )
