"""Rate-aware rounding: weights on uniform grids for an entropy coder, as coarse as the outputs of a model allow.

The divergence that a tensor causes grows with its squared step, how fast is measured; its bits fall with the logarithm
of the step. Bytes are fewest where every weight of the model causes the same divergence, and that sets the steps. Each
weight takes the level of least cost: its squared error, as error-aware rounding weighs it, and a price on its bits, as
in DeepCABAC (Wiedemann et al. 2020, arXiv 1907.11900): zeros and small levels become more frequent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.constraints import Grid, Mask
from slimfleet.compression.model.evaluation.sensitivity import Sensitivity, sensitivities_of_tensors
from slimfleet.compression.model.rounding.error_aware import Choice, rounded_levels
from slimfleet.compression.model.rounding.moments import moments_of
from slimfleet.compression.model.rounding.shortening import shortened, with_short_vectors
from slimfleet.compression.model.slim_model import SlimModel, weights_of

__all__ = ["RateAware", "rate_aware"]

PROBE = 0.02
"""Squared error over squared weights at which the divergence of a tensor is measured."""

FINEST = 2.0**-15
"""Least step, of the largest weight."""

PASSES = 2
"""Bits of levels are first those of plain rounding, then those of the levels chosen before."""


@dataclass(frozen=True)
class RateAware:
    """A model, and what was measured to round its weights."""

    slim: SlimModel
    moments: Mapping[str, Tensor]
    """Those of `moments_of`, of the inputs of the model as it is."""
    found: tuple[Sensitivity, ...]
    """Of each tensor that is rounded, at its probe."""
    price: float
    """Of a bit, in squared steps."""
    mantissa: int
    """Bits of the mantissas of vectors."""

    def at(self, divergence: float) -> SlimModel:
        """A copy whose weights are on grids that cause about this divergence together, and its vectors rounded."""
        copied = self.slim.copy()
        weights = weights_of(copied.model)
        total = sum(weights[each.part].numel() for each in self.found)
        grids = {}
        for each in self.found:
            weight = weights[each.part].detach()
            wanted = divergence * weight.numel() / total
            nmse = wanted * each.x[0] / max(each.divergence[0], 1e-12)
            step = _step_of(nmse, weight, self.mantissa)
            grids[each.part] = self._placed(each.part, weight, step, self.price)
        return with_short_vectors(copied, self.mantissa, grids.keys()).constrained(grids)

    def _placed(self, name: str, weight: Tensor, step: float, price: float) -> Grid:
        """Write levels times `step` into `weight`; the grid that they are on."""
        constraint = self.slim.constraints.get(name)
        free = constraint.free if isinstance(constraint, Mask) else None
        moments = self.moments.get(name)
        grid = _grid(step, *_bounds(weight, step), free)
        levels = grid.levels(weight)
        for _ in range(PASSES if price else 1):
            choose = _priced(levels, price)
            if moments is None:
                levels = choose(weight / step, torch.ones(()))
                levels = levels if free is None else levels * free
            else:
                levels = rounded_levels(weight, grid, moments, choose)
        weight.copy_(levels * grid.step)
        return _grid(step, float(levels.min().clamp(max=-1)), float(levels.max().clamp(min=1)), free)


def rate_aware(
    slim: SlimModel, central: CentralTask, names: list[str], price: float, mantissa: int, examples: int
) -> RateAware:
    """Measure what rounding the tensors `names` of `slim` needs: moments on so many training examples, divergences on
    validation examples."""
    moments = moments_of(slim.copy().model, central, names, examples)
    probing = RateAware(slim, moments, (), 0.0, mantissa)

    def probed(name: str, weight: Tensor, nmse: float) -> Tensor:
        changed = weight.clone()
        probing._placed(name, changed, _step_of(nmse, weight, mantissa), 0.0)
        return changed

    found = sensitivities_of_tensors(slim, central, names, (PROBE,), probed)
    return RateAware(slim, moments, found, price, mantissa)


def _step_of(nmse: float, weight: Tensor, mantissa: int) -> float:
    """The step, float32, at which plain rounding errs by `nmse` of the squared weights; not so fine that levels have no
    end, nor coarser than one at which all are zero. Its own mantissa is short: it is stored beside the vectors."""
    rms = float(weight.double().square().mean().sqrt())
    largest = float(weight.abs().max()) or 1.0
    step = min(max((12 * nmse) ** 0.5 * rms, FINEST * largest), 4 * largest)
    return float(shortened(torch.tensor(step), mantissa))


def _bounds(weight: Tensor, step: float) -> tuple[float, float]:
    """Room for levels, also where a weight makes up for the errors of others."""
    most = float((weight.abs().max() / step).ceil()) * 2 + 2
    return -most, most


def _grid(step: float, low: float, high: float, free: Tensor | None) -> Grid:
    return Grid(torch.tensor(step), torch.tensor(low), torch.tensor(high), free)


def _priced(levels: Tensor, price: float) -> Choice:
    """The choice that pays `price` for every bit that levels as frequent as in `levels` take."""
    if not price:
        return lambda values, cost: values.round()
    top = int(levels.abs().max()) * 2 + 3
    counts = torch.bincount((levels.long() + top).flatten(), minlength=2 * top + 1).double() + 0.1
    bits = -(counts / counts.sum()).log2().to(levels.dtype)

    def choose(values: Tensor, cost: Tensor) -> Tensor:
        near = values.round().clamp(-top, top)
        tried = torch.stack([near, near - near.sign(), torch.zeros_like(near)])
        costs = (tried - values) ** 2 * cost + price * bits[(tried + top).long()]
        chosen: Tensor = tried.gather(0, costs.argmin(0, keepdim=True))[0]
        return chosen

    return choose
