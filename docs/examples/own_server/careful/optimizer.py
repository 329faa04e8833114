"""A server optimiser: Nesterov's momentum on the mean update."""

import torch

from slimfleet.coordinator import ServerSettings


def nesterov(parameters: list[torch.Tensor], settings: ServerSettings) -> torch.optim.Optimizer:
    """Takes all the parameters, in their order; their gradient is minus the mean update."""
    momentum = settings.momentum or 0.5
    return torch.optim.SGD(parameters, lr=settings.learning_rate, momentum=momentum, nesterov=True)
