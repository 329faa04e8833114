"""What the planner may choose from, and what it values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MinLen

from slimfleet.compression.types import NotNegative, Positive

Bits = Literal[1, 2, 3, 4, 5, 6, 7, 8, 32]
"""Bits of a quantised value of the model that is sent; 32 sends plain float32."""

NMSE = (
    *(0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18),
    *(0.22, 0.26, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95),
)
"""Errors about a sixth of the bytes apart, from what 8 bits reach up to the few largest weights alone."""

PositiveInt = Annotated[int, Ge(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannerSettings:
    """The grid of candidate plans (their product), the weights of their value, and safety margins.

    Among candidates of equal value the first wins: values stand in order of preference.
    """

    widths: Annotated[tuple[Annotated[float, Gt(0), Le(1)], ...], MinLen(1)] = (1.0, 0.75, 0.5, 0.375, 0.25)
    local_steps: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (128, 64, 32, 16, 8, 4, 2, 1)
    max_epochs: Positive = 1.0
    """Most passes over the local examples: longer candidates are cut to it."""
    batch_sizes: Annotated[tuple[PositiveInt, ...], MinLen(1)] = (32, 16, 8)
    nmse: Annotated[tuple[Annotated[float, Ge(0), Lt(1)], ...], MinLen(1)] = NMSE
    """Squared errors allowed in an update, as shares of its squared norm; 0 sends plain float32."""

    width_exponent: NotNegative = 0.3
    """Progress of a round at width w is w to this power. 0.3 fits a measurement: a fleet of widths 1, 0.5 and
    0.25 in equal shares needed 37 rounds for what full width reached in 30 (Fashion-MNIST CNN)."""
    quality_exponent: NotNegative = 0.25
    """Weight of the update's fidelity: far below 1, since error feedback sends later what is lost now."""
    energy_exponent: NotNegative = 0.15
    """Price of energy: 0 spends whatever the budget allows, 1 maximises progress per joule."""
    uplink_exponent: NotNegative = 0.05
    """Price of uplink bytes, likewise."""

    margin: NotNegative = 0.15
    """Least share by which predicted time, energy and memory are raised before they are held to a limit; at
    least 0.1 on memory, whose held-out predictions fell short by up to 8%."""
    safety: NotNegative = 2.0
    """Standard deviations of past prediction errors kept free below a limit, where that is more."""
    unknown_examples: PositiveInt = 256
    """Local examples assumed of a device that has never reported."""
