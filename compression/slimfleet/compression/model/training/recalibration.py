"""Recalibration: the statistics of batch normalisations, estimated anew for weights that changed without training.

What is left of a pruned or rounded layer has another mean and another variance; where its normalisation goes on with
those of the whole layer, most of what a model loses at once is lost there (for pruning Li et al. 2020, arXiv
2007.02491; for sub-networks Yu and Huang 2019, arXiv 1903.05134, section 3.1; for rounding Hubara et al. 2020, arXiv
2006.10518).
"""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from slimfleet.compression.model.central import CentralTask

__all__ = ["has_statistics", "recalibrated"]

BATCH = 64


def has_statistics(model: nn.Module) -> bool:
    """Whether the model has statistics to estimate."""
    return bool(_norms(model))


def recalibrated(model: nn.Module, central: CentralTask, examples: int = 512) -> nn.Module:
    """A copy of `model` in evaluation mode, whose batch normalisations have the mean statistics of batches of so many
    training examples."""
    copied = deepcopy(model).eval()
    norms = _norms(copied)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean of all batches
        norm.train()
    generator = torch.Generator().manual_seed(central.seed)
    chosen = torch.randperm(len(central.training), generator=generator)[:examples]
    with torch.no_grad():
        for index in torch.split(chosen, BATCH):
            if len(index) == min(
                BATCH, len(chosen)
            ):  # all batches count alike, and one example has no variance
                copied(*central.training.take(index).arguments)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return copied.eval()


def _norms(model: nn.Module) -> list[_BatchNorm]:
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]
