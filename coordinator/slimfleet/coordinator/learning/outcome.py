"""What a round came to, as plain rows that reports and checkpoints share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRow:
    """One round. Sums run over the devices that got work; means over those whose update was used."""

    round: int
    selected: int
    completed: int
    skipped: int
    rejected: int
    failed: int
    """Devices that gave no usable answer: lost, late, or refusing."""
    accuracy: float | None
    """Of the published model on held-out data, 0..1; None where it was not evaluated."""
    loss: float | None
    trailing_accuracy: float | None
    """Mean accuracy of the last five evaluated rounds."""
    uplink_bytes: int
    uplink_bytes_float32: int
    """What the same answers would be as plain float32 models."""
    downlink_bytes: int
    downlink_bytes_float32: int
    energy_j: float
    compute_j: float
    radio_j: float
    virtual_time_s: float
    """How long the round took, in the environment's time."""
    mean_width: float
    mean_nmse: float
    """Squared error that the plans allowed in the updates, as a share of their squared norms."""
    mean_steps: float
    predicted_energy_j: float
    """What the planner expected of the devices that reported."""
    size_error: float
    """Typical relative error of the predicted sizes of updates, as known after the round; 0 before any came."""
    violations: int
    """Constraints broken, judged by the spent costs."""
    wall_time_s: float
