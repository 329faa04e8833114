"""The coordinator: opens rounds, closes them, and keeps what lasts between them. It knows no transport."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from slimfleet.compression import DeviceProfile, Task, Tensors
from slimfleet.compression.cost import RUNTIMES, CostModel, Work, measure_work
from slimfleet.compression.pruning import select_channels
from slimfleet.compression.pruning.blueprint import Blueprint, blueprint
from slimfleet.compression.task import Evaluation
from slimfleet.compression.tensors import load_tensors, tensors_of
from slimfleet.coordinator.environment import Environment, Participation
from slimfleet.coordinator.learning.aggregate import CoverageMean
from slimfleet.coordinator.learning.calibration import Calibration
from slimfleet.coordinator.learning.learn import learn
from slimfleet.coordinator.learning.outcome import RoundRow
from slimfleet.coordinator.learning.round_row import round_row
from slimfleet.coordinator.learning.server_optimizer import ServerOptimizer
from slimfleet.coordinator.learning.tally import Totals, note_in_records
from slimfleet.coordinator.observing.observe import Observer
from slimfleet.coordinator.observing.prometheus import Metrics, NoMetrics
from slimfleet.coordinator.planning.round_planner import RoundPlanner
from slimfleet.coordinator.receiving.open_round import OpenRound
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.sending.dispatch import Downlink
from slimfleet.coordinator.sending.versions import Versions
from slimfleet.coordinator.settings import CoordinatorSettings


class Coordinator:
    """One federation: its global model, its devices, and what it has learned about their costs."""

    def __init__(
        self,
        task: Task,
        settings: CoordinatorSettings,
        environment: Environment,
        metrics: Metrics | None = None,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        torch.set_num_threads(1)  # the same seed gives the same bytes everywhere
        self.task = task
        self.settings = settings
        self.environment = environment
        self.blueprint = blueprint(task, settings.seed)
        self.server = ServerOptimizer(
            tensors_of(self.blueprint.model), self.blueprint.schema, settings.server
        )
        self.versions = Versions(self.blueprint.schema, settings.downlink_bits, settings.downlink_history)
        self.registry = Registry()
        self.calibration = Calibration()
        widths = {1.0, *settings.planner_settings.widths}
        works = {width: measured(task, self.blueprint, width) for width in sorted(widths)}
        self.cost_model = CostModel(RUNTIMES[settings.runtime], works)
        self.rows: list[RoundRow] = []
        self.totals = Totals()
        self.observer = Observer(NoMetrics() if metrics is None else metrics, stopwatch)
        self._stopwatch = stopwatch

    @property
    def next_round(self) -> int:
        """Number of the round to open next; the first is 1."""
        return len(self.rows) + 1

    def register(self, node: int, profile: DeviceProfile, examples: int) -> None:
        """Take in a device that has introduced itself."""
        self.registry.register(node, profile, examples)

    def open_round(self, nodes: Sequence[int]) -> OpenRound:
        """Choose among the registered `nodes`, plan for each, and encode the global model for them."""
        number, opened_at, settings = self.next_round, self._stopwatch(), self.settings
        self.observer.opening(number)
        with self.observer.phase("select"):
            downlink = Downlink(
                self.blueprint,
                self.server.model(),
                number,
                settings.downlink_bits,
                settings.window,
                self.versions,
                settings.codec_preset,
            )
            planner = RoundPlanner(settings, self.registry, self.calibration, self.environment)
            known = [node for node in nodes if node in self.registry]
            plan = planner.plan_round(number, known, self.cost_model, downlink)
        self.observer.opened(plan, self.registry)
        return OpenRound(
            number,
            plan.dispatches,
            plan.skipped,
            CoverageMean(self.blueprint.schema, len(plan.dispatches)),
            settings.server.max_update_norm,
            opened_at=opened_at,
            opened_s=self.environment.now_s(),
        )

    def close_round(self, opened: OpenRound) -> RoundRow:
        """Apply the round, learn from its reports, and let the world move on.

        Reports are taken in order of node, so that nothing depends on the order of arrival.
        """
        opened.close()
        self.observer.answered()
        with self.observer.phase("aggregate"):
            if opened.mean.updates:
                self.server.step(opened.mean.mean(self.settings.server.absent_weight))
        silent = self.environment.settle(_participations(opened), opened.number)
        self.cost_model = learn(opened, self.registry, self.calibration, self.cost_model)
        self.totals.add(opened)
        note_in_records(opened, self.registry)
        evaluation = self._evaluate(opened.number)
        row = round_row(
            opened,
            full_bytes=self.blueprint.schema.nbytes,
            silent=silent,
            virtual_time_s=self.environment.now_s() - opened.opened_s,
            evaluation=evaluation,
            earlier=self.rows,
            size_error=self.cost_model.sizes.error,
            wall_time_s=self._stopwatch() - opened.opened_at,
        )
        self.rows.append(row)
        self.observer.closed(opened, self.registry, evaluation, self.rows, self.settings.rounds)
        return row

    def published(self) -> Tensors:
        """The model to evaluate and ship."""
        return self.server.published()

    def _evaluate(self, number: int) -> Evaluation | None:
        if number % self.settings.evaluate_every and number != self.settings.rounds:
            return None
        with self.observer.phase("evaluate"):
            model = self.blueprint.shrunk({})
            load_tensors(model, self.published())
            return self.task.evaluate(model.eval())


def measured(task: Task, architecture: Blueprint, width: float) -> Work:
    """The work of the model at one width; the window does not matter for it."""
    model = architecture.shrunk(select_channels(architecture.groups, width, "prefix"))
    return measure_work(model, task.example_inputs(), task.loss)


def _participations(opened: OpenRound) -> list[Participation]:
    participations = []
    for dispatch in sorted(opened.dispatches, key=lambda d: d.node):
        report = opened.reports.get(dispatch.node)
        spent = None if report is None else report.spent
        participations.append(Participation(dispatch.node, dispatch.predicted, spent))
    return participations
