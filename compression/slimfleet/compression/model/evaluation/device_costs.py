"""Costs of a model that a device has limits for, each with how it is measured: one table, name -> function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from slimfleet.compression.errors import BadInput
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.measuring import (
    flops_of,
    joules_per_flop,
    latency_of,
    nonzero_of,
    parameters_of,
    peak_memory_of,
)
from slimfleet.compression.model.saving.file import packed_bytes
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.profiles import load_profiles
from slimfleet.compression.types import DeviceProfile

__all__ = ["COSTS", "profile_named"]


def _flops(slim: SlimModel, central: CentralTask, profile: DeviceProfile | None) -> float:
    return flops_of(slim.model, central.example_inputs)


def _latency(slim: SlimModel, central: CentralTask, profile: DeviceProfile | None) -> float:
    return latency_of(slim.model, central.example_inputs)


def _memory(slim: SlimModel, central: CentralTask, profile: DeviceProfile | None) -> float:
    return float(peak_memory_of(slim, central.example_inputs))


def _energy(slim: SlimModel, central: CentralTask, profile: DeviceProfile | None) -> float:
    """Simulated, from a profile's nominal figures; without one the FLOPs, of which it is a multiple."""
    joules = 1.0 if profile is None else joules_per_flop(profile)
    return flops_of(slim.model, central.example_inputs) * joules


def _size(slim: SlimModel, central: CentralTask, profile: DeviceProfile | None) -> float:
    return float(packed_bytes(slim, central.task))


def _parameters(slim: SlimModel, central: CentralTask, profile: DeviceProfile | None) -> float:
    return float(parameters_of(slim.model))


def _nonzero(slim: SlimModel, central: CentralTask, profile: DeviceProfile | None) -> float:
    return float(nonzero_of(slim.model))


COSTS: Mapping[str, Callable[[SlimModel, CentralTask, DeviceProfile | None], float]] = MappingProxyType(
    {
        "size": _size,
        "parameters": _parameters,
        "nonzero": _nonzero,
        "flops": _flops,
        "memory": _memory,
        "latency": _latency,
        "energy": _energy,
    }
)
"""As in `Measured`: bytes of the file, FLOPs, bytes at the peak, seconds and joules for one example."""


def profile_named(name: str) -> DeviceProfile:
    """The profile of a device. Raises BadInput for a name that is in no row."""
    for row in load_profiles():
        if row.name == name:
            return row.profile
    known = ", ".join(row.name for row in load_profiles())
    raise BadInput(f"there is no device profile {name!r}: known are {known}")
