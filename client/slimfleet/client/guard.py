"""Budget guard: ends a round early rather than break a budget."""

from __future__ import annotations

from slimfleet.client.ledger import Balance, transfer
from slimfleet.compression import Budget, DeviceProfile

FIRST_STEP_SLACK = 6.0
"""The first step may cost this many times its nominal cost: a slow device of a class runs at a quarter of the nominal
speed, a fifth slower under other load, at a fifth more power."""

STEP_SLACK = 1.25
"""Every further step may cost this many times the most expensive so far."""

UPLOAD_SLACK = 4.0
"""The upload may take this many times its nominal duration: rates stray that far from device to device."""


class BudgetGuard:
    """Tells, before every local step, whether the step and the upload that must follow still fit.

    `step_flops` is the work of a full local step, `largest_upload` the most bytes that will be sent at the end, `spent`
    the balance before training. Link and speed may be slower than the profile says: see the slacks above.
    """

    def __init__(
        self, budget: Budget, profile: DeviceProfile, step_flops: float, largest_upload: int, spent: Balance
    ) -> None:
        self._budget, self._spent = budget, spent
        upload_s, self._upload_j = transfer(profile, up=largest_upload)
        self._upload_s = UPLOAD_SLACK * upload_s
        step_j = profile.train_w * step_flops / profile.train_flops_per_s
        watts = profile.train_w if budget.power_w is None else min(budget.power_w, profile.train_w)
        self._next_j, self._next_s = FIRST_STEP_SLACK * step_j, FIRST_STEP_SLACK * step_j / watts
        self._dearest_j = self._dearest_s = 0.0

    def stepped(self, spent: Balance) -> None:
        """A step is done, and `spent` is the balance now. What a device waited to cool down is no part of a step."""
        self._dearest_j = max(self._dearest_j, spent.energy_j - self._spent.energy_j)
        cooling_s = spent.paused_s("heat") - self._spent.paused_s("heat")
        self._dearest_s = max(self._dearest_s, spent.time_s - self._spent.time_s - cooling_s)
        self._next_j, self._next_s = STEP_SLACK * self._dearest_j, STEP_SLACK * self._dearest_s
        self._spent = spent

    def binding(self) -> str | None:
        """The constraint that one more step could break; None where it fits."""
        energy_j = self._spent.energy_j + self._next_j + self._upload_j
        if self._budget.energy_j is not None and energy_j > self._budget.energy_j:
            return "energy_j"
        time_s = self._spent.time_s + self._next_s + self._upload_s
        if self._budget.deadline_s is not None and time_s > self._budget.deadline_s:
            return "deadline_s"
        return None
