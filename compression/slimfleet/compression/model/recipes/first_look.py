"""First look of a search: how sensitive each tensor is to zeros and to few bits, within a time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from slimfleet.compression.model.central import CentralTask, silent
from slimfleet.compression.model.evaluation.sensitivity import Sensitivity, plots_of
from slimfleet.compression.model.slim_model import SlimModel, weights_of
from slimfleet.compression.model.technique import Plot
from slimfleet.compression.model.techniques.quantise import Quantise, sensitivity_to_bits
from slimfleet.compression.model.techniques.sparsify import Sparsify, sensitivity_to_zeros

__all__ = ["first_look"]


def first_look(slim: SlimModel, central: CentralTask, seconds: float) -> Mapping[str, Plot]:
    """Plots of the sensitivity of the tensors of two or more dimensions, the largest first.

    Tensors that no time is left for are missing; the largest is there in any case.
    """
    quiet = replace(central, progress=silent)
    sizes = {name: weight.numel() for name, weight in weights_of(slim.model).items()}
    names = sorted(sizes, key=lambda name: -sizes[name])
    zeros, bits = list[Sensitivity](), list[Sensitivity]()
    until = time.monotonic() + seconds
    for done, name in enumerate(names):
        zeros += sensitivity_to_zeros(slim, quiet, [name], Sparsify())
        bits += sensitivity_to_bits(slim, quiet, [name], Quantise())
        central.progress("sensitivity", done + 1, len(names))
        if time.monotonic() > until:
            break
    return {
        **plots_of("zeros in one tensor", "share of zeros", zeros),
        **plots_of("bits of one tensor", "bits", bits),
    }
