"""Prometheus observer: the coordinator's events as metrics."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from math import fsum, isfinite
from statistics import fmean

import numpy as np
from prometheus_client import CollectorRegistry

from slimfleet.compression.errors import POLICY_REASONS
from slimfleet.compression.types import LARGEST_JOULES, LARGEST_SECONDS, Cost, EnergySource
from slimfleet.coordinator.learning.row import RoundRow
from slimfleet.coordinator.observing.events import Closed, Event, Phase, Planned, Saved, TurnedAway, Waiting
from slimfleet.coordinator.observing.prometheus.families import Families
from slimfleet.coordinator.observing.prometheus.names import (
    CLIENT_STATES,
    CONSTRAINTS,
    OTHER,
    REJECTIONS,
    TASK_OUTCOMES,
    ClientState,
    Direction,
    Split,
)
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.refusal_status import STATUS
from slimfleet.coordinator.registry import Registry, nodes_of
from slimfleet.coordinator.sending.dispatch import Dispatch


class FleetMetrics:
    """Observer that counts a run in `registry` under the label `federation`.

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

    def __call__(self, event: Event) -> None:
        """Count one event. Nothing that a device reported makes this raise."""
        match event:
            case Waiting():
                self._families.gauge("slimfleet_run_active").set(1)
                self._families.gauge("slimfleet_clients_awaited").set(event.needed - event.ready)
            case Planned():
                self._planned(event)
            case Answer():
                if event.verdict == "accepted":
                    self._families.gauge("slimfleet_round_updates").inc()
            case Closed():
                self._closed(event)
            case Saved():
                self._families.gauge("slimfleet_checkpoint_bytes").set(event.size_bytes)
                self._families.gauge("slimfleet_checkpoint_timestamp_seconds").set(self._clock())
                self._phase("checkpoint", event.seconds)
            case TurnedAway():
                reason = _listed(event.reason, tuple(STATUS))
                self._families.counter("slimfleet_gateway_refusals_total", reason=reason).inc()

    def _planned(self, event: Planned) -> None:
        # With the first round of a process, progress is set too: an alert on progress must not fire at the start.
        self._families.gauge("slimfleet_run_active").set(1)
        self._families.gauge("slimfleet_clients_awaited").set(0)
        self._families.gauge("slimfleet_round_current").set(event.round_number)
        self._families.gauge("slimfleet_round_updates_wanted").set(event.settings.quota)
        self._progress()
        self._phase("select", event.seconds)
        for (device_class, state), count in _states(event).items():
            label = self._families.device_class(device_class)
            self._families.gauge("slimfleet_clients", device_class=label, state=state).set(count)
        for (device_class, constraint), count in _skipped(event).items():
            self._families.counter(
                "slimfleet_clients_skipped_total",
                device_class=self._families.device_class(device_class),
                constraint=_listed(constraint, CONSTRAINTS),
            ).inc(count)

    def _closed(self, event: Closed) -> None:
        for phase, seconds in event.seconds.items():
            self._phase(phase, seconds)
        for answer in event.answers:
            if answer.dispatch is not None:
                self._answer(answer, answer.dispatch, event.state.registry)
            if answer.verdict == "rejected":
                self._rejected(answer.reason)
        losses = [a.report.loss for a in event.answers if a.verdict == "accepted" and a.report is not None]
        if losses:
            self._evaluated("train", fmean(losses))
        if event.evaluation is not None:
            self._evaluated("validation", event.evaluation.loss, event.evaluation.accuracy)
        if event.row.device_loss is not None:
            self._evaluated("device", event.row.device_loss, event.row.device_accuracy)
        self._served(event.row)
        self._families.gauge("slimfleet_round_updates").set(0)
        rows = event.state.rows
        self._families.gauge("slimfleet_run_energy_joules").set(fsum(row.energy_j for row in rows))
        self._families.gauge("slimfleet_update_size_error_ratio").set(event.row.size_error)
        outcome = "completed" if event.row.applied else "failed"
        self._families.counter("slimfleet_rounds_total", outcome=outcome).inc()
        self._progress()
        if event.row.round >= event.settings.rounds:
            self._families.gauge("slimfleet_run_active").set(0)

    def _answer(self, answer: Answer, dispatch: Dispatch, registry: Registry) -> None:
        label = self._class_of(dispatch.node, registry)
        # What was dropped is told apart by why.
        word = {"done": "ok", "dropped": answer.reason}.get(answer.outcome, answer.outcome)
        self._families.counter(
            "slimfleet_client_tasks_total",
            device_class=label,
            outcome=word if word in TASK_OUTCOMES else "error",
        ).inc()
        if answer.verdict == "accepted":
            self._families.histogram("slimfleet_update_staleness_steps").observe(answer.staleness)
        if answer.verdict == "failed" and answer.reason in POLICY_REASONS:
            self._families.counter("slimfleet_policy_refusals_total", reason=answer.reason).inc()
        for constraint in answer.broken:
            listed = _listed(constraint, CONSTRAINTS)
            self._families.counter("slimfleet_budget_violations_total", constraint=listed).inc()
        if answer.report is not None:
            self._spent(label, answer.report.spent, answer.report.source)
            for phase, cost in answer.report.phases or ():
                joules = self._plausible(cost.energy_j, LARGEST_JOULES)
                if joules is not None:
                    self._families.counter(
                        "slimfleet_client_phase_joules_total", device_class=label, phase=phase
                    ).inc(joules)
        self._transferred(label, "downlink", dispatch.index_map.schema.nbytes, len(dispatch.payload))
        if answer.received_bytes is not None:
            self._transferred(label, "uplink", dispatch.update_map.schema.nbytes, answer.received_bytes)

    def _served(self, row: RoundRow) -> None:
        """How well the model serves each class of devices, and how evenly all."""
        for name, accuracy in row.accuracy_by_device_class.items():
            label = self._families.device_class(name)
            self._families.gauge("slimfleet_device_class_accuracy_ratio", device_class=label).set(accuracy)
        for statistic in ("mean", "worst_decile", "spread"):
            value = getattr(row, f"fairness_{statistic}")
            if value is not None:
                self._families.gauge("slimfleet_device_accuracy_ratio", statistic=statistic).set(value)

    def _spent(self, label: str, cost: Cost, source: EnergySource) -> None:
        energy_j = self._plausible(cost.energy_j, LARGEST_JOULES)
        radio_j = self._plausible(cost.radio_j, LARGEST_JOULES)
        time_s = self._plausible(cost.time_s, LARGEST_SECONDS)
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

    def _transferred(self, label: str, direction: Direction, raw_bytes: int, wire_bytes: int) -> None:
        for stage, size in (("raw", raw_bytes), ("wire", wire_bytes)):
            self._families.counter(
                "slimfleet_update_bytes_total", device_class=label, direction=direction, stage=stage
            ).inc(size)
        if wire_bytes > 0:
            ratios = self._families.histogram("slimfleet_update_compression_ratio", direction=direction)
            ratios.observe(raw_bytes / wire_bytes)

    def _rejected(self, reason: str) -> None:
        word = _listed(reason, REJECTIONS)
        self._families.counter("slimfleet_updates_rejected_total", reason=word).inc()
        if reason == "nonfinite":
            self._families.counter("slimfleet_nonfinite_values_total", where="update").inc()

    def _evaluated(self, split: Split, loss: float, accuracy: float | None = None) -> None:
        """Set loss and accuracy; one that is not finite is counted, and its last good value stays."""
        if isfinite(loss):
            self._families.gauge("slimfleet_model_loss", split=split).set(loss)
        if not (isfinite(loss) and (accuracy is None or isfinite(accuracy))):
            self._families.counter("slimfleet_nonfinite_values_total", where="loss").inc()
        if accuracy is not None and isfinite(accuracy):
            self._families.gauge("slimfleet_model_accuracy_ratio", split=split).set(accuracy)

    def _phase(self, phase: Phase, seconds: float) -> None:
        self._families.histogram("slimfleet_round_phase_duration_seconds", phase=phase).observe(seconds)

    def _progress(self) -> None:
        self._families.gauge("slimfleet_last_progress_timestamp_seconds").set(self._clock())

    def _class_of(self, node: int, registry: Registry) -> str:
        return self._families.device_class(registry.profile(node).device_class)

    def _plausible(self, value: float, largest: float) -> float | None:
        """The value, cut to `largest`; None where it is not an amount. What is wrong with it is counted."""
        if isfinite(value) and 0 <= value <= largest:
            return value
        flaw = "negative" if value < 0 else "too_large" if isfinite(value) else "nonfinite"
        self._families.counter("slimfleet_telemetry_rejected_total", reason=flaw).inc()
        return largest if flaw == "too_large" else None


