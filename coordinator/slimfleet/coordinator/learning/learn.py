"""What a round's reports teach: how each device differs from its profile, and how large updates come out."""

from __future__ import annotations

from dataclasses import replace

from slimfleet.compression import Cost, DeviceProfile, Report
from slimfleet.compression.cost import CostModel, SizeObservation
from slimfleet.coordinator.learning.calibration import Calibration
from slimfleet.coordinator.receiving.open_round import OpenRound
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.sending.dispatch import Dispatch


def learn(
    opened: OpenRound, registry: Registry, calibration: Calibration, cost_model: CostModel
) -> CostModel:
    """Update records and calibration from a closed round, and return the cost model with what was learned of sizes.

    Reports of rejected updates are not believed. Nodes are taken in order, so that nothing depends on arrival.
    """
    sizes = []
    for dispatch in sorted(opened.dispatches, key=lambda d: d.node):
        report = opened.reports.get(dispatch.node)
        if report is None or dispatch.node in opened.rejected:
            continue
        record = registry[dispatch.node]
        record.examples, record.loss = report.examples, report.loss
        nominal = nominal_cost(cost_model, record.profile, dispatch, report)
        calibration.update(str(dispatch.node), record.profile.device_class, nominal, report.spent)
        plan = dispatch.assignment.plan
        if plan.nmse:
            parameters = cost_model.works[plan.width].parameters
            sizes.append(SizeObservation(plan.nmse, parameters, report.spent.uplink_bytes))
    calibration.close_round()
    return replace(cost_model, sizes=cost_model.sizes.learn(sizes))


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
