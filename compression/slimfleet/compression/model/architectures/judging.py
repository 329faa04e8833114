"""Judging sub-networks: what each costs, how good it is, and which is best within limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

from torch import nn

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.architectures.subnets import Choice, Space, on_grids, subnet
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.device_costs import COSTS, profile_named
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.target import Target
from slimfleet.compression.model.training.recalibration import recalibrated
from slimfleet.compression.task import Evaluation

__all__ = ["ANCHORS", "Judge", "Scored", "best_of"]

ANCHORS = 8
"""Sub-networks that are as small on every axis, with which a search begins."""

MOST_EXAMPLES = 2000
"""Validation examples that a sub-network is scored on."""


@dataclass(frozen=True)
class Scored:
    """A sub-network's marks."""

    choice: Choice
    evaluation: Evaluation
    costs: Mapping[str, float]
    """As shares of what the original has."""
    over: tuple[float, ...]
    """How far each cost is over its limit, as a share of that; below 0 inside."""

    @property
    def keeps(self) -> bool:
        """Whether it keeps to all limits."""
        return max(self.over) <= 0


class Judge:
    """Makes and scores sub-networks."""

    def __init__(
        self, space: Space, central: CentralTask, slim: SlimModel, limits: Mapping[str, Target], device: str
    ) -> None:
        self.space, self._slim = space, slim
        self.central = replace(central, validation=central.validation.take(slice(MOST_EXAMPLES)))
        self._profile = profile_named(device) if device else None
        self._limits = limits
        self._whole = self._costs(replace(slim, model=deepcopy(slim.model)))

    def made(self, model: nn.Module, choice: Choice) -> SlimModel:
        """The sub-network of a choice, ready to be used."""
        small = recalibrated(subnet(self.space, model, choice).model, self.central)
        return on_grids(self.space, replace(self._slim, model=small), choice)

    def scored(self, small: SlimModel, choice: Choice) -> Scored:
        """What a sub-network costs, and how good it is."""
        costs = self._costs(small)
        shares = {name: cost / self._whole[name] for name, cost in costs.items()}
        over = tuple(
            (shares[name] / limit.share if limit.share else costs[name] / (limit.absolute or 1.0)) - 1
            for name, limit in self._limits.items()
        )
        return Scored(choice, self.central.validated(small.model), shares, over)

    def _costs(self, slim: SlimModel) -> dict[str, float]:
        slim.model.eval()
        return {name: COSTS[name](slim, self.central, self._profile) for name in self._limits}


def best_of(tried: Sequence[Scored]) -> Scored:
    """The one of least loss that keeps to the limits. Raises BadInput where none does."""
    inside = [each for each in tried if each.keeps]
    if not inside:
        near = min(tried, key=lambda each: max(each.over))
        reached = ", ".join(f"{share:.3g} of the {cost}" for cost, share in near.costs.items())
        raise BadInput(
            f"search finds no architecture within the limits, the nearest has {reached}: raise the limits, or lower "
            f"narrowest"
        )
    return min(inside, key=lambda each: each.evaluation.loss)
