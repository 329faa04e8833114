"""Weight sharing: a codebook of a few values for each tensor (Deep Compression, Han, Mao and Dally 2016, arXiv
1510.00149, section 3).

k-means finds the values, from centroids spread linearly over the range of the weights, as the paper found best: large
weights are few and matter. Fine-tuning moves the values; which weight has which does not change. Zeros stay zero and
take no entry.
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
from slimfleet.compression.model.tuning import Tuner, Tuning

__all__ = ["Share", "share"]

ITERATIONS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Settings of `share`."""

    values: Annotated[int, Ge(2), Le(65_535)] = 16
    """Values of a tensor besides zero; a tensor of fewer weights has as many as it has."""
    tuning: Tuning = field(default_factory=Tuning)


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
    """int64, the shape of `weight`: 0 for zeros, else 1 + the place of the nearest of `count` means (Lloyd 1982)."""
    flat = weight.flatten()
    used = flat[flat != 0]
    places = torch.zeros(flat.shape, dtype=torch.int64)
    if used.numel():
        # Sorted values make every cluster a run: two cumulative sums give all means.
        order = used.argsort(stable=True)
        run = _runs(used[order].double(), min(count, len(torch.unique(used))))
        found = torch.empty_like(order)
        found[order] = run
        places[flat != 0] = found + 1
    return places.view_as(weight)


def _runs(values: Tensor, count: int) -> Tensor:
    """The cluster of each of the sorted `values` [n], 0 .. k - 1 for k <= `count` clusters, none of them empty."""
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    means = torch.linspace(float(values[0]), float(values[-1]), count, dtype=torch.float64)
    ends = torch.tensor([0, len(values)])
    for _ in range(ITERATIONS):
        cuts = torch.searchsorted(values, (means[1:] + means[:-1]) / 2)
        before, ends = (
            ends,
            torch.unique(torch.cat([ends.new_zeros(1), cuts, ends.new_tensor([len(values)])])),
        )
        if torch.equal(before, ends):
            break
        means = (sums[ends[1:]] - sums[ends[:-1]]) / (ends[1:] - ends[:-1])
    return torch.searchsorted(ends, torch.arange(len(values)), right=True) - 1
