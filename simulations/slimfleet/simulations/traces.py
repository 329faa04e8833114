"""Traces: sessions on the charger as they were recorded, repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["Traces"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Traces:
    """When n devices are on their chargers. Recordings stand one behind the other, m in all with k sessions."""

    starts: Floats
    """(k,): seconds from the beginning of the first recording."""
    ends: Floats
    """(k,)."""
    before: Floats
    """(k + 1,): seconds of all sessions before each one."""
    offset: Floats
    """(m,): where each recording begins."""
    finish_s: Floats
    """(m,): after how long it repeats."""
    which: NDArray[np.intp]
    """(n,): the recording of each device."""

    @classmethod
    def of(cls, recordings: Sequence[tuple[Floats, Floats, float]], which: NDArray[np.intp]) -> Traces:
        """From starts and ends of the sessions of each recording, in order, and its length."""
        finish_s = np.array([finish for *_, finish in recordings])
        # A gap between recordings keeps the last moment of one from the first of the next.
        offset = np.concatenate(([0.0], np.cumsum(finish_s + 1.0)[:-1]))
        starts, ends = (
            np.concatenate([each[part] + begin for each, begin in zip(recordings, offset, strict=True)])
            for part in (0, 1)
        )
        return cls(starts, ends, np.concatenate(([0.0], np.cumsum(ends - starts))), offset, finish_s, which)

    def at(self, numbers: NDArray[np.intp] | int) -> Traces:
        """Those of some of the devices."""
        return replace(self, which=self.which[numbers])

    def look(self, now_s: float) -> tuple[Floats, NDArray[np.bool_]]:
        """Seconds on the charger between an arbitrary origin and `now_s`, and whether it is connected then, (n,)."""
        rounds, moment = self._moment(now_s)
        first, last = (
            self._plugged(self.offset[self.which] + edge)[0] for edge in (0.0, self.finish_s[self.which])
        )
        plugged, is_on = self._plugged(moment)
        return rounds * (last - first) + (plugged - first), is_on

    def until(self, now_s: float) -> Floats:
        """Seconds on the charger between an arbitrary origin and `now_s`."""
        return self.look(now_s)[0]

    def left_s(self, now_s: float) -> Floats:
        """Seconds until the present session ends; 0 outside of one."""
        _, moment = self._moment(now_s)
        session = np.maximum(np.searchsorted(self.starts, moment, side="right") - 1, 0)
        return np.where(self.look(now_s)[1], self.ends[session] - moment, 0.0)

    def _moment(self, now_s: float) -> tuple[Floats, Floats]:
        finish_s = self.finish_s[self.which]
        rounds = np.floor(now_s / finish_s)
        return rounds, self.offset[self.which] + (now_s - rounds * finish_s)

    def _plugged(self, moment: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Seconds of sessions before a moment of the recordings, and whether it is within one."""
        session = np.searchsorted(self.starts, moment, side="right") - 1
        inside = moment - self.starts[np.maximum(session, 0)]
        length = self.ends[np.maximum(session, 0)] - self.starts[np.maximum(session, 0)]
        is_on = (session >= 0) & (inside < length)
        within = np.where(session >= 0, np.minimum(inside, length), 0.0)
        return self.before[np.maximum(session, 0)] + within, is_on
