"""Each technique by itself on one model of every kind of data, and what a searched recipe gives together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from slimfleet.compression import BadInput
from slimfleet.compression.model.central import Progress
from slimfleet.compression.model.compress import Compressed, Request, compress
from slimfleet.compression.model.recipes.recipe import recipe_of
from slimfleet.compression.model.target import target_of

from .cases import Case
from .trained import trained

TUNED = "epochs=3, optimizer=adamw, learning_rate=0.002, soft_labels=0.7"
"""The same training for every technique that trains."""

RECIPES: Mapping[str, str] = {
    "prune": f"prune: share=0.5, {TUNED}",
    "fold": "fold",
    "separate": f"separate: {TUNED}",
    "factorise": f"factorise: {TUNED}",
    "recurrent": f"recurrent: {TUNED}",
    "tie": f"tie: {TUNED}",
    "search": f"search: flops=0.5, minutes=2, supernet_epochs=3, trials=60, {TUNED}",
    "sparsify": f"sparsify: share=0.8, {TUNED}",
    "sparsify 2:4": f"sparsify: pattern=2:4, {TUNED}",
    "share": "share: values=16, epochs=3",
    "quantise": f"quantise: weights=4, activations=8, {TUNED}",
    "quantise, mixed": f"quantise: weights=3, mixed=true, {TUNED}",
    "round": "round: loss=0.5",
    "adapt": f"adapt: size=0.1, {TUNED}",
    "distil": f"distil: {TUNED}",
}
"""Settings that a user would begin with; none is tuned for a model."""

TARGETS = ("size=0.05", "flops=0.5")
MINUTES = 4.0
"""Of the search for a recipe."""


def alone(case: Case, seed: int, technique: str, folder: Path, progress: Progress) -> dict[str, Any]:
    """What one technique gives, or the reason why it does nothing for this model."""
    recipe = recipe_of(RECIPES[technique])
    try:
        return _told(_made(case, seed, Request(recipe=recipe, seed=seed), folder, progress))
    except BadInput as error:
        return {"refused": str(error)}


def together(case: Case, seed: int, folder: Path, progress: Progress) -> dict[str, Any]:
    """What a search for a recipe gives."""
    targets = tuple(map(target_of, TARGETS))
    request = Request(targets=targets, minutes=MINUTES, seed=seed)
    made = _made(case, seed, request, folder, progress)
    return _told(made) | {"recipe": str(made.recipe), "met": made.met}


def _made(case: Case, seed: int, request: Request, folder: Path, progress: Progress) -> Compressed:
    model, _ = trained(case, seed, folder, progress)
    with TemporaryDirectory() as scratch:
        return compress(model, case.loaded(), request, Path(scratch), progress)


def _told(made: Compressed) -> dict[str, Any]:
    return {
        "size": made.after.bytes / (4 * made.before.parameters),
        "flops": made.after.flops / made.before.flops,
        "parameters": made.after.parameters / made.before.parameters,
        "points": made.points_lost,
    }
