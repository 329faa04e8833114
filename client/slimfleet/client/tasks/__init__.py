"""Built-in tasks: a model, its data and its loss, by name."""

from slimfleet.client.tasks.digits import Digits
from slimfleet.client.tasks.fashion_mnist import FashionMnist
from slimfleet.client.tasks.partition import dirichlet_partition
from slimfleet.client.tasks.table import TASKS

__all__ = ["TASKS", "Digits", "FashionMnist", "dirichlet_partition"]
