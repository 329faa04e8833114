"""Fleet bounds: what one device may claim and move, measured by what the other devices of its fleet do.

Devices report about themselves, and nobody knows beforehand how large an honest update is. So every bound is a multiple
of a median over devices, one vote each: no device moves it alone, and it follows the fleet as training settles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import median

import numpy as np
from numpy.typing import ArrayLike

from slimfleet.coordinator.quantile import median_low, nearest_rank
from slimfleet.coordinator.receiving.checks import LARGEST_EXAMPLES, Norms
from slimfleet.coordinator.settings import ServerSettings

SMALLEST_ROUND, LARGEST_ROUND = 20, 100
"""Devices of a round, as far as its size bounds the share of one of them."""

LARGEST_NORM = 20.0
"""An update whose norm is more than this many times the fleet's median is rejected. Honest norms spread widely where
data are few and skewed: up to 16 medians in the quickstart."""

LONGEST_UPDATE = 4.0
"""An update of the median device's weight that is longer than this many median norms counts as this long, a heavier one
as accordingly shorter. At a twentieth of the mean, it then moves the model less than the honest rest of its round."""

LONGEST_MEAN = 3.0
"""Largest norm of a mean update, in median norms of its updates. Honest updates point different ways: their mean stays
below one median, or somewhat above it where norms spread widely. This bounds the statistics of a first round."""

ENOUGH_DEVICES = 3
"""Devices whose norms make a median that one of them cannot choose."""

RECENT_ROUNDS = 10
"""Norms of earlier rounds say nothing about today's: updates shrink as training settles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetBounds:
    """What one device may claim and move in one round."""

    median_examples: int
    largest_weight: int
    """More examples count as this many."""
    largest: Norms
    """An update with larger norms is rejected."""
    longest: Norms
    """An update of the median weight that is longer counts as this long."""
    typical: Norms | None
    """Median norms of the fleet's last updates; None where too few are known."""
    clip: Norms
    """An update that is longer counts as this long, whatever its weight."""

    def weight(self, examples: int) -> int:
        """How much an update counts in the mean whose device claims so many examples."""
        return min(examples, self.largest_weight)

    def longest_at(self, weight: int) -> Norms:
        """How long an update of this weight may be: what counts is the product of both."""
        longest = multiple(min(1.0, self.median_examples / weight), self.longest)
        return Norms(
            weights=min(longest.weights, self.clip.weights),
            statistics=min(longest.statistics, self.clip.statistics),
        )


def fleet_bounds(
    claimed: ArrayLike,
    recent: Sequence[Norms],
    per_round: int,
    model_norm: float,
    settings: ServerSettings,
) -> FleetBounds:
    """Bounds for one round, from what each device claims to hold, (n,), and from the norms of its last update.

    `per_round` is the number of devices in a round, and `model_norm` the norm of the global model's weights: in the
    first round of a fleet no update counts as longer. Without `settings.fleet_bounds` only its other bounds hold.
    """
    clip = norms_at(recent, settings.clip_quantile)
    claims = np.asarray(claimed)
    if not settings.fleet_bounds:
        claims, recent = claims[:0], ()
    # The lower of two: beside one other device, a claim cannot raise its own bound.
    median_examples = median_low(claims) if len(claims) else LARGEST_EXAMPLES
    round_size = min(max(min(per_round, len(claims)), SMALLEST_ROUND), LARGEST_ROUND)
    # Where devices count alike, more examples are no more weight.
    share = settings.largest_share if settings.aggregation == "mean" else 0.0
    weight = max(share * round_size, 1.0)
    typical = typical_norms(recent)
    largest, longest = multiple(LARGEST_NORM, typical), multiple(LONGEST_UPDATE, typical)
    if typical is None and len(claims) >= ENOUGH_DEVICES:
        longest = replace(longest, weights=max(model_norm, 1.0))
    return FleetBounds(
        median_examples=median_examples,
        largest_weight=min(int(weight * median_examples), LARGEST_EXAMPLES),
        largest=replace(largest, weights=min(largest.weights, settings.max_update_norm)),
        longest=longest,
        typical=typical,
        clip=clip,
    )


def typical_norms(norms: Sequence[Norms]) -> Norms | None:
    """Median norms; None where there are too few."""
    if len(norms) < ENOUGH_DEVICES:
        return None
    return Norms(
        weights=median(each.weights for each in norms), statistics=median(each.statistics for each in norms)
    )


def norms_at(norms: Sequence[Norms], quantile: float) -> Norms:
    """The quantile of these norms: the least of them that so large a share does not exceed. No limit at 1, nor where
    there are too few.

    Each device has one vote, its last update. (Andrew et al. 2021, arXiv 1905.03871, clip to a quantile too, which they
    follow by gradient steps, since private devices tell no norm.)
    """
    if quantile == 1 or len(norms) < ENOUGH_DEVICES:
        return multiple(1.0, None)
    return multiple(
        1.0,
        Norms(
            weights=nearest_rank((each.weights for each in norms), quantile),
            statistics=nearest_rank((each.statistics for each in norms), quantile),
        ),
    )


def multiple(factor: float, norms: Norms | None) -> Norms:
    """So many times these norms. Norms that are not known, or are 0 for most devices, set no limit."""
    if norms is None:
        return Norms(weights=inf, statistics=inf)
    return Norms(weights=factor * norms.weights or inf, statistics=factor * norms.statistics or inf)
