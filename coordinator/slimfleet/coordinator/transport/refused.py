"""Refusals by devices: what a device says of a round that it did not do, as an entry, whatever carried it."""

from __future__ import annotations

from slimfleet.compression import PayloadError, Report
from slimfleet.compression.errors import POLICY_REASONS
from slimfleet.compression.foreign_text import foreign_text
from slimfleet.compression.messages import Spent, parse
from slimfleet.compression.wire import REASONS
from slimfleet.coordinator.entries import Failed
from slimfleet.coordinator.receiving.checks import is_plausible

__all__ = ["LONGEST_REASON", "REFUSALS", "device_refusal", "one_line", "worked_s"]

REFUSALS = REASONS | {
    "message",
    "energy_j",
    "deadline_s",
    "memory_bytes",
    "uplink_bytes",
    "local_steps",
    *POLICY_REASONS,
}
"""Reasons a device may give for not doing a round; any other word is counted as `refused`."""

LONGEST_REASON = 500
"""Characters of a text from outside that are kept."""


def device_refusal(plan_id: int, reason: str, message: str, spent: Spent | str | None) -> Failed:
    """The refusal of a plan. `spent` is what the device had spent by then, as text or parsed already."""
    message = one_line(message)
    if isinstance(spent, str):
        try:
            spent = parse(Spent, spent)
        except PayloadError as error:
            return Failed(plan_id=plan_id, reason="refused", message=f"{message} ({one_line(str(error))})")
    if spent is not None:
        message += f" (by then {spent.cost.energy_j:.3g} J in {spent.cost.time_s:.3g} s)"
    known = reason if reason in REFUSALS else "refused"
    return Failed(plan_id=plan_id, reason=known, message=message, spent=spent)


def worked_s(said: Report | Spent | None) -> float | None:
    """How long a device says that it worked; None where it does not, or no device can have."""
    if said is None:
        return None
    cost = said.spent if isinstance(said, Report) else said.cost
    return cost.time_s if is_plausible(cost, said.startup) else None


def one_line(text: str) -> str:
    """A foreign text in one line that prints, cut to `LONGEST_REASON`."""
    return foreign_text(" ".join(text.split()), LONGEST_REASON)