def _states(event: Planned) -> Counter[tuple[str, ClientState]]:
    """Devices by class and state; a state without devices counts 0, so that its last value does not stay."""
    registry = event.state.registry
    busy = nodes_of([dispatch.node for dispatch in event.state.in_flight.values()])
    ineligible = np.setdiff1d(event.skipped.nodes(), busy)
    available = np.setdiff1d(event.reachable, np.concatenate((busy, ineligible)))
    by_state: dict[ClientState, Counter[str]] = {
        "busy": registry.class_counts(busy),
        "ineligible": registry.class_counts(ineligible),
        "available": registry.class_counts(available),
    }
    counts: Counter[tuple[str, ClientState]] = Counter()
    for device_class, devices in registry.class_counts().items():
        for state in CLIENT_STATES:
            counts[device_class, state] = by_state.get(state, Counter())[device_class]
        elsewhere = sum(of_class[device_class] for of_class in by_state.values())
        counts[device_class, "offline"] = devices - elsewhere
    return counts


def _skipped(event: Planned) -> Counter[tuple[str, str]]:
    """Devices without a plan by class and constraint."""
    registry = event.state.registry
    counts = Counter(
        (registry.profile(node).device_class, skip.constraint) for node, skip in event.skipped.single.items()
    )
    for device_class, devices in registry.class_counts(event.skipped.low).items():
        counts[device_class, "battery"] += devices
    return counts


def _listed(word: str, allowed: tuple[str, ...]) -> str:
    return word if word in allowed else OTHER
