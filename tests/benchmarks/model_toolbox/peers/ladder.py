"""Ladder: how coarse a codec may be before a model loses more than is allowed, found alike for every codec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from torch import nn

from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.threshold import points_lost

OCTAVE = 16
"""Rungs over which a quantiser's step doubles."""
STRIDES = (4, 2, 1)
LOWEST = -8 * OCTAVE

Codec = Callable[[int], tuple[int, nn.Module]]
"""The bytes at a rung, and the model that they give back."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A model through a codec."""

    method: str
    setting: str
    rung: int
    bytes: int
    validation_lost: float
    """Points of accuracy."""
    test_lost: float


@dataclass(frozen=True, slots=True)
class Ladder:
    """Rungs for codecs of one model."""

    model: nn.Module
    central: CentralTask
    loss: float
    """Points of validation accuracy that may be lost."""

    def fewest(self, method: str, codecs: Mapping[str, Codec]) -> Coded:
        """The fewest bytes of any of the settings of a method, each at its own highest rung."""
        found = [each for setting, codec in codecs.items() for each in self._highest(method, setting, codec)]
        if not found:
            raise ValueError(f"{method} loses more than {self.loss:g} points at the finest steps")
        return min(found, key=lambda each: each.bytes)

    def _highest(self, method: str, setting: str, codec: Codec) -> Iterable[Coded]:
        """The last rung before the first that loses too much: what a rung beyond gains by chance does not count."""
        before = self.central.validated(self.model)

        @cache
        def lost(rung: int) -> float:
            return points_lost(self.central.validated(codec(rung)[1]), before)

        rung = 0
        while lost(rung) > self.loss:
            rung -= OCTAVE
            if rung < LOWEST:
                return
        for stride in STRIDES:
            while lost(rung + stride) <= self.loss:
                rung += stride
                if stride != STRIDES[0]:
                    break
        nbytes, coded = codec(rung)
        tested = points_lost(self.central.tested(coded), self.central.tested(self.model))
        yield Coded(method, setting, rung, nbytes, lost(rung), tested)
