"""Cost of a plan: work measured on the shrunk model, bytes, time, energy and peak memory."""

from slimfleet.compression.cost.distortion import bits_per_value
from slimfleet.compression.cost.model import (
    PARAMETER_COPIES,
    CostModel,
    Costs,
    Demand,
    Figures,
    peak_memory_bytes,
)
from slimfleet.compression.cost.runtime import RUNTIMES, Runtime
from slimfleet.compression.cost.size import SizeObservation, UpdateSizeModel
from slimfleet.compression.cost.work import Work, measure_work, work_of

__all__ = [
    "PARAMETER_COPIES",
    "RUNTIMES",
    "CostModel",
    "Costs",
    "Demand",
    "Figures",
    "Runtime",
    "SizeObservation",
    "UpdateSizeModel",
    "Work",
    "bits_per_value",
    "measure_work",
    "peak_memory_bytes",
    "work_of",
]
