"""Coordinator: three verbs over one state. It knows no transport and no disk.

`plan` puts dispatches in flight, `receive` judges what comes back, `step` folds the answers into model, calibration,
registry and row. Each returns what happened as data (`observing.events`); a driver carries messages and calls the
observers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from slimfleet.compression import Evaluation, PayloadError, Task, Tensors
from slimfleet.compression.cost import RUNTIMES, CostModel, work_of
from slimfleet.compression.messages import Spent
from slimfleet.compression.pruning import select_channels
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.task import central_evaluation
from slimfleet.compression.tensors import load_tensors, tensors_of
from slimfleet.compression.threads import torch_threads
from slimfleet.coordinator.environment import Environment
from slimfleet.coordinator.learning.aggregate import CoverageMean, shortened, tied, tied_tensors
from slimfleet.coordinator.learning.best import candidate, is_better
from slimfleet.coordinator.learning.learn import learn
from slimfleet.coordinator.learning.row import alarm_of, round_row
from slimfleet.coordinator.learning.server_optimizer import ServerOptimizer
from slimfleet.coordinator.observing.events import Closed, Phase, Planned
from slimfleet.coordinator.planning.assigning import Assigner
from slimfleet.coordinator.receiving.answer import REPLAY, Answer, failed, judged
from slimfleet.coordinator.receiving.bounds import (
    LONGEST_MEAN,
    RECENT_ROUNDS,
    FleetBounds,
    fleet_bounds,
    multiple,
    typical_norms,
)
from slimfleet.coordinator.receiving.checks import norm
from slimfleet.coordinator.receiving.transfers import RoundTrip
from slimfleet.coordinator.sending.downlink import Downlink
from slimfleet.coordinator.sending.versions import Versions
from slimfleet.coordinator.settings import CoordinatorSettings
from slimfleet.coordinator.state import OpenRound, State

log = logging.getLogger(__name__)


class Coordinator:
    """One federation: its global model, its devices, and what it has learned about their costs."""

    def __init__(
        self,
        task: Task,
        settings: CoordinatorSettings,
        environment: Environment,
        stopwatch: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.task = task
        self.settings = settings
        self.environment = environment
        with torch_threads(1):
            self.blueprint = blueprint(task, settings.seed)
        schema, codec = self.blueprint.schema, settings.codec
        self.state = State(
            schema=schema,
            server=ServerOptimizer(tensors_of(self.blueprint.model), schema, settings.server),
            versions=Versions(schema, codec.downlink_bits, codec.downlink_history),
        )
        groups = self.blueprint.groups
        with torch_threads(1):
            self._works = {
                # Which channels are kept does not matter for the work, only how many.
                width: work_of(task, self.blueprint.shrunk(select_channels(groups, width, "prefix")))
                for width in sorted({1.0, *settings.planner.widths})
            }
        self._tied = tied_tensors(self.blueprint.model)
        self._stopwatch = stopwatch

    @property
    def cost_model(self) -> CostModel:
        """The cost model of nominal devices, with the update sizes learned so far."""
        return CostModel(RUNTIMES[self.settings.client.runtime], self._works, self.state.sizes)

    def plan(self, now_s: float, most: int, nodes: Sequence[int] | None = None) -> Planned:
        """Choose at most `most` devices, plan for each, and put their dispatches in flight.

        `nodes` are those that the transport reaches; None is every registered device. The first call after a `step`
        opens a round. Devices that already take part in it are not considered again.
        """
        began, state = self._stopwatch(), self.state
        opened = self._open_round(now_s, began)
        busy = {dispatch.node for dispatch in state.in_flight.values()}
        busy |= {answer.dispatch.node for answer in opened.answers if answer.dispatch is not None}
        known = state.registry.nodes() if nodes is None else [n for n in nodes if n in state.registry]
        statuses = {
            node: status
            for node in known
            if node not in busy and (status := self.environment.status(node, opened.number))
        }
        assigner = Assigner(
            self.settings, state.registry, state.calibration, self.cost_model, opened.downlink
        )
        assigner.assign(statuses, most)
        opened.handed_out_at = self._stopwatch()
        state.in_flight |= {
            each.plan_id: replace(each, handed_out_at=opened.handed_out_at) for each in assigner.dispatches
        }
        opened.skipped |= assigner.skipped
        return Planned(
            round_number=opened.number,
            dispatches=tuple(assigner.dispatches),
            skipped=assigner.skipped,
            reachable=frozenset(statuses),
            seconds=opened.handed_out_at - began,
            settings=self.settings,
            state=state,
        )

    def receive(self, plan_id: int, payload: bytes, report_text: str) -> Answer:
        """Check the answer to a dispatch and add an acceptable update to the mean.

        A bad one is counted and named, and does not harm the round. The update itself is not kept: memory does not
        grow with the number of devices.
        """
        dispatch = self.state.in_flight.pop(plan_id, None)
        if dispatch is None:
            return self._answered(REPLAY)
        opened = self._opened()
        record = self.state.registry[dispatch.node]
        trip = RoundTrip(record.profile, self._stopwatch() - dispatch.handed_out_at, record.overhead_s)
        answer, update = judged(dispatch, payload, report_text, opened.bounds, opened.downlink.tensors, trip)
        if update is not None and answer.report is not None:
            weight = opened.bounds.weight(answer.report.examples)
            try:
                index_map = dispatch.update_map
                update = shortened(update, index_map.schema, opened.bounds.longest_at(weight))
                opened.mean.add(update, index_map, weight)
            except PayloadError as error:
                answer = replace(answer, verdict="rejected", reason=error.reason, message=str(error))
        return self._answered(answer)

    def fail(self, plan_id: int, reason: str, message: str = "", spent: Spent | None = None) -> Answer:
        """A device answered that it could not, having spent so much, or its transport failed."""
        dispatch = self.state.in_flight.pop(plan_id, None)
        return self._answered(REPLAY if dispatch is None else failed(dispatch, reason, message, spent))

    def give_up(self, reason: str, message: str) -> list[Answer]:
        """Count all that is still in flight as failed."""
        return [self.fail(plan_id, reason, message) for plan_id in list(self.state.in_flight)]

    def step(self, now_s: float) -> Closed:
        """Fold the round's answers into the state, let the environment move on, and evaluate.

        Answers are taken in order of node, so that nothing depends on the order of arrival. Raises RuntimeError where
        no round is open.
        """
        state, settings, opened, stopwatch = self.state, self.settings, self._opened(), self._stopwatch
        seconds: dict[Phase, float] = {"train": stopwatch() - opened.handed_out_at}
        answers = sorted(opened.answers, key=lambda a: 0 if a.dispatch is None else a.dispatch.node)
        began = stopwatch()
        if opened.mean.updates:
            state.server.step(self._mean(opened, answers))
        seconds["aggregate"] = stopwatch() - began
        silent = self.environment.advance(now_s, answers, opened.number)
        learn(state, self.cost_model, answers, silent, opened.number)
        state.totals.add([*answers, *state.unasked], opened.skipped)
        for node in opened.skipped:
            state.registry[node].skips += 1
            state.registry[node].forget_startup()
        evaluation = None
        judge = central_evaluation(self.task)
        if judge is not None and settings.is_evaluated(opened.number):
            began = stopwatch()
            evaluation = self._evaluate(judge)
            seconds["evaluate"] = stopwatch() - began
            if problem := alarm_of(evaluation):
                log.error("round %d: %s", opened.number, problem)
        virtual_time_s = self.environment.now_s() - opened.opened_s
        wall_time_s = stopwatch() - opened.opened_at
        row = round_row(state, opened, answers, silent.values(), evaluation, virtual_time_s, wall_time_s)
        told = (*answers, *state.unasked)
        state.rows.append(row)
        self._keep_best(opened)
        state.open_round, state.unasked = None, []
        return Closed(
            row=row,
            answers=told,
            evaluation=evaluation,
            seconds=seconds,
            settings=self.settings,
            state=state,
        )

    def published(self) -> Tensors:
        """The model to evaluate and ship."""
        return self.state.server.published()

    def _open_round(self, now_s: float, began: float) -> OpenRound:
        state, settings = self.state, self.settings
        if state.open_round is None:
            number, model = state.next_round, state.server.model()
            bounds = self._bounds(number, model)
            most_examples = bounds.weight(max((record.examples for record in state.registry), default=1))
            state.open_round = OpenRound(
                number=number,
                downlink=Downlink(self.blueprint, model, number, state.versions, settings),
                mean=CoverageMean(state.schema.moving, settings.selection.per_round, model, most_examples),
                bounds=bounds,
                opened_s=now_s,
                opened_at=began,
            )
        return state.open_round

    def _bounds(self, number: int, model: Tensors) -> FleetBounds:
        """What one device may claim and move in this round."""
        settings = self.settings
        records = list(self.state.registry) if settings.server.fleet_bounds else []
        recent = [
            record.norms
            for record in records
            if record.norms is not None and record.norms_round >= number - RECENT_ROUNDS
        ]
        return fleet_bounds(
            [record.examples for record in records],
            recent,
            settings.selection.per_round,
            settings.server.max_update_norm,
            norm(model, self.state.schema.weights),
        )

    def _mean(self, opened: OpenRound, answers: Sequence[Answer]) -> Tensors:
        """The round's mean update, in which tied tensors move as one, bounded by its typical update."""
        mean = tied(opened.mean.mean(self.settings.server.absent_weight), self._tied)
        if not self.settings.server.fleet_bounds:
            return mean
        used = [a.norms for a in answers if a.verdict == "accepted" and a.norms is not None]
        typical = typical_norms(used) or opened.bounds.typical
        return shortened(mean, self.state.schema.moving, multiple(LONGEST_MEAN, typical))

    def _opened(self) -> OpenRound:
        if self.state.open_round is None:
            raise RuntimeError("no round is open: plan comes first")
        return self.state.open_round

    def _answered(self, answer: Answer) -> Answer:
        """Keep an answer until the next step, and log it where its update is not used."""
        if answer.dispatch is None:
            self.state.unasked.append(answer)
            log.warning(
                "round %d: an answer is not used (%s): %s",
                self.state.next_round,
                answer.reason,
                answer.message,
            )
            return answer
        opened = self._opened()
        opened.answers.append(answer)
        if answer.verdict != "accepted":
            level = logging.WARNING if answer.verdict == "rejected" else logging.INFO
            how = "update of %s rejected" if answer.verdict == "rejected" else "%s failed"
            log.log(
                level,
                f"round %d: {how} (%s): %s",
                opened.number,
                self.state.registry.label(answer.dispatch.node),
                answer.reason,
                answer.message,
            )
        return answer

    def _keep_best(self, opened: OpenRound) -> None:
        """Keep the model that the last row is about, where it is the best so far."""
        new = candidate(self.state.rows)
        if new is not None and is_better(new, self.state.best):
            self.state.best = new
            by_devices = new.judged_by == "devices"
            self.state.best_model = opened.downlink.tensors if by_devices else self.published()

    def _evaluate(self, judge: Callable[[nn.Module], Evaluation]) -> Evaluation:
        model = self.blueprint.shrunk({})
        load_tensors(model, self.published())
        with torch_threads(1):
            return judge(model.eval())
