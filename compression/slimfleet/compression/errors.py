"""Errors: all that slimfleet raises on purpose, in one tree.

    SlimfleetError
    ├── BadInput            wrong input by the user (a scenario, an option, an installation): exit code 2
    │   └── DiskError       a file or folder that cannot be read or written; also an OSError
    ├── PayloadError        bytes from the other end are not an acceptable payload; carries a `reason`
    ├── BudgetExceeded      a device cannot continue within its budget; carries the `constraint`
    └── PolicyRefusal       a device's own policy forbids a round, or the rest of it; carries a `reason`

A message says what was wrong, the value, the limit and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from slimfleet.compression.messages import Spent


POLICY_REASONS = (
    "battery_low",
    "battery_unknown",
    "not_charging",
    "charging_unknown",
    "metered",
    "metered_unknown",
    "too_warm",
    "temperature_unknown",
    "memory_low",
    "memory_unknown",
    "quiet_hours",
)
"""Every word that `PolicyRefusal.reason` may hold. Bounded, so that it can label a metric."""


class SlimfleetError(Exception):
    """Base of every error that slimfleet raises on purpose."""

    spent: Spent | None = None
    """What a device had spent on the round that the error ended; set by the device."""


class BadInput(SlimfleetError):
    """Input by the user that cannot be used; one clear line, exit code 2."""


class DiskError(BadInput, OSError):
    """A file or folder that the system refuses: no space, no permission, read-only, a file where a folder belongs."""


class PayloadError(SlimfleetError):
    """Bytes that are not an acceptable payload.

    `reason` is one of a bounded set of words (see `slimfleet.compression.wire.REASONS`): it is counted and exported
    as a metric label, so it never holds anything that came from the other end.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[PayloadError], tuple[str, str]]:
        return type(self), (self.reason, str(self))


class BudgetExceeded(SlimfleetError):
    """A device cannot do the smallest useful work inside its budget."""

    def __init__(self, constraint: str, message: str) -> None:
        super().__init__(message)
        self.constraint = constraint

    def __reduce__(self) -> tuple[type[BudgetExceeded], tuple[str, str]]:
        return type(self), (self.constraint, str(self))


class PolicyRefusal(SlimfleetError):
    """A device's own policy forbids a round, or the rest of it. `reason` is one of `POLICY_REASONS`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[type[PolicyRefusal], tuple[str, str]]:
        return type(self), (self.reason, str(self))
