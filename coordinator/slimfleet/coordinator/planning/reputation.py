"""Reputation: a device whose updates were rejected of late, or never came, is asked less.

Each rejection and each silence among its last four rounds halves how often it is asked. It is never left out for good:
in one round of sixteen it is asked whatever it has done, and four accepted updates restore it. Failures of which the
coordinator is told do not count.
"""

from __future__ import annotations

import numpy as np

from slimfleet.compression import Skip
from slimfleet.coordinator.registry import DeviceRecord


def sits_out(record: DeviceRecord, seed: int, round_number: int) -> Skip | None:
    """Why a device sits out this round; None where it may take part. The draw does not depend on the selection policy.

    Nothing is drawn for a device of good reputation.
    """
    unused = record.used.count(False)
    if not unused or np.random.default_rng((seed, round_number, record.node, 2)).random() < 0.5**unused:
        return None
    return Skip(constraint="reputation", needed=unused, limit=len(record.used))


def blemish(record: DeviceRecord) -> str:
    """What to add to the reason of a device's plan; empty where it has a good reputation."""
    unused = record.used.count(False)
    return f"; asked less: {unused} of its last {len(record.used)} rejected or silent" if unused else ""
