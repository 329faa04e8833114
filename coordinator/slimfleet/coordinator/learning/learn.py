"""Learning from answers: how each device differs from its profile, how large updates come out, what each has cost."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from slimfleet.compression import Cost, DeviceProfile, Report
from slimfleet.compression.cost import CostModel, SizeObservation
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.sending.versions import NOTHING

if TYPE_CHECKING:
    from slimfleet.coordinator.state import State

log = logging.getLogger(__name__)


def learn(state: State, cost_model: CostModel, answers: Sequence[Answer], round_number: int) -> None:
    """Fold answers into calibration, sizes and records.

    Reports of rejected updates teach nothing about costs. `answers` come in order of node and each has a dispatch.
    """
    sizes = []
    for answer in answers:
        assert answer.dispatch is not None
        _note(state, answer.dispatch, answer, round_number)
        try:
            sizes += _taught(state, cost_model, answer.dispatch, answer)
        except Exception:
            # What one device reports must not keep the coordinator from learning from the others.
            log.exception(
                "round %d: the report of node %d teaches nothing", round_number, answer.dispatch.node
            )
    state.calibration.close_round()
    state.sizes = state.sizes.learn(sizes)


def _taught(state: State, cost_model: CostModel, dispatch: Dispatch, answer: Answer) -> list[SizeObservation]:
    """Learn from one report what a device's rounds cost; returns the size of its update, where that teaches too."""
    report = answer.report
    if report is None or answer.verdict == "rejected":
        return []
    record, plan = state.registry[dispatch.node], dispatch.assignment.plan
    record.examples, record.loss = report.examples, report.loss
    nominal = nominal_cost(cost_model, record.profile, dispatch, report)
    device = str(dispatch.node)
    state.calibration.update(device, record.profile.device_class, nominal, report.spent)
    if not plan.nmse:
        return []
    parameters = cost_model.works[plan.width].parameters
    return [SizeObservation(plan.nmse, parameters, report.spent.uplink_bytes, device)]


def nominal_cost(cost_model: CostModel, profile: DeviceProfile, dispatch: Dispatch, report: Report) -> Cost:
    """What the uncorrected model says of the steps that were done and the bytes that were sent."""
    plan = replace(dispatch.assignment.plan, local_steps=report.steps)
    return cost_model.predict(
        profile,
        plan,
        cost_model.works[plan.width],
        report.spent.uplink_bytes,
        report.spent.downlink_bytes,
        dispatch.assignment.budget.power_w,
    )


def _note(state: State, dispatch: Dispatch, answer: Answer, round_number: int) -> None:
    """Add an answer to the record of its device."""
    record, report = state.registry[dispatch.node], answer.report
    record.downlink_bytes += len(dispatch.payload)
    record.uplink_bytes += answer.received_bytes or 0
    record.rejections += answer.verdict == "rejected"
    record.failures += answer.verdict == "failed"
    record.violations += len(answer.broken)
    if answer.norms is not None:
        record.norms, record.norms_round = answer.norms, round_number
    if answer.verdict == "accepted":
        record.acknowledged_round = round_number
        record.participations += 1
        record.width_sum += dispatch.assignment.plan.width
    if answer.verdict == "failed" and answer.reason == "stale":
        record.holding = NOTHING
    if report is not None:
        # Whatever became of its update: nobody has trained a model without decoding it.
        record.holding = dispatch.holding_after if dispatch.holding_after != NOTHING else record.holding
        record.energy_j += report.spent.energy_j
        record.time_s += report.spent.time_s
