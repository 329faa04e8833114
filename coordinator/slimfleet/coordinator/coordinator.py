"""The coordinator: opens rounds, closes them, and keeps what lasts between them. It knows no transport."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from slimfleet.compression import Cost, DeviceProfile, Report, Task, Tensors
from slimfleet.compression.cost import RUNTIMES, CostModel, SizeObservation, Work, measure_work
from slimfleet.compression.pruning import select_channels
from slimfleet.compression.pruning.blueprint import Blueprint, blueprint
from slimfleet.compression.pruning.shrink import shrink_model
from slimfleet.compression.task import Evaluation
from slimfleet.compression.tensors import load_tensors, tensors_of
from slimfleet.coordinator.aggregate import CoverageMean
from slimfleet.coordinator.calibration import Calibration
from slimfleet.coordinator.dispatch import FLOAT32_BITS, Dispatch, Downlink
from slimfleet.coordinator.environment import Environment, Participation
from slimfleet.coordinator.metrics import Metrics, NoMetrics
from slimfleet.coordinator.open_round import OpenRound
from slimfleet.coordinator.outcome import RoundRow
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.round_planner import RoundPlanner
from slimfleet.coordinator.round_row import round_row
from slimfleet.coordinator.server_optimizer import ServerOptimizer
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
        self.metrics = NoMetrics() if metrics is None else metrics
        self.blueprint = blueprint(task, settings.seed)
        self.server = ServerOptimizer(
            tensors_of(self.blueprint.model), self.blueprint.schema, settings.server
        )
        self.registry = Registry()
        self.calibration = Calibration()
        widths = {1.0, *settings.planner_settings.widths}
        works = {width: measured(task, self.blueprint, width) for width in sorted(widths)}
        self.cost_model = CostModel(RUNTIMES[settings.runtime], works)
        self.rows: list[RoundRow] = []
        self.skipped: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.violations: Counter[str] = Counter()
        self._stopwatch = stopwatch

    @property
    def next_round(self) -> int:
        """Number of the round to open next; the first is 1."""
        return len(self.rows) + 1

    def enrol(self, node: int, profile: DeviceProfile, examples: int) -> None:
        """Take in a device that has introduced itself."""
        self.registry.enrol(node, profile, examples)

    def open_round(self, nodes: Sequence[int]) -> OpenRound:
        """Choose among the enrolled `nodes`, plan for each, and encode the global model for them."""
        self._opened_at = self._stopwatch()
        number = self.next_round
        downlink = Downlink(
            self.blueprint, self.server.model(), number, self.settings.downlink_bits, self.settings.window
        )
        planner = RoundPlanner(self.settings, self.registry, self.calibration, self.environment)
        known = [node for node in nodes if node in self.registry]
        dispatches, skipped = planner.plan_round(number, known, self.cost_model, downlink)
        mean = CoverageMean(self.blueprint.schema)
        return OpenRound(number, dispatches, skipped, mean, self.settings.server.max_update_norm)

    def close_round(self, opened: OpenRound) -> RoundRow:
        """Apply the round, learn from its reports, and let the world move on.

        Reports are taken in order of node, so that nothing depends on the order of arrival.
        """
        opened.close()
        if opened.mean.updates:
            self.server.step(opened.mean.mean())
        began = self.environment.now_s()
        silent_j = self.environment.settle(_participations(opened), opened.number)
        self._learn(opened)
        self._tally(opened)
        evaluation = self._evaluate(opened.number)
        row = round_row(
            opened,
            full_bytes=self.blueprint.schema.nbytes,
            silent_j=silent_j,
            virtual_time_s=self.environment.now_s() - began,
            evaluation=evaluation,
            earlier=self.rows,
            wall_time_s=self._stopwatch() - self._opened_at,
        )
        self.rows.append(row)
        return row

    def published(self) -> Tensors:
        """The model to evaluate and ship."""
        return self.server.published()

    def _evaluate(self, number: int) -> Evaluation | None:
        if number % self.settings.evaluate_every and number != self.settings.rounds:
            return None
        model = shrink_model(self.blueprint.model, self.blueprint.places({}))
        load_tensors(model, self.published())
        return self.task.evaluate(model.eval())

    def _learn(self, opened: OpenRound) -> None:
        """Correct the cost model by what was really spent."""
        sizes = []
        for dispatch in sorted(opened.dispatches, key=lambda d: d.node):
            report = opened.reports.get(dispatch.node)
            if report is None or dispatch.node in opened.rejected:
                continue
            record = self.registry[dispatch.node]
            record.examples, record.loss = report.examples, report.loss
            nominal = self._nominal(dispatch, report)
            self.calibration.update(str(dispatch.node), record.profile.device_class, nominal, report.spent)
            plan = dispatch.assignment.plan
            if plan.bits != FLOAT32_BITS:
                parameters = self.cost_model.works[plan.width].parameters
                sizes.append(SizeObservation(plan.bits, plan.sparsity, parameters, report.spent.uplink_bytes))
        self.calibration.close_round()
        self.cost_model = replace(self.cost_model, sizes=self.cost_model.sizes.learn(sizes))

    def _nominal(self, dispatch: Dispatch, report: Report) -> Cost:
        """What the uncorrected model says of the steps that were done and the bytes that were sent."""
        plan = replace(dispatch.assignment.plan, local_steps=report.steps)
        return self.cost_model.predict(
            self.registry[dispatch.node].profile,
            plan,
            self.cost_model.works[plan.width],
            report.spent.uplink_bytes,
            report.spent.downlink_bytes,
            dispatch.assignment.budget.power_w,
        )

    def _tally(self, opened: OpenRound) -> None:
        """Add the round to the totals, of the run and of each device."""
        for counter, counts in zip((self.skipped, self.rejected, self.failed), opened.counts(), strict=True):
            counter.update(counts)
        for node in opened.skipped:
            self.registry[node].skips += 1
        for dispatch in opened.dispatches:
            record, node = self.registry[dispatch.node], dispatch.node
            record.downlink_bytes += len(dispatch.payload)
            record.rejections += node in opened.rejected
            record.failures += node in opened.failed
            record.violations += len(opened.violations.get(node, ()))
            self.violations.update(opened.violations.get(node, ()))
            if node in opened.accepted:
                record.acknowledged_round = opened.number
                record.participations += 1
                record.width_sum += dispatch.assignment.plan.width
            report = opened.reports.get(node)
            if report is not None:
                record.energy_j += report.spent.energy_j
                record.time_s += report.spent.time_s
                record.uplink_bytes += report.spent.uplink_bytes


def measured(task: Task, architecture: Blueprint, width: float) -> Work:
    """The work of the model at one width; the window does not matter for it."""
    channels = select_channels(architecture.groups, width, "prefix", 0, None)
    model = shrink_model(architecture.model, architecture.places(channels))
    return measure_work(model, task.example_inputs(), task.loss)


def _participations(opened: OpenRound) -> list[Participation]:
    participations = []
    for dispatch in sorted(opened.dispatches, key=lambda d: d.node):
        report = opened.reports.get(dispatch.node)
        spent = None if report is None else report.spent
        participations.append(Participation(dispatch.node, dispatch.predicted, spent))
    return participations
