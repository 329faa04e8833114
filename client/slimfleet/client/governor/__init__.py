"""Governor: keeps a device's work within the power, the memory and the temperature that it may have."""

from __future__ import annotations

from slimfleet.client.governor.memory import MEMORY_RESERVE_BYTES, free_memory_bytes, within_memory
from slimfleet.client.governor.power import PowerGovernor

__all__ = ["MEMORY_RESERVE_BYTES", "PowerGovernor", "free_memory_bytes", "within_memory"]
