"""What the coordinator tells about itself, whoever listens."""

from __future__ import annotations

from typing import Protocol

from slimfleet.compression.types import Cost, EnergySource
from slimfleet.coordinator.observing.prometheus.names import (
    ClientState,
    Direction,
    Phase,
    RoundOutcome,
    Split,
)


class Metrics(Protocol):
    """Events of a run. None of these raises over what a device reported."""

    def run_started(self) -> None:
        """A run begins, or goes on after a restart."""

    def run_ended(self) -> None:
        """The run is over."""

    def round_started(self, number: int) -> None:
        """Round `number` is open."""

    def round_finished(self, outcome: RoundOutcome) -> None:
        """The open round has ended."""

    def phase(self, phase: Phase, seconds: float) -> None:
        """A phase of the round took this long in wall-clock time."""

    def clients(self, device_class: str, state: ClientState, count: int) -> None:
        """So many devices of this class are in this state now."""

    def skipped(self, device_class: str, constraint: str) -> None:
        """A device fitted no plan; `constraint` bound."""

    def task(self, device_class: str, outcome: str) -> None:
        """A device's round ended: `ok`, `rejected`, or the coordinator's word for why nothing usable came."""

    def spent(self, device_class: str, cost: Cost, source: EnergySource) -> None:
        """What a device reports to have spent on its round."""

    def transferred(self, device_class: str, direction: Direction, raw_bytes: int, wire_bytes: int) -> None:
        """A payload of `wire_bytes` went over the wire in place of `raw_bytes` of plain arrays."""

    def rejected(self, reason: str) -> None:
        """An update was not used; `reason` as in `PayloadError`."""

    def violated(self, constraint: str) -> None:
        """A device's spent cost exceeded this field of its budget."""

    def evaluated(self, split: Split, loss: float, accuracy: float | None = None) -> None:
        """The global model's loss on this split, and its accuracy on the validation split."""

    def run_energy(self, joules: float) -> None:
        """Energy of the whole run so far, from the coordinator's own ledger."""

    def size_error(self, share: float) -> None:
        """The typical relative error of the predicted sizes of updates, as known now."""

    def checkpointed(self, size_bytes: int) -> None:
        """A checkpoint of this size has been written."""


class NoMetrics:
    """Nobody listens."""

    def run_started(self) -> None:
        """Ignored."""

    def run_ended(self) -> None:
        """Ignored."""

    def round_started(self, number: int) -> None:
        """Ignored."""

    def round_finished(self, outcome: RoundOutcome) -> None:
        """Ignored."""

    def phase(self, phase: Phase, seconds: float) -> None:
        """Ignored."""

    def clients(self, device_class: str, state: ClientState, count: int) -> None:
        """Ignored."""

    def skipped(self, device_class: str, constraint: str) -> None:
        """Ignored."""

    def task(self, device_class: str, outcome: str) -> None:
        """Ignored."""

    def spent(self, device_class: str, cost: Cost, source: EnergySource) -> None:
        """Ignored."""

    def transferred(self, device_class: str, direction: Direction, raw_bytes: int, wire_bytes: int) -> None:
        """Ignored."""

    def rejected(self, reason: str) -> None:
        """Ignored."""

    def violated(self, constraint: str) -> None:
        """Ignored."""

    def evaluated(self, split: Split, loss: float, accuracy: float | None = None) -> None:
        """Ignored."""

    def run_energy(self, joules: float) -> None:
        """Ignored."""

    def size_error(self, share: float) -> None:
        """Ignored."""

    def checkpointed(self, size_bytes: int) -> None:
        """Ignored."""
