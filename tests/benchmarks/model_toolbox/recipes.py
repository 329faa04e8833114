"""Recipes applied to trained models: what is left, as the file that is written has it."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from slimfleet.compression.model.central import Progress
from slimfleet.compression.model.compress import Request, compress
from slimfleet.compression.model.evaluation.measuring import flops_of, parameters_of
from slimfleet.compression.model.recipes.recipe import recipe_of

from .cases import CASES, Case
from .trained import trained


def applied(case: Case, seed: int, recipe: str, folder: Path, progress: Progress) -> dict[str, Any]:
    """What `recipe` makes of a case's trained model, which is in `folder`; of its student, where it has one.

    `parameters`, `flops` and `size` are shares of the trained model's; `size` is that of model.slim over the float32
    parameters. `points` of test accuracy are lost.
    """
    model, central = trained(case, seed, folder, progress)
    reference = central.tested(model)
    task, start = case.loaded(), model
    teachers = tuple(trained(CASES[name], seed, folder, progress)[0] for name in case.teachers)
    if case.student:
        task, teachers = case.of_student(), (model, *teachers)
        torch.manual_seed(seed)
        start = task.build_model()
    began, cpu = time.perf_counter(), time.process_time()
    with TemporaryDirectory() as scratch:
        request = Request(recipe=recipe_of(recipe), teachers=teachers, seed=seed)
        made = compress(start, task, request, Path(scratch), progress)
    assert reference.accuracy is not None
    assert made.tested_after.accuracy is not None
    return {
        "parameters": made.after.parameters / parameters_of(model),
        "flops": made.after.flops / flops_of(model, central.example_inputs),
        "size": made.after.bytes / (4 * parameters_of(model)),
        "bytes": made.after.bytes,
        "before": reference.accuracy,
        "after": made.tested_after.accuracy,
        "points": 100 * (reference.accuracy - made.tested_after.accuracy),
        "steps": [
            {
                "step": str(each.step),
                "bytes": each.after.bytes,
                "flops": each.after.flops,
                "accuracy": each.after.accuracy,
            }
            for each in made.steps
        ],
        "seconds": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
    }
