"""Control of compression during training: how sparse and how coarse a model is follows how well it copes.

A pure function of what was seen. It tightens while the model loses no more than allowed: zeros and bits take turns. It
waits while training still makes good what was lost; on a plateau, where training no longer does, it takes the last move
back and goes on with the other, more carefully. Near the end of training, or once the model is small enough, it only
loosens.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import Literal

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
    turn: Literal["zeros", "bits"] = "zeros"
    """What tightens next; the other moved last."""
    best: float = inf
    """Best loss since the last move."""
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
    if seen.points > bounds.points:
        return _looser(control, bounds) if control.waited >= bounds.patience else control
    done = seen.left <= SETTLING or control.size <= bounds.size
    return control if done else _tighter(control, bounds)


def _tighter(control: Control, bounds: Bounds) -> Control:
    """One move in the order of turns; as it is where both are at their bounds."""
    sparser = control.share + control.pace * (bounds.most - control.share)
    # No smaller than asked for: what is left over is accuracy.
    enough = max(1 - bounds.size * FULL_BITS / control.bits, control.share)
    moves = {
        "zeros": replace(control, share=min(sparser, enough), turn="bits"),
        "bits": replace(control, bits=max(control.bits - 1, bounds.least_bits), turn="zeros"),
    }
    for move in (moves.pop(control.turn), *moves.values()):
        if move.size < control.size:
            return replace(move, best=inf, waited=0)
    return control


def _looser(control: Control, bounds: Bounds) -> Control:
    """The last move taken back, or the one before, where bits are back at their most."""
    moved = replace(control, best=inf, waited=0)
    if control.turn == "zeros" and control.bits < bounds.most_bits:
        return replace(moved, bits=control.bits + 1)
    less = (control.share - control.pace * bounds.most) / (1 - control.pace)
    return replace(moved, share=max(less, 0.0), pace=control.pace / 2)
