"""Control of compression during training: how sparse and how coarse a model is follows how well it copes.

A pure function of what was seen. It tightens while the model loses no more than allowed: zeros move towards their
bound, and on a plateau, where training at this size has nothing more to give, a weight loses a bit. It waits while
training still makes good what was lost, and loosens where it no longer does, more carefully from then on. Near the end
of training, or once the model is small enough, it only loosens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf

__all__ = ["Bounds", "Control", "Seen", "next_control"]

FULL_BITS = 32
BETTER = 0.999
"""A loss below this share of the best so far is better; anything else is a plateau."""
SETTLING = 0.3
"""Share of the training that is left when tightening ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Where control ends."""

    points: float
    """That may be lost, see `points_lost`."""
    size: float
    """Share of the original size at which the model is small enough."""
    most: float
    """Largest share of zeros."""
    least_bits: int
    most_bits: int
    patience: int
    """Looks without a better loss that make a plateau."""


@dataclass(frozen=True, slots=True)
class Control:
    """How a model is compressed now, and what is remembered."""

    bits: int
    share: float = 0.0
    """Of zeros."""
    pace: float = 0.3
    """Share of the way to the bound that zeros move at once."""
    best: float = inf
    """Best loss since the last change."""
    waited: int = 0

    @property
    def size(self) -> float:
        """Share of the original size, taken as bits of a weight that is not zero."""
        return (1 - self.share) * self.bits / FULL_BITS


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at the model shows."""

    loss: float
    """On validation data."""
    points: float
    """Lost against the model before."""
    left: float
    """Share of the training that is left."""


def next_control(control: Control, seen: Seen, bounds: Bounds) -> Control:
    """The control until the next look."""
    better = seen.loss < control.best * BETTER
    control = replace(control, best=min(seen.loss, control.best), waited=0 if better else control.waited + 1)
    plateau = control.waited >= bounds.patience
    if seen.points > bounds.points:
        return _looser(control, bounds) if plateau or seen.left <= SETTLING else control
    if seen.left <= SETTLING or control.size <= bounds.size:
        return control
    return _tighter(control, bounds, plateau)


def _tighter(control: Control, bounds: Bounds, plateau: bool) -> Control:
    share = control.share + control.pace * (bounds.most - control.share)
    # No smaller than asked for: what is left over is accuracy.
    enough = 1 - bounds.size * FULL_BITS / control.bits
    share = max(min(share, enough, bounds.most), control.share)
    bits = max(control.bits - 1, bounds.least_bits) if plateau else control.bits
    return Control(bits, share, control.pace) if (bits, share) != (control.bits, control.share) else control


def _looser(control: Control, bounds: Bounds) -> Control:
    share = max(control.share - control.pace * (1 - control.share), 0.0)
    return Control(min(control.bits + 1, bounds.most_bits), share, control.pace / 2)
