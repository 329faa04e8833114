"""Every method that is compared, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import ours
from plain import float32
from qsgd import ternary
from stc import sparse_ternary
from uplink import Compressor, Feedback

Family = Literal["float32", "ours, error feedback", "ours", "ours, unbiased", "STC", "QSGD"]

FEEDBACK = Feedback(decay=0.9, max_norm=4.0)
"""Chosen on seed 99, which is not reported. There decay 1 without a cap gives 0.1 point less."""
UNTOUCHED = Feedback()
"""The residual as STC keeps it: whole, whatever its age."""

REFERENCE = "float32"


@dataclass(frozen=True, slots=True)
class Method:
    """A way up, and the line of the plot that it belongs to."""

    family: Family
    compressor: Compressor
    feedback: Feedback | None = None
    rate: float | None = None
    """Bits a parameter that the payload may take, where it is made to a rate."""


def _ours(rate: float) -> dict[str, Method]:
    name = f"ours {rate:g} bit"
    return {
        f"{name}, feedback": Method("ours, error feedback", ours.at_rate(rate), FEEDBACK, rate),
        name: Method("ours", ours.at_rate(rate), None, rate),
        f"{name}, unbiased": Method("ours, unbiased", ours.at_rate(rate, "stochastic"), None, rate),
    }


METHODS: dict[str, Method] = {
    REFERENCE: Method("float32", float32),
    "QSGD ternary": Method("QSGD", ternary),
    "STC 1%": Method("STC", sparse_ternary(0.01), UNTOUCHED),
    **{name: method for name, method in _ours(0.03).items() if method.family != "ours, unbiased"},
    **_ours(0.1),
    **_ours(0.3),
}
