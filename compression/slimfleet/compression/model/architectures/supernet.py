"""Supernet: a model trained so that its sub-networks work with the weights they share."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor, nn

from slimfleet.compression.model.architectures.subnets import Space, subnet
from slimfleet.compression.model.central import CentralTask
from slimfleet.compression.model.evaluation.divergence import divergence
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.training.soft_labels import Loss
from slimfleet.compression.model.training.teachers import Batch
from slimfleet.compression.model.training.tuning import Tuner, Tuning
from slimfleet.compression.pruning.nested import map_tensors

__all__ = ["supernet"]

DRAWN = 2
"""Random sub-networks in a step."""


def supernet(
    slim: SlimModel, space: Space, central: CentralTask, tuning: Tuning, until: float
) -> tuple[nn.Module, int]:
    """A trained copy of the model, and the steps that it took; they end at `until` on `time.monotonic`'s clock.

    In each step train the largest sub-network, the smallest and some random ones, of which the smaller learn what the
    largest says (sandwich rule and in-place distillation, Yu and Huang 2019, arXiv 1903.05134, sections 3.2 and 3.3).
    """
    tuner = Tuner(slim, central, tuning, "search: supernet", _sandwich(space, central))
    while tuner.done < tuner.planned and time.monotonic() < until:
        tuner.run(max(tuner.epoch // 10, 1))
    return tuner.slim.model, tuner.done


def _sandwich(space: Space, central: CentralTask) -> Loss:
    rng = np.random.default_rng([central.seed, 13])

    def loss(model: nn.Module, batch: Batch) -> Tensor:
        largest = model(*batch.arguments)
        terms = [central.loss(largest, batch.targets)]
        for choice in (space.smallest, *(space.drawn(rng) for _ in range(DRAWN))):
            small = subnet(space, model, choice)
            small.model.train()
            outputs = small(model, batch.arguments)
            terms.append(divergence(outputs, map_tensors(Tensor.detach, largest), batch.targets))
        return torch.stack(terms).mean()

    return loss
