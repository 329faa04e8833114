"""Every method that is compared, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import ours
from plain import float32
from qsgd import ternary
from stc import sparse_ternary
from uplink import Compressor, Feedback

Family = Literal["float32", "ours, error feedback", "ours", "STC", "QSGD"]

FEEDBACK = Feedback(decay=0.9, max_norm=4.0)
"""Chosen on seed 99, which is not reported. There decay 0.9 or 1 and a cap of 1, 4 or none differ by 0.2 point."""
UNTOUCHED = Feedback()
"""The residual as STC keeps it: whole, whatever its age."""

REFERENCE = "float32"


@dataclass(frozen=True, slots=True)
class Method:
    """A way up, and the line of the plot that it belongs to."""

    family: Family
    compressor: Compressor
    feedback: Feedback | None = None


METHODS: dict[str, Method] = {
    REFERENCE: Method("float32", float32),
    "QSGD ternary": Method("QSGD", ternary),
    "STC 1%": Method("STC", sparse_ternary(0.01), UNTOUCHED),
    "ours 0.1 bit": Method("ours", ours.at_rate(0.1)),
    "ours 0.1 bit, feedback": Method("ours, error feedback", ours.at_rate(0.1), FEEDBACK),
    "ours 0.03 bit": Method("ours", ours.at_rate(0.03)),
    "ours 0.03 bit, feedback": Method("ours, error feedback", ours.at_rate(0.03), FEEDBACK),
    "ours 0.3 bit": Method("ours", ours.at_rate(0.3)),
    "ours 0.3 bit, feedback": Method("ours, error feedback", ours.at_rate(0.3), FEEDBACK),
    "ours NMSE 0.1": Method("ours", ours.at_error(0.1)),
}
