"""Nominal rounds: what one epoch of the full model takes on every registered device, as far as its claims go."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.coordinator.planning.selection import credible_joules
from slimfleet.coordinator.registry import Registry

__all__ = ["Nominal"]


class Nominal:
    """Joules of a nominal round by device, kept while nobody's profile or number of examples changes."""

    def __init__(self, flops_per_example: float) -> None:
        self._flops_per_example = flops_per_example
        self._known: tuple[int, NDArray[np.float64], NDArray[np.bool_]] | None = None

    def of(self, registry: Registry) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Credible joules of a round, and whether the device has a battery, (n,) each, as the registry's columns."""
        columns = registry.columns
        if (
            self._known is None
            or self._known[0] != registry.claims
            or len(self._known[1]) != len(columns.node)
        ):
            profiles = registry.profiles
            names = list(dict.fromkeys(profile.device_class for profile in profiles))
            classes = np.array([names.index(profile.device_class) for profile in profiles], np.int32)
            has_battery = np.array([profile.battery_j is not None for profile in profiles], np.bool_)
            train_w, flops_per_s, burst_j = (
                np.array([getattr(profile, name) for profile in profiles], np.float64)[columns.profile]
                for name in ("train_w", "train_flops_per_s", "radio_j_per_burst")
            )
            joules = train_w * (self._flops_per_example * columns.examples) / flops_per_s + burst_j
            credible = credible_joules(classes[columns.profile], joules)
            self._known = registry.claims, credible, has_battery[columns.profile]
        return self._known[1:]
