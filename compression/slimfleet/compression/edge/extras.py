"""Extras: which modules each of slimfleet's extras brings, so that a missing one is answered with what to install."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

__all__ = ["EXTRAS", "what_to_install"]

_DEVICE = ("torch",)

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "device": _DEVICE,
        "grpc": ("grpc",),
        "flower": (*_DEVICE, "grpc", "flwr"),
        "coordinator": (
            *_DEVICE,
            "grpc",
            "grpc_health",
            "h11",
            "prometheus_client",
            "matplotlib",
            "cryptography",
        ),
        "model": (*_DEVICE, "optuna", "matplotlib"),
        "simulation": (
            *_DEVICE,
            "grpc",
            "flwr",
            "ray",
            "prometheus_client",
            "matplotlib",
            "sklearn",
            "tomli_w",
        ),
    }
)
"""Modules that `pip install slimfleet` does not bring, by the extra that does; the smallest extras come first."""


def what_to_install(module: str, preferred: str) -> str | None:
    """The extra that has `module`: `preferred` where it does, otherwise the first; None where none has it."""
    if module in EXTRAS[preferred]:
        return preferred
    return next((extra for extra, modules in EXTRAS.items() if module in modules), None)
