"""slimfleet.compression: the types and the mathematics that both ends of the wire share.

Budgets, plans and costs; schemas and payloads; the update codec. Free of torch, so that a 512 MB device can import
it. What needs torch is in the sub-packages `pruning` (discovery and shrinking) and `cost` (measuring work).
"""

from slimfleet.compression.errors import BadInput, BudgetExceeded, PayloadError, PolicyRefusal, SlimfleetError
from slimfleet.compression.messages import Assignment, Training
from slimfleet.compression.schema import ModelSchema, TensorSpec
from slimfleet.compression.task import Evaluation, Examples, Task
from slimfleet.compression.types import (
    Budget,
    Channels,
    Condition,
    Cost,
    DeviceProfile,
    Payload,
    Plan,
    Report,
    Skip,
    Tensors,
)

__all__ = [
    "Assignment",
    "BadInput",
    "Budget",
    "BudgetExceeded",
    "Channels",
    "Condition",
    "Cost",
    "DeviceProfile",
    "Evaluation",
    "Examples",
    "ModelSchema",
    "Payload",
    "PayloadError",
    "Plan",
    "PolicyRefusal",
    "Report",
    "Skip",
    "SlimfleetError",
    "Task",
    "TensorSpec",
    "Tensors",
    "Training",
]
