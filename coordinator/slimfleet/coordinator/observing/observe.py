"""Tell metrics what the rounds do: the one place where the coordinator's events meet their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import fsum
from statistics import fmean

from slimfleet.compression.task import Evaluation
from slimfleet.coordinator.learning.outcome import RoundRow
from slimfleet.coordinator.observing.prometheus import Metrics
from slimfleet.coordinator.observing.prometheus.names import ClientState, Phase
from slimfleet.coordinator.planning.round_planner import RoundPlan
from slimfleet.coordinator.receiving.open_round import OpenRound
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.sending.dispatch import Dispatch

STATES: tuple[ClientState, ...] = ("available", "busy", "ineligible", "offline")


class Observer:
    """Watches the rounds of one coordinator in this process. `stopwatch` is in seconds."""

    def __init__(self, metrics: Metrics, stopwatch: Callable[[], float]) -> None:
        self._metrics = metrics
        self._stopwatch = stopwatch
        self._running = False
        self._handed_out_at = stopwatch()

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Time what happens inside."""
        began = self._stopwatch()
        yield
        self._metrics.phase(name, self._stopwatch() - began)

    def opening(self, number: int) -> None:
        """Round `number` is being opened; with the first one in this process the run begins or goes on."""
        if not self._running:
            self._running = True
            self._metrics.run_started()
        self._metrics.round_started(number)

    def opened(self, plan: RoundPlan, registry: Registry) -> None:
        """Work has been handed out: from here until `answered` the devices train."""
        for (device_class, state), count in _states(plan, registry).items():
            self._metrics.clients(device_class, state, count)
        for node, skip in plan.skipped.items():
            self._metrics.skipped(registry[node].profile.device_class, skip.constraint)
        self._handed_out_at = self._stopwatch()

    def answered(self) -> None:
        """No more answers are waited for."""
        self._metrics.phase("train", self._stopwatch() - self._handed_out_at)

    def closed(
        self,
        opened: OpenRound,
        registry: Registry,
        evaluation: Evaluation | None,
        rows: Sequence[RoundRow],
        last: int,
    ) -> None:
        """A round is over; `rows` are those of the run so far, `last` is the number of its last round."""
        for dispatch in opened.dispatches:
            device_class = registry[dispatch.node].profile.device_class
            self._task(opened, dispatch.node, device_class)
            self._traffic(opened, dispatch, device_class)
        for reason, count in opened.counts()[1].items():
            for _ in range(count):
                self._metrics.rejected(reason)
        losses = [opened.reports[node].loss for node in sorted(opened.accepted)]
        if losses:
            self._metrics.evaluated("train", fmean(losses))
        if evaluation is not None:
            self._metrics.evaluated("validation", evaluation.loss, evaluation.accuracy)
        self._metrics.run_energy(fsum(row.energy_j for row in rows))
        self._metrics.size_error(rows[-1].size_error)
        self._metrics.round_finished("completed" if opened.accepted else "failed")
        if opened.number >= last:
            self._running = False
            self._metrics.run_ended()

    def checkpointed(self, size_bytes: int) -> None:
        """A checkpoint of this size has been written."""
        self._metrics.checkpointed(size_bytes)

    def _task(self, opened: OpenRound, node: int, device_class: str) -> None:
        outcome = "rejected" if node in opened.rejected else opened.failed.get(node, "ok")
        self._metrics.task(device_class, outcome)
        for constraint in opened.violations.get(node, ()):
            self._metrics.violated(constraint)
        report = opened.reports.get(node)
        if report is not None:
            self._metrics.spent(device_class, report.spent, report.source)

    def _traffic(self, opened: OpenRound, dispatch: Dispatch, device_class: str) -> None:
        raw_bytes = dispatch.index_map.schema.nbytes
        self._metrics.transferred(device_class, "downlink", raw_bytes, len(dispatch.payload))
        received = opened.received.get(dispatch.node)
        if received is not None:
            self._metrics.transferred(device_class, "uplink", raw_bytes, received)


def _states(plan: RoundPlan, registry: Registry) -> Counter[tuple[str, ClientState]]:
    """Devices by class and state; a state that no device is in counts 0, lest its last value stay."""
    counts: Counter[tuple[str, ClientState]] = Counter()
    busy = {dispatch.node for dispatch in plan.dispatches}
    for record in registry:
        node, device_class = record.node, record.profile.device_class
        counts.update({(device_class, state): 0 for state in STATES})
        state: ClientState = "available"
        if node in busy:
            state = "busy"
        elif node not in plan.reachable:
            state = "offline"
        elif node not in plan.eligible or node in plan.skipped:
            state = "ineligible"
        counts[device_class, state] += 1
    return counts
