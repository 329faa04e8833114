"""Learning from answers: how each device differs from its profile, how large updates come out, what each has cost."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from slimfleet.compression import Cost, DeviceProfile, Report
from slimfleet.compression.cost import CostModel, SizeObservation
from slimfleet.compression.types import NO_COST, Startup
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.sending.versions import NOTHING

if TYPE_CHECKING:
    from slimfleet.coordinator.state import State

log = logging.getLogger(__name__)


def learn(
    state: State,
    cost_model: CostModel,
    answers: Sequence[Answer],
    silent: Mapping[int, Cost],
    round_number: int,
) -> None:
    """Fold answers into calibration, sizes and records.

    Reports of rejected updates teach nothing about costs. `answers` come in order of node and each has a dispatch;
    `silent` is what devices spent that gave no report, by node.
    """
    sizes = []
    for answer in answers:
        assert answer.dispatch is not None
        node = answer.dispatch.node
        _note(state, answer.dispatch, answer, silent.get(node), round_number)
        try:
            sizes += _taught(state, cost_model, answer.dispatch, answer)
        except Exception:
            # What one device reports must not keep the coordinator from learning from the others.
            log.exception(
                "round %d: the report of %s teaches nothing", round_number, state.registry.label(node)
            )
    state.calibration.close_round()
    state.sizes = state.sizes.learn(sizes)


def _taught(state: State, cost_model: CostModel, dispatch: Dispatch, answer: Answer) -> list[SizeObservation]:
    """Learn from one report what a device's rounds cost; returns the size of its update, where that teaches too."""
    report, record, plan = answer.report, state.registry[dispatch.node], dispatch.assignment.plan
    if answer.spent is not None:
        record.learn_startup(answer.spent.startup, at_least=True)
    if report is None or answer.verdict == "rejected":
        return []
    record.examples, record.loss = report.examples, report.loss
    record.learn_startup(report.startup)
    nominal = nominal_cost(cost_model, record.profile, dispatch, report)
    device = str(dispatch.node)
    # Start-up is learned by itself: what it takes says nothing about how fast a device trains. Nor does evaluating.
    evaluate = report.phases.evaluate if report.phases is not None else NO_COST
    spent = replace(
        report.spent,
        energy_j=report.spent.energy_j - report.startup.energy_j - evaluate.energy_j,
        time_s=report.spent.time_s - evaluate.time_s,
    )
    state.calibration.update(device, record.profile.device_class, nominal, spent)
    if not plan.nmse:
        return []
    parameters = cost_model.works[plan.width].parameters
    return [SizeObservation(plan.nmse, parameters, report.spent.uplink_bytes, device)]


def nominal_cost(cost_model: CostModel, profile: DeviceProfile, dispatch: Dispatch, report: Report) -> Cost:
    """What the uncorrected model says of the steps that were done and the bytes that were sent, after the start-up
    that there was, whose energy is left out."""
    plan = replace(dispatch.assignment.plan, local_steps=report.steps)
    return cost_model.on(Startup(time_s=report.startup.time_s)).predict(
        profile,
        plan,
        cost_model.works[plan.width],
        report.spent.uplink_bytes,
        report.spent.downlink_bytes,
        dispatch.assignment.budget.power_w,
    )


def _note(
    state: State, dispatch: Dispatch, answer: Answer, unreported: Cost | None, round_number: int
) -> None:
    """Add an answer to the record of its device."""
    record, report = state.registry[dispatch.node], answer.report
    spent = unreported if report is None else report.spent
    record.downlink_bytes += len(dispatch.payload)
    record.uplink_bytes += answer.received_bytes or 0
    record.rejections += answer.verdict == "rejected"
    record.failures += answer.verdict == "failed"
    if answer.verdict != "failed" or answer.reason == "timeout":
        record.judged(answer.verdict == "accepted")
    record.violations += len(answer.broken)
    record.last_problem = "" if answer.verdict == "accepted" else f"{answer.reason}: {answer.message}"
    if answer.norms is not None:
        record.norms, record.norms_round = answer.norms, round_number
    if answer.verdict == "accepted":
        record.acknowledged_round = dispatch.version
        record.participations += 1
        record.width_sum += dispatch.assignment.plan.width
        if report is not None and report.evaluated is not None:
            record.evaluated, record.evaluated_round = report.evaluated, round_number
    if answer.verdict == "failed" and answer.reason == "stale":
        record.holding = NOTHING
    if report is not None:
        # Even where its update is rejected: a device that trained a model has decoded it.
        record.holding = dispatch.holding_after if dispatch.holding_after != NOTHING else record.holding
        record.time_s += report.spent.time_s
    if spent is not None:
        record.energy_j += spent.energy_j
