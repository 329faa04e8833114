"""Training runtimes: their memory besides the model, which is R0, c and k of the cost model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from slimfleet.compression.types import DeviceProfile

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Runtime:
    """Peak memory of a process that trains: R0 + 3·parameters + c + k·activations.

    Parameters and activations alone are 2 to 12 times too low for the peak of a PyTorch process.
    """

    name: str
    base_bytes: int
    """R0: resident before a model exists (interpreter, libraries)."""
    fixed_bytes: int
    """c: what training adds whatever the model (library work space, allocator, thread stacks)."""
    activation_factor: float
    """k: peak bytes per byte of saved activations (gradients of activations, temporaries, fragmentation)."""

    def on(self, profile: DeviceProfile) -> Runtime:
        """This runtime as it was measured on a device."""
        base, fixed = profile.runtime_base_bytes, profile.runtime_fixed_bytes
        factor = profile.runtime_activation_factor
        return Runtime(
            self.name,
            self.base_bytes if base is None else base,
            self.fixed_bytes if fixed is None else fixed,
            self.activation_factor if factor is None else factor,
        )


RUNTIMES: Mapping[str, Runtime] = MappingProxyType(
    {
        # Measured; see docs/cost-model.md. k is the larger of two families (CNN 2.53, ResNet18 3.03).
        "torch": Runtime("torch", base_bytes=236 * MB, fixed_bytes=99 * MB, activation_factor=3.03),
        # numpy, gRPC and a trainer in C: 42 MB resident after imports, measured on x86-64. The trainer keeps
        # each activation and its gradient once (k = 2) and has a work space of its own: by construction, not
        # fitted.
        "lite": Runtime("lite", base_bytes=42 * MB, fixed_bytes=2 * MB, activation_factor=2.0),
    }
)
"""Runtimes a device may train with, by name."""
