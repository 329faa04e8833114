"""Fleet bounds: what one device may claim and move, measured by what the other devices of its fleet do.

Devices report about themselves, and nobody knows beforehand how large an honest update is. So every bound is a multiple
of a median over devices, one vote each: no device moves it alone, and it follows the fleet as training settles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from statistics import median, median_low

from slimfleet.coordinator.receiving.checks import LARGEST_EXAMPLES, Norms

LEAST_WEIGHT, MOST_WEIGHT = 2.0, 10.0
"""Range of the most examples of the median device that one device weighs."""

LARGEST_SHARE = 0.1
"""Share of a round's mean that one device may have beside median devices, within the range above."""

LARGEST_NORM = 20.0
"""An update whose norm is more than this many times the fleet's median is rejected. Honest norms spread widely where
data are few and skewed: up to 16 medians in the quickstart."""

LONGEST_UPDATE = 5.0
"""An update longer than this many median norms counts as this long. Beside a share of a tenth, it then moves the model
about as far as the honest rest of its round."""

LONGEST_MEAN = 1.5
"""Largest norm of a mean update, in median norms of its updates. Honest updates point different ways, and their mean
stays below one median; means over different parts of a model are a little longer."""

ENOUGH_DEVICES = 3
"""Devices whose norms make a median that one of them cannot choose."""

RECENT_ROUNDS = 10
"""Norms of earlier rounds say nothing about today's: updates shrink as training settles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetBounds:
    """What one device may claim and move in one round."""

    examples: int
    """Largest weight of an update; larger claims count as this."""
    norms: Norms
    """An update with a larger norm is rejected."""
    typical: Norms | None
    """Median norms of the fleet's last updates; None where too few are known."""

    @property
    def longest(self) -> Norms:
        """Longer updates count as this long."""
        return multiple(LONGEST_UPDATE, self.typical)


def fleet_bounds(
    claimed: Iterable[int], recent: Iterable[Norms], per_round: int, max_norm: float
) -> FleetBounds:
    """Bounds for one round, from what each device claims to hold and from the norms of its last update.

    `per_round` is the number of devices in a round, and `max_norm` the bound on weights that holds whatever the fleet
    does.
    """
    typical = typical_norms(recent)
    largest = multiple(LARGEST_NORM, typical)
    return FleetBounds(
        examples=_most_examples(list(claimed), per_round),
        norms=Norms(weights=min(largest.weights, max_norm), statistics=largest.statistics),
        typical=typical,
    )


def typical_norms(norms: Iterable[Norms]) -> Norms | None:
    """Median norms; None where there are too few."""
    known = list(norms)
    if len(known) < ENOUGH_DEVICES:
        return None
    return Norms(
        weights=median(each.weights for each in known), statistics=median(each.statistics for each in known)
    )


def multiple(factor: float, norms: Norms | None) -> Norms:
    """So many times these norms. Norms that are not known, or are 0 for most devices, set no limit."""
    if norms is None:
        return Norms(weights=inf, statistics=inf)
    return Norms(weights=factor * norms.weights or inf, statistics=factor * norms.statistics or inf)


def _most_examples(claimed: list[int], per_round: int) -> int:
    if not claimed:
        return LARGEST_EXAMPLES
    share = LARGEST_SHARE * min(per_round, len(claimed))
    weight = min(max(share, LEAST_WEIGHT), MOST_WEIGHT)
    # The lower of two: beside one other device, a claim cannot raise its own bound.
    return min(max(int(weight * median_low(claimed)), 1), LARGEST_EXAMPLES)
