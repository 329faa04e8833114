"""Weight sharing: a codebook of a few values for each tensor (Deep Compression, Han, Mao and Dally 2016, arXiv
1510.00149, section 3).

k-means finds the values; one of its two starts spreads them linearly over the range of the weights, as the paper found
best: large weights are few and matter. Fine-tuning moves the values; which weight has which does not change. Zeros stay
zero and take no entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Grid, Shared
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import LayerChange, TechniqueReport
from slimfleet.compression.model.training.tuning import Tuner, Tuning

__all__ = ["Share", "share"]

ITERATIONS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Settings of `share`."""

    values: Annotated[int, Ge(2), Le(65_535)] = 16
    """Values of a tensor besides zero; a tensor of fewer weights has as many as it has."""
    tuning: Tuning = field(default_factory=lambda: Tuning(optimizer="adamw", learning_rate=0.003))
    """Gradients of all weights of a value add up: AdamW, whose steps do not grow with them."""


def share(slim: SlimModel, central: CentralTask, settings: Share) -> tuple[SlimModel, TechniqueReport]:
    """Codebooks for tensors of two or more dimensions that are not quantised already."""
    weights = weights_of(slim.model)
    quantised = [name for name in weights if isinstance(slim.constraints.get(name), Grid)]
    places = {
        name: Shared(clustered(weight.detach(), settings.values))
        for name, weight in weights.items()
        if name not in quantised
    }
    if not places:
        raise BadInput("share finds no weights that are not quantised already: put it before quantise")
    shared, done = Tuner(
        slim.constrained(places), central, settings.tuning, "training shared values"
    ).finish()
    return shared, TechniqueReport(
        changed=tuple(LayerChange(name, f"{int(each.places.max())} values") for name, each in places.items()),
        whole=tuple(LayerChange(name, "it is quantised already") for name in quantised),
        steps=done.steps,
    )


def clustered(weight: Tensor, count: int) -> Tensor:
    """int64, the shape of `weight`: 0 for zeros, else 1 + the place of the nearest of `count` means (Lloyd 1982,
    doi 10.1109/TIT.1982.1056489).

    Where there are no more than `count` values besides zero each has a place of its own.
    """
    flat = weight.flatten()
    used = flat[flat != 0]
    values, among = torch.unique(used, return_inverse=True)  # sorted: every cluster is a run of them
    times = torch.bincount(among, minlength=len(values))
    clusters = _clusters(values.double(), times.double(), count) if len(values) > count else None
    places = torch.zeros(flat.shape, dtype=torch.int64)
    places[flat != 0] = 1 + (among if clusters is None else clusters[among])
    return places.view_as(weight)


def _clusters(values: Tensor, times: Tensor, count: int) -> Tensor:
    """The cluster of each of the sorted `values` [n], which occur so many `times`: 0 .. `count` - 1, n > `count`.

    From two starts, means spread linearly and runs that are split where their error is largest, the better end.
    """
    runs = _Runs(values, times)
    linear = torch.linspace(float(values[0]), float(values[-1]), count, dtype=torch.float64)
    starts = (runs.nearest(linear), torch.tensor([0, len(values)]))
    ends = min((runs.settled(start, count) for start in starts), key=runs.error)
    return torch.searchsorted(ends, torch.arange(len(values)), right=True) - 1


class _Runs:
    """Sorted values cut into runs; cumulative sums give the mean and the error of each at once.

    `ends` are the cuts, int64 [runs + 1], from 0 to the number of values.
    """

    def __init__(self, values: Tensor, times: Tensor) -> None:
        self._values = values
        self._sums = [_cumulated(times * values**power) for power in range(3)]

    def nearest(self, means: Tensor) -> Tensor:
        """The ends of the runs that are nearest to sorted means; none is empty, so there may be fewer."""
        cuts = torch.searchsorted(self._values, (means[1:] + means[:-1]) / 2)
        ends = torch.cat([cuts.new_zeros(1), cuts, cuts.new_tensor([len(self._values)])])
        return ends.unique_consecutive()  # type: ignore[no-any-return, no-untyped-call]

    def means(self, ends: Tensor) -> Tensor:
        """The mean of each run."""
        times, sums, _ = self._of(ends)
        return sums / times

    def error(self, ends: Tensor) -> float:
        """The sum of squared distances to the means."""
        return float(self._errors(ends).sum())

    def settled(self, ends: Tensor, count: int) -> Tensor:
        """The ends of `count` runs that Lloyd's algorithm reaches; a run that nothing is nearest to is given up, and
        another is split instead."""
        ends = self.filled(ends, count)
        for _ in range(ITERATIONS):
            before, ends = ends, self.filled(self.nearest(self.means(ends)), count)
            if torch.equal(before, ends):
                break
        return ends

    def filled(self, ends: Tensor, count: int) -> Tensor:
        """`count` runs: of the runs between `ends`, those of largest error are split at their means."""
        while len(ends) <= count:
            worst = int(torch.where(ends.diff() > 1, self._errors(ends), -torch.inf).argmax())
            cut = torch.searchsorted(self._values, self.means(ends)[worst])
            cut = cut.clamp(ends[worst] + 1, ends[worst + 1] - 1)
            ends = torch.cat([ends[: worst + 1], cut[None], ends[worst + 1 :]])
        return ends

    def _errors(self, ends: Tensor) -> Tensor:
        times, sums, squares = self._of(ends)
        return squares - sums**2 / times

    def _of(self, ends: Tensor) -> list[Tensor]:
        return [sums[ends[1:]] - sums[ends[:-1]] for sums in self._sums]


def _cumulated(values: Tensor) -> Tensor:
    return torch.cat([values.new_zeros(1), values.cumsum(0)])
