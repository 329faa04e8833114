"""Candidates of a round: reachable devices, as selection sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Candidate", "Candidates"]


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
    metered: bool | None
    """Whether its owner pays for the bytes of its link; None where it does not say."""
    temperature_c: float | None
    """None where it does not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """n reachable devices in order of node, (n,) each; NaN stands for None."""

    node: NDArray[np.uint64]
    round_j: NDArray[np.float64]
    loss: NDArray[np.float64]
    battery: NDArray[np.float64]
    charging: NDArray[np.bool_]
    metered: NDArray[np.int8]
    """0 or 1; -1 stands for None."""
    temperature_c: NDArray[np.float64]

    @classmethod
    def of(cls, candidates: Sequence[Candidate]) -> Candidates:
        """The same devices in arrays."""

        def column(name: str) -> NDArray[np.float64]:
            return np.array([getattr(each, name) for each in candidates], np.float64)

        return cls(
            node=np.array([each.node for each in candidates], np.uint64),
            round_j=column("round_j"),
            loss=column("loss"),
            battery=column("battery"),
            charging=column("charging") == 1,
            metered=np.nan_to_num(column("metered"), nan=-1).astype(np.int8),
            temperature_c=column("temperature_c"),
        )

    def __len__(self) -> int:
        return len(self.node)

    def one_by_one(self) -> list[Candidate]:
        """The same devices, an object each."""
        columns = (
            *(self.node, self.round_j, self.loss, self.battery),
            *(self.charging, self.metered, self.temperature_c),
        )
        return [
            Candidate(
                node=node,
                round_j=round_j,
                loss=_known(loss),
                battery=_known(battery),
                charging=charging,
                metered=None if metered < 0 else metered == 1,
                temperature_c=_known(warm),
            )
            for node, round_j, loss, battery, charging, metered, warm in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]


def _known(value: float) -> float | None:
    return None if value != value else value
