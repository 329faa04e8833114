"""Selection: in which order devices are considered, until enough of them have a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, log

import numpy as np

from slimfleet.coordinator.settings import SelectionSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A reachable device, as selection sees it."""

    node: int
    round_j: float
    """Nominal energy of one epoch of the full model, radio burst included, as far as it is credible."""
    loss: float | None
    battery: float | None
    """State of charge to reckon with, 0..1; None on mains."""
    charging: bool
    metered: bool | None
    """Whether its owner pays for the bytes of its link; None where it does not say."""
    temperature_c: float | None
    """None where it does not say."""


ENOUGH_DEVICES = 5
"""Devices that make a quartile that one of them cannot choose."""

FAR = 5.0
"""A claim this many times beyond its quartile counts as the quartile."""

LEAST_JOULES = 1e-12
"""A round that takes less counts as this, so that its logarithm is finite."""

COOL_C, HOT_C = 40.0, 80.0
"""A device is cool up to the one and hot from the other: what idle phones and boards show, and where a Raspberry Pi
begins to slow down."""


def credible_joules(claimed: Mapping[int, tuple[str, float]]) -> dict[int, float]:
    """The joules of a nominal round to select by: node -> joules, from node -> (device class, joules it claims).

    Selection prefers cheap devices, so claiming few joules must not buy a place: a claim far below the lower quartile
    of its class counts as that quartile. A class of few devices is judged by the whole fleet, since a device chooses
    its class itself; a fleet of few devices is believed.
    """
    classes: dict[str, list[float]] = {}
    for name, joules in claimed.values():
        classes.setdefault(name, []).append(joules)
    fleet = _lower_quartile([joules for _, joules in claimed.values()])
    quartiles = {
        name: _lower_quartile(of_class) if len(of_class) >= ENOUGH_DEVICES else fleet
        for name, of_class in classes.items()
    }
    return {
        node: joules if joules * FAR >= quartiles[name] else quartiles[name]
        for node, (name, joules) in claimed.items()
    }


def _lower_quartile(values: Sequence[float]) -> float:
    """A value that a quarter of the others stays below; 0 where there are few."""
    return sorted(values)[len(values) // 4] if len(values) >= ENOUGH_DEVICES else 0.0


Order = Callable[[Sequence[Candidate], SelectionSettings, np.random.Generator], list[int]]


def uniform(
    candidates: Sequence[Candidate], settings: SelectionSettings, rng: np.random.Generator
) -> list[int]:
    """Every order equally likely: plain federated averaging."""
    return [candidates[i].node for i in rng.permutation(len(candidates))]


def utility(
    candidates: Sequence[Candidate], settings: SelectionSettings, rng: np.random.Generator
) -> list[int]:
    """Sample without replacement with weights utility x efficiency x battery x condition.

    Utility is the mean training loss (Oort, Lai et al. 2021, arXiv 2010.06081, eq. 1, without the number of examples,
    which already weights the mean update); efficiency is the joules of a nominal round to a negative power; a
    half-empty battery halves the weight (EAFL, Arouj & Abdelmoniem 2022, orders by battery likewise); an unmetered link
    or a cool device multiplies it by `condition_factor`, a metered link or a hot device divides it. The order is the
    descending order of log weight + Gumbel noise, which samples exactly by weight (Efraimidis & Spirakis 2006).
    """
    weights = _log_weights(candidates, settings)
    keys = weights + rng.gumbel(size=len(candidates))
    return [candidates[i].node for i in np.argsort(-keys, kind="stable")]


ORDERS: Mapping[str, Order] = {"uniform": uniform, "utility": utility}
"""Selection policies by the name that `selection.policy` gives them."""


def _log_weights(
    candidates: Sequence[Candidate], settings: SelectionSettings
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    known = [c.loss for c in candidates if c.loss is not None]
    # Claiming a high loss must not buy a place either.
    high = -_lower_quartile([-loss for loss in known])
    far = FAR * high if high > 0 else inf
    # A device that never reported counts as the most promising one known, so that it is tried early.
    best = max((loss for loss in known if loss <= far), default=1.0)
    rows = []
    for c in candidates:
        loss = best if c.loss is None else c.loss if c.loss <= far else high
        worth = settings.utility_exponent * log(max(loss, 1e-3))
        price = settings.energy_exponent * log(max(c.round_j, LEAST_JOULES))
        charge = 1.0 if c.battery is None or c.charging else max(c.battery, 1e-3)
        rows.append(worth - price + log(charge) + _ease(c) * log(settings.condition_factor))
    return np.array(rows, np.float64)


def _ease(c: Candidate) -> float:
    """How well a round suits a device now: from -2, metered and hot, to 2, unmetered and cool; 0 where it says
    neither."""
    link = 0.0 if c.metered is None else -1.0 if c.metered else 1.0
    if c.temperature_c is None:
        return link
    middle = (COOL_C + HOT_C) / 2
    return link + min(max((middle - c.temperature_c) / (middle - COOL_C), -1.0), 1.0)
