"""Candidates: recipes that should meet the targets, from measuring what each step saves, without any training.

Structure first: as many channels go as FLOPs, latency, energy, memory or parameters demand. Then bits: for every
sparsity the most bits whose file still fits, and of those the ones that change the weights least. Batch normalisations
are folded and vectors shortened at the end. Which of the candidates loses least only training tells: see `search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.device_costs import COSTS
from slimfleet.compression.model.evaluation.measuring import Measured
from slimfleet.compression.model.recipes.recipe import Recipe, recipe_of
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.target import Target
from slimfleet.compression.model.toolbox import TECHNIQUES
from slimfleet.compression.model.training.recalibration import has_statistics
from slimfleet.compression.types import DeviceProfile

__all__ = ["Candidate", "candidates"]

STRUCTURES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of the FLOPs that channels take with them."""
MOST_STRUCTURES = 4
"""Of those that fit, the gentlest."""
SPARSITIES = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95)
BITS = (8, 6, 5, 4, 3, 2)
MOST_OF_A_STRUCTURE = 2
MARGIN = 0.97
"""Of its limit that a file may take before training, which makes files up to 3 % larger."""
WEIGHTS = {"prune": 3.0, "sparsify": 1.0, "quantise": 2.0}
"""How the epochs of a recipe are shared out."""
FOLD, SHORTEN = "fold", "round: mantissa=6"
"""What ends a recipe, without training: after `quantise`, `round` has only vectors and steps left to shorten."""
SIZES = ("size", "nonzero")
"""Targets that bits and zeros serve; all others are met by structure."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A recipe without training."""

    parts: tuple[str, ...]
    """Steps as they are written, without the settings of training."""
    excess: float = 0.0
    """How many times the largest limit it has; at most 1 where all targets are met."""
    change: float = 0.0
    """Squared change of the weights that are left, over their squared norm."""

    def recipe(self, epochs: float, tuning: str) -> Recipe:
        """The recipe, with so many epochs of training in all and these settings of it besides."""
        weights = [WEIGHTS.get(part.partition(":")[0], 0.0) for part in self.parts]
        steps = [
            f"{part}, epochs={epochs * weight / sum(weights):.4g}{tuning}" if weight else part
            for part, weight in zip(self.parts, weights, strict=True)
        ]
        return recipe_of("; ".join(steps))


class _Tried:
    """Untrained models, and what of them the targets are about."""

    def __init__(
        self, central: CentralTask, targets: Sequence[Target], before: Measured, profile: DeviceProfile | None
    ) -> None:
        self.central, self.before = central, before
        self.of_structure = [target for target in targets if target.quantity not in SIZES]
        self.of_bits = [target for target in targets if target.quantity in SIZES]
        self._profile = profile

    def excess(self, slim: SlimModel, targets: Sequence[Target]) -> float:
        """How many times the largest limit."""
        values = [COSTS[target.quantity](slim, self.central, self._profile) for target in targets]
        return max(
            (t.excess(value, self.before) for t, value in zip(targets, values, strict=True)), default=0.0
        )

    def made(self, slim: SlimModel, part: str) -> SlimModel:
        """What a step makes of a model without training it."""
        trains = part.partition(":")[0] in WEIGHTS
        for step in recipe_of(f"{part}, epochs=0" if trains else part).steps if part else ():
            slim, _ = TECHNIQUES[step.technique].apply(slim, self.central, step.settings)
        return slim


def candidates(
    slim: SlimModel,
    central: CentralTask,
    targets: Sequence[Target],
    before: Measured,
    profile: DeviceProfile | None = None,
) -> list[Candidate]:
    """Recipes that meet the targets, gentlest structure first; where none does, those that come nearest."""
    tried = _Tried(central, targets, before, profile)
    structures = _structures(tried, slim)
    found: list[Candidate] = []
    for done, (part, smaller, excess) in enumerate(structures):
        found += _bits(tried, part, smaller, excess)
        central.progress("what fits", done + 1, len(structures))
    fitting = [each for each in found if each.excess <= 1]
    return fitting or sorted(found, key=lambda each: each.excess)[:MOST_OF_A_STRUCTURE]


def _structures(tried: _Tried, slim: SlimModel) -> list[tuple[str, SlimModel, float]]:
    """Steps of pruning that meet what bits cannot, gentlest first, with their models and excess."""
    exact = [
        1 - t.limit(tried.before) / tried.before.flops for t in tried.of_structure if t.quantity == "flops"
    ]
    least = max(exact, default=0.0)
    enough = MOST_STRUCTURES if tried.of_bits else 1
    found: list[tuple[str, SlimModel, float]] = []
    for share in sorted({least, *(share for share in STRUCTURES if share >= least)}):
        part = f"prune: share={share:.4g}" if share > 0 else ""
        smaller = tried.made(slim, part)
        found.append((part, smaller, tried.excess(smaller, tried.of_structure)))
        if sum(excess <= 1 for *_, excess in found) == enough:
            break
    return [each for each in found if each[2] <= 1] or [min(found, key=lambda each: each[2])]


def _bits(tried: _Tried, structure: str, smaller: SlimModel, excess: float) -> list[Candidate]:
    """The candidates of one structure: for each sparsity the most bits that fit; of these the gentlest."""
    if not tried.of_bits:
        return [Candidate((structure,), excess, 0.0)]
    found: list[Candidate] = []
    last = (FOLD, SHORTEN) if has_statistics(smaller.model) else (SHORTEN,)
    for step in last[:-1]:
        smaller = tried.made(smaller, step)
    for sparsity in SPARSITIES:
        zeroed = f"sparsify: share={sparsity}" if sparsity else ""
        sparse = tried.made(smaller, zeroed and f"{zeroed}, pace=one-shot")
        for bits in BITS:
            part = f"quantise: weights={bits}"
            rounded = tried.made(sparse, f"{part}, rounding=nearest")
            size = tried.excess(tried.made(rounded, SHORTEN), tried.of_bits)
            own = max(excess, size)
            if size <= MARGIN or bits == BITS[-1]:
                parts = (*filter(None, (structure, zeroed, part)), *last)
                found.append(Candidate(parts, own, _change(rounded, smaller)))
                break
    return sorted(found, key=lambda each: (max(each.excess, 1), each.change))[:MOST_OF_A_STRUCTURE]


def _change(slim: SlimModel, reference: SlimModel) -> float:
    now, was = weights_of(slim.model), weights_of(reference.model)
    error = sum(float(((now[name] - was[name]).detach() ** 2).sum()) for name in was)
    return error / max(sum(float((weight.detach() ** 2).sum()) for weight in was.values()), 1e-30)
