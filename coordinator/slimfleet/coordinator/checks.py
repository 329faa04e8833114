"""Strict checking of what a device sends back, before any of it is used."""

from __future__ import annotations

from math import sqrt

import numpy as np

from slimfleet.compression import Budget, Cost, ModelSchema, PayloadError, Report, Tensors
from slimfleet.compression.codec import decode
from slimfleet.compression.types import Plan
from slimfleet.compression.wire import read_header

LARGEST_EXAMPLES = 2**20
"""More local examples than this count as this many: no single device may outweigh a fleet."""

OVERHEAD_BYTES = 8_192
"""What a payload may take beyond the plain float32 arrays."""


def checked_update(
    payload: bytes,
    report: Report,
    *,
    round_number: int,
    plan_id: int,
    plan: Plan,
    budget: Budget,
    schema: ModelSchema,
    max_norm: float,
) -> Tensors:
    """Decode an update (shrunk shapes) and make sure that it answers this round's plan.

    Raises PayloadError with a bounded reason: oversized, stale, replay, schema, message, nonfinite, norm, and
    whatever the decoder finds.
    """
    limit = schema.nbytes + OVERHEAD_BYTES if budget.uplink_bytes is None else budget.uplink_bytes
    if len(payload) > limit:
        raise PayloadError("oversized", f"{len(payload)} bytes, the limit is {limit}")
    header = read_header(payload)
    if header.base_version != round_number:
        raise PayloadError(
            "stale", f"an update of model version {header.base_version}, expected {round_number}"
        )
    if header.plan_id != plan_id:
        raise PayloadError("replay", f"an answer to plan {header.plan_id:#x}, expected {plan_id:#x}")
    if report.steps > plan.local_steps or report.steps == 0:
        raise PayloadError("message", f"{report.steps} local steps reported, {plan.local_steps} planned")
    if report.spent.uplink_bytes != len(payload):
        raise PayloadError("message", f"{report.spent.uplink_bytes} bytes reported, {len(payload)} received")
    update = decode(payload, schema).tensors
    _check_norm(update, max_norm)
    return update


def broken_constraints(spent: Cost, budget: Budget) -> list[str]:
    """The constraints of `budget` that the spent cost exceeds."""
    pairs = {
        "energy_j": (spent.energy_j, budget.energy_j),
        "memory_bytes": (spent.memory_bytes, budget.memory_bytes),
        "deadline_s": (spent.time_s, budget.deadline_s),
        "uplink_bytes": (spent.uplink_bytes, budget.uplink_bytes),
        "downlink_bytes": (spent.downlink_bytes, budget.downlink_bytes),
    }
    broken = [name for name, (value, limit) in pairs.items() if limit is not None and value > limit]
    mean_w = (spent.energy_j - spent.radio_j) / spent.time_s if spent.time_s > 0 else 0.0
    if budget.power_w is not None and mean_w > budget.power_w * (1 + 1e-9):
        broken.append("power_w")
    return broken


def _check_norm(update: Tensors, max_norm: float) -> None:
    total = 0.0
    for name, values in update.items():
        if not np.isfinite(values).all():
            raise PayloadError("nonfinite", f"tensor {name!r} holds values that are not finite")
        total += float(np.sum(np.square(values, dtype=np.float64)))
    if sqrt(total) > max_norm:
        raise PayloadError("norm", f"the update's norm is {sqrt(total):.4g}, the limit is {max_norm:g}")
