"""Which devices to ask, in which order. The coordinator goes down the list until enough devices have a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log
from typing import Annotated

import numpy as np
from annotated_types import Ge

from slimfleet.compression.types import NotNegative, Share


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectionSettings:
    """How to choose."""

    policy: str = "utility"
    per_round: Annotated[int, Ge(1)] = 20
    min_devices: Annotated[int, Ge(1)] = 1
    """Devices that must be connected before a round is opened."""
    energy_exponent: NotNegative = 0.5
    """How much the joules of a full-width round on a device count against it; 0 ignores them."""
    utility_exponent: NotNegative = 0.0
    """How much its training loss counts for it; 0 ignores it."""
    battery_floor: Share = 0.2
    """Devices below this state of charge are left alone unless they charge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A reachable device, as selection sees it."""

    node: int
    round_j: float
    """Nominal energy of one epoch of the full model, radio burst included."""
    loss: float | None
    battery: float | None
    charging: bool


Order = Callable[[Sequence[Candidate], SelectionSettings, np.random.Generator], list[int]]


def uniform(
    candidates: Sequence[Candidate], settings: SelectionSettings, rng: np.random.Generator
) -> list[int]:
    """Every order equally likely: plain federated averaging."""
    return [candidates[i].node for i in rng.permutation(len(candidates))]


def utility(
    candidates: Sequence[Candidate], settings: SelectionSettings, rng: np.random.Generator
) -> list[int]:
    """Sample without replacement with weights utility x efficiency x battery.

    Utility is the mean training loss (Oort, Lai et al. 2021, arXiv 2010.06081, eq. 1, without the number of
    examples, which already weighs in the mean update); efficiency is the joules of a nominal round to a negative
    power; a half-empty battery halves the weight (EAFL, Arouj & Abdelmoniem 2022, orders by battery likewise). The
    order is the descending order of log weight + Gumbel noise, which samples exactly by weight (Efraimidis &
    Spirakis 2006).
    """
    weights = _log_weights(candidates, settings)
    keys = weights + rng.gumbel(size=len(candidates))
    return [candidates[i].node for i in np.argsort(-keys, kind="stable")]


POLICIES: Mapping[str, Order] = {"uniform": uniform, "utility": utility}


def eligible(candidates: Sequence[Candidate], settings: SelectionSettings) -> list[Candidate]:
    """Leave out devices whose battery is below the floor and does not charge."""
    return [c for c in candidates if c.battery is None or c.charging or c.battery >= settings.battery_floor]


def _log_weights(
    candidates: Sequence[Candidate], settings: SelectionSettings
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    known = [c.loss for c in candidates if c.loss is not None]
    # A device never heard of counts as the most promising one heard of: it is asked early.
    best = max(known, default=1.0)
    rows = []
    for c in candidates:
        loss = best if c.loss is None else c.loss
        worth = settings.utility_exponent * log(max(loss, 1e-3))
        price = settings.energy_exponent * log(c.round_j)
        charge = 1.0 if c.battery is None or c.charging else max(c.battery, 1e-3)
        rows.append(worth - price + log(charge))
    return np.array(rows, np.float64)
