"""End a round early rather than break a budget."""

from __future__ import annotations

from dataclasses import dataclass

from slimfleet.client.ledger import Balance, transfer
from slimfleet.compression import Budget, DeviceProfile

STEP_SLACK = 1.25
"""The next step may cost this much more than the dearest so far."""

UPLOAD_SLACK = 4.0
"""The upload may take this many times its nominal duration: rates stray that far from device to device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetGuard:
    """Says, before every local step, whether the step and the upload that must follow still fit."""

    budget: Budget
    upload_s: float
    upload_j: float

    @classmethod
    def of(cls, budget: Budget, profile: DeviceProfile, largest_upload: int) -> BudgetGuard:
        """Keep enough back to send `largest_upload` bytes over a slow link."""
        seconds, joules = transfer(profile, up=largest_upload)
        return cls(budget=budget, upload_s=UPLOAD_SLACK * seconds, upload_j=joules)

    def binding(self, spent: Balance, step: Balance) -> str | None:
        """The constraint that another step as dear as `step` could break, or None."""
        energy_j = spent.energy_j + STEP_SLACK * step.energy_j + self.upload_j
        if self.budget.energy_j is not None and energy_j > self.budget.energy_j:
            return "energy_j"
        time_s = spent.time_s + STEP_SLACK * step.time_s + self.upload_s
        if self.budget.deadline_s is not None and time_s > self.budget.deadline_s:
            return "deadline_s"
        return None


def dearest(a: Balance, b: Balance) -> Balance:
    """The larger of each quantity."""
    return Balance(
        energy_j=max(a.energy_j, b.energy_j),
        radio_j=max(a.radio_j, b.radio_j),
        time_s=max(a.time_s, b.time_s),
    )


def difference(later: Balance, earlier: Balance) -> Balance:
    """What was spent between two readings."""
    return Balance(
        energy_j=later.energy_j - earlier.energy_j,
        radio_j=later.radio_j - earlier.radio_j,
        time_s=later.time_s - earlier.time_s,
    )
