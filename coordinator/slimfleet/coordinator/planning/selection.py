"""Selection: in which order devices are considered, until enough of them have a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from slimfleet.coordinator.settings import SelectionSettings

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A reachable device, as a selection policy of a user's own sees it."""

    node: int
    round_j: float
    """Nominal energy of one epoch of the full model, radio burst included, as far as it is credible."""
    loss: float | None
    battery: float | None
    """State of charge to reckon with, 0..1; None on mains."""
    charging: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """n reachable devices in order of node, (n,) each; NaN stands for None."""

    node: NDArray[np.uint64]
    round_j: Floats
    loss: Floats
    battery: Floats
    charging: NDArray[np.bool_]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Candidates:
        """The same devices in arrays."""
        return cls(
            node=np.array([each.node for each in candidates], np.uint64),
            round_j=np.array([each.round_j for each in candidates], np.float64),
            loss=np.array([each.loss for each in candidates], np.float64),
            battery=np.array([each.battery for each in candidates], np.float64),
            charging=np.array([each.charging for each in candidates], np.bool_),
        )

    def __len__(self) -> int:
        return len(self.node)

    def one_by_one(self) -> list[Candidate]:
        """The same devices, an object each."""
        columns = (self.node, self.round_j, self.loss, self.battery, self.charging)
        return [
            Candidate(
                node=node, round_j=round_j, loss=_known(loss), battery=_known(battery), charging=charging
            )
            for node, round_j, loss, battery, charging in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]


def _known(value: float) -> float | None:
    return None if value != value else value


ENOUGH_DEVICES = 5
"""Devices that make a quartile that one of them cannot choose."""

FAR = 5.0
"""A claim this many times beyond its quartile counts as the quartile."""

LEAST_JOULES = 1e-12
"""A round that takes less counts as this, so that its logarithm is finite."""


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
    """Sample without replacement with weights utility x efficiency x battery.

    Utility is the mean training loss (Oort, Lai et al. 2021, arXiv 2010.06081, eq. 1, without the number of examples,
    which already weights the mean update); efficiency is the joules of a nominal round to a negative power; a
    half-empty battery halves the weight (EAFL, Arouj & Abdelmoniem 2022, orders by battery likewise). The order is the
    descending order of log weight + Gumbel noise, which samples exactly by weight (Efraimidis & Spirakis 2006).
    """
    keys = _log_weights(candidates, settings)
    keys += rng.gumbel(size=len(candidates))
    return _descending(candidates.node, keys)


ORDERS: Mapping[str, Order] = MappingProxyType({"uniform": uniform, "utility": utility})
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
    weights: Floats = worth - price + np.log(charge)
    return weights
