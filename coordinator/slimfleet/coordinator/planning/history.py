"""What the coordinator has learned about one device, as far as planning needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from slimfleet.coordinator.learning.calibration import Correction


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Past reports of one device, condensed; the defaults describe a device never heard of."""

    examples: int | None = None
    """Number of local examples; None before the first report."""
    correction: Correction = field(default_factory=Correction)
    """How its costs differ from the nominal model, and how surely."""
    downlink_bytes: Mapping[float, int] = field(default_factory=dict)
    """Width -> bytes of the model that would be sent; a width left out is taken as plain float32."""
