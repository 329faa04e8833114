"""One model, examined in a process of its own.

    python -m models_zoo.examine torchvision/mobilenet_v2

writes a line of JSON after each stage, the last of which holds everything: what a killed process had found out is
not lost.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import nn

from slimfleet.compression.cost import measure_work
from slimfleet.compression.pruning import Discovery
from slimfleet.compression.pruning.discover import discover

from . import ours, peer
from .bounds import OutOfTime, at_most, bound_memory
from .hand_count import training_flops
from .outcome import Outcome
from .step import loss, train
from .zoo import Entry, build, named


@dataclass(slots=True)
class Examined:
    """What the stages hand on."""

    entry: Entry
    outcome: Outcome
    found: Discovery | None = None


def main() -> None:
    """Examine the model that is named on the command line."""
    torch.set_num_threads(1)
    bound_memory()
    warnings.simplefilter("ignore")
    examine(named(sys.argv[1]), lambda outcome: print(json.dumps(asdict(outcome)), flush=True))


def examine(entry: Entry, say: Callable[[Outcome], None]) -> Outcome:
    """Every stage in turn, with `say` after each; one that fails does not keep the others from running."""
    examined = Examined(entry, Outcome(entry.name))
    for name, (stage, seconds) in STAGES.items():
        try:
            with at_most(seconds):
                stage(examined)
        except OutOfTime:
            examined.outcome.failures[name] = f"timeout ({seconds} s)"
        except Exception as error:  # noqa: BLE001 - whatever a model brings about is a cell of the table
            examined.outcome.failures[name] = _line(error)
        say(examined.outcome)
    return examined.outcome


def _count_by_hand(examined: Examined) -> None:
    model, inputs = build(examined.entry)
    examined.outcome.numbers["parameters"] = _parameters(model)
    examined.outcome.numbers["hand_flops"] = training_flops(model, inputs)


def _count(examined: Examined) -> None:
    model, inputs = build(examined.entry)
    work = measure_work(model, inputs, loss, targets=torch.zeros(1, dtype=torch.int64))
    examined.outcome.numbers["flops"] = work.flops_per_example


def _prune(examined: Examined) -> None:
    """torch-pruning must see attention as single operators, which its examples for timm arrange as well."""
    model, inputs = build(examined.entry, fused_attention=False)
    pruned = peer.pruned(model, inputs)
    examined.outcome.numbers["peer_parameters"] = _parameters(pruned)
    try:
        train(pruned, inputs)
    except Exception as error:  # noqa: BLE001 - as above
        examined.outcome.failures["its training"] = _line(error)


def _discover(examined: Examined) -> None:
    model, inputs = build(examined.entry)
    began = time.process_time()
    examined.found = discover(model, inputs)
    examined.outcome.numbers["discovery_s"] = time.process_time() - began
    examined.outcome.numbers["groups"] = len(examined.found.groups)
    types = {path: type(module).__name__ for path, module in model.named_modules()}
    for left in examined.found.whole:
        examined.outcome.whole.setdefault(left.reason, []).append(types.get(left.name, left.name))


def _halve(examined: Examined) -> None:
    if examined.found is None:
        return
    model, inputs = build(examined.entry)
    half = ours.halved(model, examined.found.groups)
    examined.outcome.numbers["half_parameters"] = _parameters(half)
    examined.outcome.numbers["error"] = ours.error(model, examined.found.groups, inputs)
    train(half, inputs)
    examined.outcome.numbers["trained"] = 1


STAGES: dict[str, tuple[Callable[[Examined], None], float]] = {
    "hand count": (_count_by_hand, 60),
    "FLOPs": (_count, 60),
    "torch-pruning": (_prune, 60),
    "discovery": (_discover, 100),
    "half width": (_halve, 60),
}
"""Each with the most seconds of processor time that it may take."""


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _line(error: Exception) -> str:
    """Type and first line of an error, at most 100 characters: one cell of a table."""
    text = " ".join((str(error).strip().splitlines() or [""])[0].split())
    return f"{type(error).__name__}: {text}"[:100].replace("|", "/").rstrip(": ")


if __name__ == "__main__":
    main()
