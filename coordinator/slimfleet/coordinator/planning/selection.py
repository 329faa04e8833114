"""Selection: in which order devices are considered, until enough of them have a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import inf, log

import numpy as np
from numpy.typing import NDArray

from slimfleet.coordinator.planning.candidates import Candidates
from slimfleet.coordinator.settings import SelectionSettings

Floats = NDArray[np.float64]


ENOUGH_DEVICES = 5
"""Devices that make a quartile that one of them cannot choose."""

FAR = 5.0
"""A claim this many times beyond its quartile counts as the quartile."""

LEAST_JOULES = 1e-12
"""A round that takes less counts as this, so that its logarithm is finite."""

COOL_C, HOT_C = 40.0, 80.0
"""A device is cool up to the one and hot from the other: what idle phones and boards show, and where a Raspberry Pi
begins to slow down."""


def credible_joules(classes: NDArray[np.integer], joules: Floats) -> Floats:
    """The joules of a nominal round to select by, (n,), from the class and the claim of each of n devices, (n,) each.

    Selection prefers cheap devices, so claiming few joules must not buy a place: a claim far below the lower quartile
    of its class counts as that quartile. A class of few devices is judged by the whole fleet, since a device chooses
    its class itself; a fleet of few devices is believed.
    """
    if not len(joules):
        return joules
    fleet = _lower_quartile(joules)
    sizes = np.bincount(classes)
    quartiles = np.array(
        [
            _lower_quartile(joules[classes == each]) if size >= ENOUGH_DEVICES else fleet
            for each, size in enumerate(sizes.tolist())
        ]
    )[classes]
    return np.where(joules * FAR >= quartiles, joules, quartiles)


def _lower_quartile(values: Floats) -> float:
    """A value that a quarter of the others stays below; 0 where there are few."""
    place = len(values) // 4
    return float(np.partition(values, place)[place]) if len(values) >= ENOUGH_DEVICES else 0.0


Order = Callable[[Candidates, SelectionSettings, np.random.Generator], Iterable[int]]
"""Gives the nodes of candidates, in the order in which they are considered."""


def uniform(candidates: Candidates, settings: SelectionSettings, rng: np.random.Generator) -> Iterator[int]:
    """Every order equally likely: plain federated averaging."""
    return _in_turn(candidates.node[rng.permutation(len(candidates))])


def utility(candidates: Candidates, settings: SelectionSettings, rng: np.random.Generator) -> Iterator[int]:
    """Sample without replacement with weights utility x efficiency x battery x condition.

    Utility is the mean training loss (Oort, Lai et al. 2021, arXiv 2010.06081, eq. 1, without the number of examples,
    which already weights the mean update); efficiency is the joules of a nominal round to a negative power; a
    half-empty battery halves the weight (EAFL, Arouj & Abdelmoniem 2022, orders by battery likewise); an unmetered link
    or a cool device multiplies it by `condition_factor`, a metered link or a hot device divides it. The order is the
    descending order of log weight + Gumbel noise, which samples exactly by weight (Efraimidis & Spirakis 2006).
    """
    keys = _log_weights(candidates, settings)
    keys += rng.gumbel(size=len(candidates))
    return _descending(candidates.node, keys)


ORDERS: Mapping[str, Order] = {"uniform": uniform, "utility": utility}
"""Selection policies by the name that `selection.policy` gives them."""

_FIRST = 4_096
"""Nodes sorted at first; four times as many at every further try."""


def _descending(nodes: NDArray[np.uint64], keys: Floats) -> Iterator[int]:
    """Nodes by falling key, equal keys in the order given. Only as many are sorted as are asked for."""
    done, size = 0, _FIRST
    while done < len(keys):
        first = np.arange(len(keys))
        if size < len(keys):
            least = np.partition(keys, len(keys) - size)[len(keys) - size]
            first = np.flatnonzero(keys >= least)
        ordered = first[np.argsort(-keys[first], kind="stable")]
        yield from _in_turn(nodes[ordered[done:]])
        done, size = len(ordered), 4 * size


def _in_turn(nodes: NDArray[np.uint64]) -> Iterator[int]:
    """Nodes as Python's numbers, made when they are asked for."""
    for start in range(0, len(nodes), _FIRST):
        yield from nodes[start : start + _FIRST].tolist()


def _log_weights(candidates: Candidates, settings: SelectionSettings) -> Floats:
    """Logarithms of the weights, (n,)."""
    loss = candidates.loss
    known = loss[~np.isnan(loss)]
    # Claiming a high loss must not buy a place either.
    high = -_lower_quartile(-known)
    far = FAR * high if high > 0 else inf
    # A device that never reported counts as the most promising one known, so that it is tried early.
    credible = known[known <= far]
    best = float(credible.max()) if len(credible) else 1.0
    loss = np.where(np.isnan(loss), best, np.where(loss <= far, loss, high))
    worth = settings.utility_exponent * np.log(np.maximum(loss, 1e-3))
    price = settings.energy_exponent * np.log(np.maximum(candidates.round_j, LEAST_JOULES))
    battery, full = candidates.battery, np.isnan(candidates.battery) | candidates.charging
    charge = np.where(full, 1.0, np.maximum(battery, 1e-3))
    weights: Floats = worth - price + np.log(charge) + _ease(candidates) * log(settings.condition_factor)
    return weights


def _ease(candidates: Candidates) -> Floats | float:
    """How well a round suits devices now, (n,): from -2, metered and hot, to 2, unmetered and cool; 0 where a device
    says neither."""
    if (candidates.metered < 0).all() and np.isnan(candidates.temperature_c).all():
        return 0.0
    link = np.where(candidates.metered < 0, 0.0, 1.0 - 2.0 * candidates.metered)
    middle = (COOL_C + HOT_C) / 2
    cool = np.clip((middle - candidates.temperature_c) / (middle - COOL_C), -1.0, 1.0)
    return link + np.where(np.isnan(cool), 0.0, cool)
