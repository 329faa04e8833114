"""torch-pruning alone, as its README has it, and our `prune`: equal FLOPs, equal fine-tuning, the task's own loss.

Both prune in five stages with fine-tuning after each, over all layers together and, by magnitude, the same share of
each layer. Ours with soft labels of the trained model is a further row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.measuring import flops_of, parameters_of
from slimfleet.compression.model.evaluation.threshold import points_lost
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.techniques.prune import Prune, prune
from slimfleet.compression.model.training.schedule import shares
from slimfleet.compression.model.training.teachers import Teachers
from slimfleet.compression.model.training.tuning import Tuning, tune

SHARE = 0.6
"""Of the FLOPs, that is removed."""
TUNING = Tuning(
    epochs=3,
    optimizer="adamw",
    learning_rate=1e-3,
    batch_size=128,
    weight_decay=0.01,
    warmup=0.1,
    precision="bfloat16",
)
SMALL_STEPS = 200
"""That take torch-pruning from all channels to next to none."""
EXAMPLES = 512
"""Of which gradients are taken."""

Importance = Callable[[], Any]
_MAGNITUDE = partial(tp.importance.GroupMagnitudeImportance, p=2)
PEERS: Mapping[str, tuple[Importance, bool]] = {
    "torch-pruning, magnitude": (_MAGNITUDE, True),
    "torch-pruning, magnitude, by layer": (_MAGNITUDE, False),
    "torch-pruning, Taylor": (tp.importance.GroupTaylorImportance, True),
}
"""Importance, and whether all layers compete."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """A model with fewer channels."""

    method: str
    flops: float
    """Share of the trained model's."""
    parameters: float
    validation_lost: float
    """Points of accuracy."""
    test_lost: float


def measured(
    model: nn.Module, central: CentralTask, share: float = SHARE, tuning: Tuning = TUNING
) -> list[Pruned]:
    """Models with `share` of the FLOPs of `model` removed; the peer's have those that ours has at most."""
    taught = replace(central, teachers=Teachers((model,)))
    settings = Prune(share=share, tuning=tuning)
    soft = replace(tuning, soft_labels=0.7)
    ours = {
        "prune, magnitude": (central, settings),
        "prune, magnitude, by layer": (central, replace(settings, scope="layer")),
        "prune, Taylor": (central, replace(settings, importance="taylor")),
        "prune, magnitude, soft labels": (taught, replace(settings, tuning=soft)),
    }
    made = {name: prune(SlimModel(model), *how)[0].model for name, how in ours.items()}
    made |= {name: _peer(model, central, share, tuning, *how) for name, how in PEERS.items()}
    return [_row(name, each, model, central) for name, each in made.items()]


def _row(method: str, pruned: nn.Module, model: nn.Module, central: CentralTask) -> Pruned:
    inputs = central.example_inputs
    return Pruned(
        method,
        flops_of(pruned, inputs) / flops_of(model, inputs),
        parameters_of(pruned) / parameters_of(model),
        points_lost(central.validated(pruned), central.validated(model)),
        points_lost(central.tested(pruned), central.tested(model)),
    )


def _peer(
    model: nn.Module,
    central: CentralTask,
    share: float,
    tuning: Tuning,
    importance: Importance,
    across_layers: bool,
) -> nn.Module:
    inputs = central.example_inputs
    pruned = deepcopy(model)
    classes = pruned(*inputs).shape[1]
    pruner = tp.pruner.BasePruner(
        pruned,
        inputs[0],
        importance=importance(),
        global_pruning=across_layers,
        pruning_ratio=0.99,
        max_pruning_ratio=0.95,
        iterative_steps=SMALL_STEPS,
        ignored_layers=[
            m for m in pruned.modules() if isinstance(m, nn.Linear) and m.out_features == classes
        ],
    )
    whole = flops_of(pruned, inputs)
    stages = list(shares("iterative", share))
    for removed in stages:
        _with_gradients(pruned, central)
        while flops_of(pruned, inputs) > (1 - removed) * whole:
            pruner.step()
        tuned, _ = tune(SlimModel(pruned), central, replace(tuning, epochs=tuning.epochs / len(stages)))
        pruned.load_state_dict(tuned.model.state_dict())
    return pruned.eval()


def _with_gradients(model: nn.Module, central: CentralTask) -> None:
    """Let the weights have gradients, which an importance may want."""
    examples = central.training.take(slice(EXAMPLES))
    model.eval().zero_grad()
    central.loss(model(*examples.arguments), examples.targets).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf"))
