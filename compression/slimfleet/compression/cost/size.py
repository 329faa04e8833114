"""Update size: a cheap formula for payload bytes, corrected by the payloads that arrived.

Devices choose what they send, so corrections are medians over devices, one vote each: a few that send next to nothing
do not change what is expected of the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import exp, log
from statistics import median

from slimfleet.compression.cost.distortion import bits_per_value

ENOUGH_DEVICES = 5
"""Devices that must have sent an update of one planned error before theirs alone correct its prediction."""

MOST_DEVICES = 100
"""Devices remembered for each planned error, the last to report: sizes change as training settles."""


@dataclass(frozen=True, slots=True, order=True)
class SizeObservation:
    """A payload that arrived: what was planned, and `len(payload)`."""

    nmse: float
    """Error that the plan allowed, above 0."""
    parameters: int
    """Number of trained parameters of the shrunk model."""
    payload_bytes: int
    device: str = ""
    """Who sent it."""


@dataclass(frozen=True, slots=True)
class SizeTrack:
    """How far the payloads of one device are from what was expected, at one planned error: moving means."""

    device: str
    ratio: float
    """Natural log of actual bytes over those of the bare formula."""
    miss: float
    """Absolute natural log of actual over predicted bytes."""
    last: int
    """Number, among all payloads, of its last one."""


@dataclass(frozen=True, slots=True)
class UpdateSizeModel:
    """Predicted uplink bytes, corrected per planned error and, where few devices know that one, by the median of all.

    `cells`, `overall` and `error` follow from `tracks`; `learn` keeps them in step.
    """

    overhead_bytes: int = 128
    """Header, tables and the statistics of a few batch norms, whatever the plan."""
    tracks: Mapping[float, tuple[SizeTrack, ...]] = field(default_factory=dict)
    """Planned error -> its devices, the last to report at the end."""
    cells: Mapping[float, float] = field(default_factory=dict)
    """Planned error -> natural log of actual/predicted bytes, where enough devices know it."""
    overall: float = 0.0
    """The same over all errors."""
    error: float = 0.0
    """Typical relative error of the corrected prediction (median of |log ratio| over devices); 0 at first."""
    observed: int = 0
    """Number of payloads learned from."""
    gain: float = 0.3
    """Weight of a device's new payload against its past, 0 < gain <= 1."""

    def bytes_per_parameter(self, nmse: float) -> float:
        """Corrected bytes that each parameter adds to the payload."""
        return bits_per_value(nmse) / 8 * exp(self._correction(nmse))

    def predict(self, parameters: int, nmse: float) -> float:
        """Predicted bytes of a payload."""
        return self.overhead_bytes + parameters * self.bytes_per_parameter(nmse)

    def learn(self, observations: Iterable[SizeObservation]) -> UpdateSizeModel:
        """The model after one round's payloads, whose order does not matter."""
        seen = sorted(observations)
        if not seen:
            return self
        tracks = {nmse: {track.device: track for track in known} for nmse, known in self.tracks.items()}
        for number, each in enumerate(seen, self.observed + 1):
            of_cell = tracks.setdefault(each.nmse, {})
            # Taken out and put in again, so that the last to report is at the end.
            of_cell[each.device] = self._moved(of_cell.pop(each.device, None), each, number)
        learned = self._over({nmse: tuple(known.values())[-MOST_DEVICES:] for nmse, known in tracks.items()})
        if self.observed == 0:
            # The first misses are those of the bare formula, which is not used again.
            learned = learned._over(learned._missed_by_itself())
        return replace(learned, observed=self.observed + len(seen))

    def _correction(self, nmse: float) -> float:
        # Nothing is coded in plain float32: other errors teach nothing about it.
        return self.cells.get(nmse, self.overall if nmse else 0.0)

    def _log_ratio(self, seen: SizeObservation) -> float:
        """Log of the actual payload over the bare formula, the overhead taken off both."""
        bare = max(seen.parameters, 1) * bits_per_value(seen.nmse) / 8
        return log(max(seen.payload_bytes - self.overhead_bytes, 1) / bare)

    def _moved(self, track: SizeTrack | None, seen: SizeObservation, number: int) -> SizeTrack:
        """The track of a device after one more payload; None is a device that sent none before."""
        ratio = self._log_ratio(seen)
        miss = abs(ratio - self._correction(seen.nmse))
        if track is not None:
            ratio = track.ratio + self.gain * (ratio - track.ratio)
            miss = track.miss + self.gain * (miss - track.miss)
        return SizeTrack(seen.device, ratio, miss, number)

    def _over(self, tracks: Mapping[float, tuple[SizeTrack, ...]]) -> UpdateSizeModel:
        """This model with other tracks, and with the medians that follow from them."""
        every = sorted((track for known in tracks.values() for track in known), key=lambda each: each.last)
        newest = {track.device: track for track in every}.values()
        enough = min(ENOUGH_DEVICES, len(newest))
        return replace(
            self,
            tracks=tracks,
            cells={
                nmse: median(each.ratio for each in known)
                for nmse, known in sorted(tracks.items())
                if len(known) >= enough
            },
            overall=median(each.ratio for each in newest),
            error=median(each.miss for each in newest),
        )

    def _missed_by_itself(self) -> dict[float, tuple[SizeTrack, ...]]:
        """The tracks, as if this model had predicted what they learned from."""
        return {
            nmse: tuple(replace(each, miss=abs(each.ratio - self._correction(nmse))) for each in known)
            for nmse, known in self.tracks.items()
        }
