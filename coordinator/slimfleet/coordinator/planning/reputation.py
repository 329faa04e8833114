"""Reputation: a device whose updates were rejected of late is asked less.

Each rejection among its last four updates halves how often it is asked. It is never left out for good: in one round of
sixteen it is asked whatever it has sent, and four accepted updates restore it. Failures do not count.
"""

from __future__ import annotations

import numpy as np

from slimfleet.compression import Skip
from slimfleet.coordinator.record import DeviceRecord


def sits_out(record: DeviceRecord, seed: int, round_number: int) -> Skip | None:
    """Why a device sits out this round; None where it may take part. The draw does not depend on the selection policy.

    Nothing is drawn for a device that has no rejection.
    """
    rejected = record.used.count(False)
    if not rejected or np.random.default_rng((seed, round_number, record.node, 2)).random() < 0.5**rejected:
        return None
    return Skip(constraint="reputation", needed=rejected, limit=len(record.used))


def blemish(record: DeviceRecord) -> str:
    """What to add to the reason of a device's plan; empty where no update of late was rejected."""
    rejected = record.used.count(False)
    return f"; asked less: rejected {rejected} of its last {len(record.used)}" if rejected else ""
