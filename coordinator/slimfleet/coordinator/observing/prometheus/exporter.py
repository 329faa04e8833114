"""The coordinator's events as Prometheus metrics."""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version
from math import isfinite

from prometheus_client import CollectorRegistry

from slimfleet.compression.types import Cost, EnergySource
from slimfleet.coordinator.observing.prometheus.families import Families
from slimfleet.coordinator.observing.prometheus.names import (
    CONSTRAINTS,
    OTHER,
    OUTCOME_OF,
    REJECTIONS,
    TASK_OUTCOMES,
    ClientState,
    Direction,
    Phase,
    RoundOutcome,
    Split,
)

LARGEST_TASK_JOULES = 1e6
"""A laptop's battery several times over: no round of one device takes more."""

LARGEST_TASK_SECONDS = 7 * 86_400.0


class FleetMetrics:
    """Every event of a run, counted in `registry` under the label `federation`.

    Devices report about themselves, so their numbers are checked: one that is not finite or is negative is
    left out, one that is implausibly large is cut, and both are counted in
    slimfleet_telemetry_rejected_total. Words from outside that are on no list count as `other`. Raises
    ValueError when the registry already has these metrics.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        federation: str = "default",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._families = Families(registry, federation)
        self._clock = clock
        self._families.gauge("slimfleet_build_info", version=version("slimfleet")).set(1)

    def run_started(self) -> None:
        """Set the run active, and its progress to now, lest an alert on progress fire at the start."""
        self._families.gauge("slimfleet_run_active").set(1)
        self._progress()

    def run_ended(self) -> None:
        """Set the run inactive."""
        self._families.gauge("slimfleet_run_active").set(0)

    def round_started(self, number: int) -> None:
        """Set the current round."""
        self._families.gauge("slimfleet_round_current").set(number)
        self._progress()

    def round_finished(self, outcome: RoundOutcome) -> None:
        """Count a round."""
        self._families.counter("slimfleet_rounds_total", outcome=outcome).inc()
        self._progress()

    def phase(self, phase: Phase, seconds: float) -> None:
        """Observe a phase's duration."""
        self._families.histogram("slimfleet_round_phase_duration_seconds", phase=phase).observe(seconds)

    def clients(self, device_class: str, state: ClientState, count: int) -> None:
        """Set the number of devices in a state."""
        label = self._families.device_class(device_class)
        self._families.gauge("slimfleet_clients", device_class=label, state=state).set(count)

    def skipped(self, device_class: str, constraint: str) -> None:
        """Count a device without a plan."""
        self._families.counter(
            "slimfleet_clients_skipped_total",
            device_class=self._families.device_class(device_class),
            constraint=_listed(constraint, CONSTRAINTS),
        ).inc()

    def task(self, device_class: str, outcome: str) -> None:
        """Count a device's round; a constraint as outcome is a refusal, an unknown word an error."""
        word = "refused" if outcome in CONSTRAINTS else OUTCOME_OF.get(outcome, outcome)
        self._families.counter(
            "slimfleet_client_tasks_total",
            device_class=self._families.device_class(device_class),
            outcome=word if word in TASK_OUTCOMES else "error",
        ).inc()

    def spent(self, device_class: str, cost: Cost, source: EnergySource) -> None:
        """Count a device's energy by component, and observe its energy and duration."""
        label = self._families.device_class(device_class)
        energy_j = self._plausible(cost.energy_j, LARGEST_TASK_JOULES)
        radio_j = self._plausible(cost.radio_j, LARGEST_TASK_JOULES)
        time_s = self._plausible(cost.time_s, LARGEST_TASK_SECONDS)
        if time_s is not None:
            durations = self._families.histogram("slimfleet_client_task_duration_seconds", device_class=label)
            durations.observe(time_s)
        if energy_j is None or radio_j is None:
            return
        self._families.histogram("slimfleet_client_round_energy_joules", device_class=label).observe(energy_j)
        parts = {"compute": max(0.0, energy_j - radio_j), "radio": min(radio_j, energy_j)}
        for component, joules in parts.items():
            self._families.counter(
                "slimfleet_client_energy_joules_total", device_class=label, component=component, source=source
            ).inc(joules)

    def transferred(self, device_class: str, direction: Direction, raw_bytes: int, wire_bytes: int) -> None:
        """Count a payload's bytes, and observe its ratio."""
        label = self._families.device_class(device_class)
        for stage, size in (("raw", raw_bytes), ("wire", wire_bytes)):
            self._families.counter(
                "slimfleet_update_bytes_total", device_class=label, direction=direction, stage=stage
            ).inc(size)
        if wire_bytes > 0:
            ratios = self._families.histogram("slimfleet_update_compression_ratio", direction=direction)
            ratios.observe(raw_bytes / wire_bytes)

    def rejected(self, reason: str) -> None:
        """Count an update that was not used."""
        word = _listed(reason, REJECTIONS)
        self._families.counter("slimfleet_updates_rejected_total", reason=word).inc()
        if reason == "nonfinite":
            self._families.counter("slimfleet_nonfinite_values_total", where="update").inc()

    def violated(self, constraint: str) -> None:
        """Count a budget that was exceeded."""
        word = _listed(constraint, CONSTRAINTS)
        self._families.counter("slimfleet_budget_violations_total", constraint=word).inc()

    def evaluated(self, split: Split, loss: float, accuracy: float | None = None) -> None:
        """Set loss and accuracy; one that is not finite is counted, and the last good value stays."""
        if isfinite(loss):
            self._families.gauge("slimfleet_model_loss", split=split).set(loss)
        else:
            self._families.counter("slimfleet_nonfinite_values_total", where="loss").inc()
        if accuracy is not None and split == "validation" and isfinite(accuracy):
            self._families.gauge("slimfleet_model_accuracy_ratio", split=split).set(accuracy)

    def run_energy(self, joules: float) -> None:
        """Set the energy of the whole run."""
        self._families.gauge("slimfleet_run_energy_joules").set(joules)

    def size_error(self, share: float) -> None:
        """Set the error of predicted sizes."""
        self._families.gauge("slimfleet_update_size_error_ratio").set(share)

    def checkpointed(self, size_bytes: int) -> None:
        """Set size and time of the last checkpoint."""
        self._families.gauge("slimfleet_checkpoint_bytes").set(size_bytes)
        self._families.gauge("slimfleet_checkpoint_timestamp_seconds").set(self._clock())

    def _progress(self) -> None:
        self._families.gauge("slimfleet_last_progress_timestamp_seconds").set(self._clock())

    def _plausible(self, value: float, largest: float) -> float | None:
        """The value, cut to `largest`; None where it is no amount. Counts what is wrong with it."""
        if isfinite(value) and 0 <= value <= largest:
            return value
        flaw = "negative" if value < 0 else "too_large" if isfinite(value) else "nonfinite"
        self._families.counter("slimfleet_telemetry_rejected_total", reason=flaw).inc()
        return largest if flaw == "too_large" else None


def _listed(word: str, allowed: tuple[str, ...]) -> str:
    return word if word in allowed else OTHER
