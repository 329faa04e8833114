"""Coordinator: three verbs over one state. It knows no transport and no disk.

`plan` puts dispatches in flight, `receive` judges what comes back, `step` folds the answers into model, calibration,
registry and row. Each returns what happened as data (`observing.events`); a driver carries messages and calls the
observers.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import median

import numpy as np
from torch import nn

from slimfleet.compression import Evaluation, PayloadError, Report, Task, Tensors
from slimfleet.compression.cost import RUNTIMES, CostModel, work_of
from slimfleet.compression.errors import POLICY_REASONS
from slimfleet.compression.messages import Spent
from slimfleet.compression.pruning import select_channels
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.task import central_evaluation
from slimfleet.compression.tensors import load_tensors, tensors_of
from slimfleet.compression.threads import torch_threads
from slimfleet.coordinator import pacing
from slimfleet.coordinator.environment import Environment, Instant
from slimfleet.coordinator.learning.aggregate import CoverageMean, scaled, shortened, tied, tied_tensors
from slimfleet.coordinator.learning.aggregators import AGGREGATORS
from slimfleet.coordinator.learning.best import candidate, is_better
from slimfleet.coordinator.learning.learn import learn
from slimfleet.coordinator.learning.row import alarm_of, round_row
from slimfleet.coordinator.learning.server_optimizer import ServerOptimizer
from slimfleet.coordinator.observing.events import Closed, Phase, Planned
from slimfleet.coordinator.planning.assigning import Assigner
from slimfleet.coordinator.planning.nominal import Nominal
from slimfleet.coordinator.planning.own import Policies
from slimfleet.coordinator.planning.pools import pools
from slimfleet.coordinator.planning.skips import Skips
from slimfleet.coordinator.receiving.answer import REPLAY, Answer, Arrived, failed, judged
from slimfleet.coordinator.receiving.bounds import (
    LONGEST_MEAN,
    RECENT_ROUNDS,
    FleetBounds,
    fleet_bounds,
    multiple,
    typical_norms,
)
from slimfleet.coordinator.receiving.checks import norm
from slimfleet.coordinator.receiving.lot import Lot, Rules
from slimfleet.coordinator.receiving.transfers import RoundTrip
from slimfleet.coordinator.sending.dispatch import Dispatch
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
            blueprint=self.blueprint,
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
        self._policies = Policies.of(settings)
        self._nominal = Nominal(self._works[1.0].flops_per_example)
        self._tied = tied_tensors(self.blueprint.model)
        self._stopwatch = stopwatch
        self._now_s: Callable[[], float] = lambda: self.environment.now_s()

    @property
    def cost_model(self) -> CostModel:
        """The cost model of nominal devices, with the update sizes learned so far."""
        return CostModel(RUNTIMES[self.settings.client.runtime], self._works, self.state.sizes)

    def plan(self, now_s: float, most: int, nodes: Sequence[int] | None = None) -> Planned:
        """Choose at most `most` devices, plan for each, and put their dispatches in flight.

        `nodes` are those that the transport reaches; None is every registered device. The first call after a `step`
        opens a round. Devices at work, and those that have answered since the last step, are not considered.
        """
        began, state = self._stopwatch(), self.state
        opened = self._open_round(now_s, began)
        at_work = {dispatch.node for dispatch in state.in_flight.values()}
        at_work |= {answer.dispatch.node for answer in opened.answers if answer.dispatch is not None}
        busy = np.array(list(at_work), np.uint64)
        known = state.registry.columns.node if nodes is None else state.registry.registered(nodes)
        assigner = Assigner(
            settings=self.settings,
            registry=state.registry,
            calibration=state.calibration,
            cost_model=self.cost_model,
            downlink=opened.downlink,
            policies=self._policies,
            nominal=self._nominal,
            now_s=now_s,
        )
        reachable = []
        for pool in pools(known, self.settings, opened.number):
            conditions = self.environment.conditions(state.registry, pool, opened.number)
            conditions.reached[np.isin(pool, busy)] = False
            assigner.assign(pool, conditions, most)
            reachable.append(pool[conditions.reached])
            if len(assigner.dispatches) >= most:
                break
        planned_at = self._stopwatch()
        dispatches = tuple(
            replace(each, sent_s=now_s, handed_out_at=planned_at) for each in assigner.dispatches
        )
        at = Instant(now_s=now_s, at=planned_at)
        with self.at(at):
            self.put_in_flight(dispatches, assigner.skipped, found_too_few=len(dispatches) < most)
        return Planned(
            round_number=opened.number,
            dispatches=dispatches,
            skipped=assigner.skipped,
            reachable=np.concatenate(reachable),
            seconds=planned_at - began,
            at=at,
            settings=self.settings,
            state=state,
        )

    def put_in_flight(self, dispatches: Sequence[Dispatch], skipped: Skips, *, found_too_few: bool) -> None:
        """Give out what has been planned; also where that was before a restart."""
        opened = self.opened()
        now = self.instant()
        self.state.in_flight.put(dispatches)
        opened.skipped.update(skipped)
        opened.selected += len(dispatches)
        opened.found_too_few = found_too_few
        closes_s = pacing.closes_s(self.settings.pacing, now.now_s, self._times(dispatches))
        opened.closes_s = min(opened.closes_s, closes_s)
        opened.handed_out_at = opened.handed_out_at or now.at

    def receive(self, plan_id: int, payload: bytes, report: str | Report) -> Answer:
        """Check the answer to a dispatch and add an acceptable update to the mean.

        `report` is the device's text, or what `parse` made of it.
        A bad one is counted and named, and does not harm the round. The update itself is not kept: memory does not
        grow with the number of devices.
        """
        dispatch = self.state.in_flight.pop(plan_id, None)
        if dispatch is None:
            return self._answered(REPLAY)
        opened = self.opened()
        record = self.state.registry[dispatch.node]
        trip = RoundTrip(record.profile, self._stopwatch() - dispatch.handed_out_at, record.overhead_s)
        arrived = Arrived(payload, report)
        answer, update = judged(dispatch, arrived, opened.bounds, self._base(dispatch), trip)
        if update is not None:
            answer = self._added(answer, dispatch, update)
        return self._answered(answer)

    def rules(self) -> Rules | None:
        """What answers to this round may be judged by elsewhere, and added up; None where each must come by itself.

        That is where which of them are used depends on when the others come, or on more than their sum, or where
        devices observe statistics, which are judged by the model.
        """
        settings, opened = self.settings, self.opened()
        pace = settings.pacing
        if (
            pace.mode != "synchronous"
            or pace.surplus
            or pace.deadline != "none"
            or not isinstance(opened.mean, CoverageMean)
            or any(spec.kind != "weight" for spec in self.state.schema.moving.tensors)
        ):
            return None
        return Rules(bounds=opened.bounds, scale=opened.mean.scale, in_time_s=settings.round_timeout_s)

    def receive_lot(self, lot: Lot) -> list[Answer]:
        """Take the answers of several devices, judged by the `rules` of the open round, and the sum of their updates.

        Where one of them is not in flight any more, the sum cannot be used, and none of them counts.
        """
        opened = self.opened()
        found = [self.state.in_flight.pop(each.plan_id, None) for each in lot.judged]
        dispatches = [each for each in found if each is not None and each.version == opened.number]
        if len(dispatches) < len(found):
            unusable = "the sum that it is a part of holds an answer that is not awaited"
            return [
                self._answered(REPLAY if each is None else failed(each, "late", unusable)) for each in found
            ]
        if lot.total.updates:
            assert isinstance(opened.mean, CoverageMean)
            opened.mean.add_sum(lot.total, dispatches[0].update_map)
        return [
            self._answered(each.answer(dispatch))
            for each, dispatch in zip(lot.judged, dispatches, strict=True)
        ]

    def fail(self, plan_id: int, reason: str, message: str = "", spent: Spent | None = None) -> Answer:
        """A device answered that it could not, having spent so much, or its transport failed."""
        dispatch = self.state.in_flight.pop(plan_id, None)
        return self._answered(REPLAY if dispatch is None else failed(dispatch, reason, message, spent))

    def give_up(self, reason: str, message: str, plan_ids: Iterable[int] | None = None) -> list[Answer]:
        """Count work in flight as failed; all of it, where no plans are named."""
        given_up = list(self.state.in_flight if plan_ids is None else plan_ids)
        return [self.fail(plan_id, reason, message) for plan_id in given_up]

    def silent(self, now_s: float) -> list[int]:
        """The plans whose devices have been silent for too long."""
        return [
            plan_id
            for plan_id, dispatch in self.state.in_flight.items()
            if now_s >= pacing.gives_up_s(self.settings, dispatch.sent_s)
        ]

    def wanted(self) -> int:
        """How many devices should be given work now."""
        return pacing.wanted(self.state, self.settings)

    def is_due(self, now_s: float) -> bool:
        """Whether the open round should be closed now, by `step`."""
        return pacing.is_due(self.state, self.settings, now_s)

    def next_alarm_s(self) -> float:
        """The first moment at which the round is due, or a device is given up, even if no answer comes."""
        return pacing.next_alarm_s(self.state, self.settings)

    def step(self) -> Closed:
        """Fold the round's answers into the state, let the environment move on, and evaluate.

        Answers are taken in order of node, so that nothing depends on the order of arrival. A round with too few
        updates leaves the model alone. With the last round all that is in flight ends. Raises RuntimeError where no
        round is open.
        """
        state, settings, stopwatch = self.state, self.settings, self._stopwatch
        opened = state.open_round
        if opened is None:
            raise RuntimeError("no round is open: plan comes first")
        if opened.number == settings.rounds:
            self.give_up("late", "the last round was closed before it came")
        seconds: dict[Phase, float] = {"train": stopwatch() - opened.handed_out_at}
        is_applied = opened.mean.updates >= settings.pacing.least_updates
        came = opened.answers if is_applied else [self._without_effect(each) for each in opened.answers]
        answers = sorted(came, key=lambda a: 0 if a.dispatch is None else a.dispatch.node)
        began = stopwatch()
        if is_applied:
            state.server.step(self._mean(opened, answers))
        seconds["aggregate"] = stopwatch() - began
        state.keep_bases()
        silent = self.environment.spent(answers)
        if settings.pacing.mode == "synchronous" or not state.in_flight:
            self.environment.rest()
        learn(state, self.cost_model, answers, silent, opened.number)
        state.totals.add([*answers, *state.unasked], opened.skipped.counts())
        state.registry.count_skips(opened.skipped.single, opened.skipped.low)
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

    def opened(self) -> OpenRound:
        """The open round, which is opened where none is."""
        return self._open_round(self._now_s(), self._stopwatch())

    def instant(self) -> Instant:
        """The present by both clocks; within `at` the moment that it names."""
        return Instant(now_s=self._now_s(), at=self._stopwatch())

    @contextmanager
    def at(self, instant: Instant) -> Iterator[None]:
        """Let `receive` and its like happen at `instant`, whenever they are called."""
        before = self._now_s, self._stopwatch
        self._now_s, self._stopwatch = (lambda: instant.now_s), (lambda: instant.at)
        try:
            yield
        finally:
            self._now_s, self._stopwatch = before

    def _open_round(self, now_s: float, began: float) -> OpenRound:
        state, settings = self.state, self.settings
        if state.open_round is None:
            number, model = state.next_round, state.server.model()
            bounds = self._bounds(number, model)
            most_examples = bounds.weight(int(state.registry.columns.examples.max(initial=1)))
            server = settings.server
            aggregator = AGGREGATORS[server.aggregation]
            state.open_round = OpenRound(
                number=number,
                downlink=Downlink(self.blueprint, model, number, state.versions, settings),
                mean=aggregator(state.schema.moving, settings.quota, model, most_examples, server),
                bounds=bounds,
                opened_s=now_s,
                opened_at=began,
            )
        return state.open_round

    def _bounds(self, number: int, model: Tensors) -> FleetBounds:
        """What one device may claim and move in this round."""
        settings = self.settings
        registry = self.state.registry
        return fleet_bounds(
            registry.columns.examples,
            registry.norms_since(number - RECENT_ROUNDS),
            settings.quota,
            norm(model, self.state.schema.weights),
            settings.server,
        )

    def _mean(self, opened: OpenRound, answers: Sequence[Answer]) -> Tensors:
        """The round's mean update, in which tied tensors move as one, bounded by its typical update."""
        mean = tied(opened.mean.mean(self.settings.server.absent_weight), self._tied)
        if not self.settings.server.fleet_bounds:
            return mean
        used = [a.norms for a in answers if a.verdict == "accepted" and a.norms is not None]
        typical = typical_norms(used) or opened.bounds.typical
        return shortened(mean, self.state.schema.moving, multiple(LONGEST_MEAN, typical))

    def _added(self, answer: Answer, dispatch: Dispatch, update: Tensors) -> Answer:
        """The answer to an acceptable update, once that is in the mean; or why it is not used."""
        opened, settings = self.opened(), self.settings
        staleness = opened.number - dispatch.version
        unused = pacing.too_late(settings, staleness, opened.mean.updates)
        if unused is not None:
            return replace(answer, verdict="failed", reason=unused[0], message=unused[1])
        assert answer.report is not None
        weight, index_map = opened.bounds.weight(answer.report.examples), dispatch.update_map
        update = shortened(update, index_map.schema, opened.bounds.longest_at(weight))
        update = scaled(update, index_map.schema, pacing.damping(settings.pacing, staleness))
        try:
            opened.mean.add(update, index_map, weight)
        except PayloadError as error:
            return replace(answer, verdict="rejected", reason=error.reason, message=str(error))
        return replace(answer, staleness=staleness)

    def _without_effect(self, answer: Answer) -> Answer:
        """The answer, now that its round is not applied."""
        if answer.verdict != "accepted":
            return answer
        updates, least = self.opened().mean.updates, self.settings.pacing.least_updates
        message = f"the round has {updates} updates and needs {least}"
        return replace(answer, verdict="failed", reason="too_few", message=message)

    def _base(self, dispatch: Dispatch) -> Tensors:
        """The float buffers of the model that a device started from, and maybe more of it."""
        opened = self.opened()
        is_fresh = dispatch.version == opened.number
        return opened.downlink.tensors if is_fresh else self.state.bases.get(dispatch.version, {})

    def _times(self, dispatches: Sequence[Dispatch]) -> list[float]:
        """How long devices are expected to take, corrected by what is known of them, and their answers to come, s.

        The way there and back counts as the median one, so that none that registered late holds up a round.
        """
        state = self.state
        records = [state.registry[each.node] for each in dispatches]
        way_s = median(record.overhead_s or 0.0 for record in records) if records else 0.0
        return [
            way_s
            + each.predicted.time_s
            * state.calibration.correction(str(each.node), record.profile.device_class).time.value
            for each, record in zip(dispatches, records, strict=True)
        ]

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
        opened = self.opened()
        opened.answers.append(answer)
        if answer.condition is not None:
            record, now_s = self.state.registry[answer.dispatch.node], self._now_s()
            record.hear(answer.condition, now_s, refused=answer.reason in POLICY_REASONS)
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
