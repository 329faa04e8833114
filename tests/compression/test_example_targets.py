"""Zeros that a loss takes as targets, found without data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from slimfleet.compression.example_targets import fitting_targets


@dataclass
class Reconstruction:
    """What a variational autoencoder gives."""

    image: Tensor
    mean: Tensor


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).mean()


def by_position(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


CASES: dict[str, tuple[Any, Callable[[Any, Tensor], Tensor], list[int], torch.dtype]] = {
    "classes": (torch.zeros(2, 5), functional.cross_entropy, [1], torch.int64),
    "classes of pixels": (torch.zeros(2, 5, 4, 3), functional.cross_entropy, [1, 4, 3], torch.int64),
    "classes of a sequence, classes last": (torch.zeros(2, 7, 5), by_position, [1, 7], torch.int64),
    "classes cast by the loss": (
        torch.zeros(2, 5),
        lambda outputs, targets: functional.cross_entropy(outputs, targets.long()),
        [1],
        torch.float32,
    ),
    "several labels": (torch.zeros(2, 5), functional.binary_cross_entropy_with_logits, [1, 5], torch.float32),
    "one label": (
        torch.zeros(2, 1),
        lambda outputs, targets: functional.binary_cross_entropy_with_logits(outputs[:, 0], targets),
        [1],
        torch.float32,
    ),
    "several labels as numbers": (torch.zeros(2, 5), functional.multilabel_margin_loss, [1, 5], torch.int64),
    "one number": (torch.zeros(2, 1), functional.mse_loss, [1, 1], torch.float32),
    "one number, by hand": (torch.zeros(2, 1), squared, [1, 1], torch.float32),
    "a picture, by hand": (torch.zeros(2, 1, 4, 4), squared, [1, 1, 4, 4], torch.float32),
    "one number, squeezed": (
        torch.zeros(2, 1),
        lambda outputs, targets: functional.mse_loss(outputs.squeeze(1), targets),
        [1],
        torch.float32,
    ),
    "doubles": (torch.zeros(2, 3, dtype=torch.float64), functional.mse_loss, [1, 3], torch.float64),
    "a dictionary": (
        {"mask": torch.zeros(2, 4, dtype=torch.bool), "logits": torch.zeros(2, 5)},
        lambda outputs, targets: functional.cross_entropy(outputs["logits"], targets),
        [1],
        torch.int64,
    ),
    "the second of two": (
        (torch.zeros(2, 8, 6), torch.zeros(2, 5, 3)),
        lambda outputs, targets: functional.cross_entropy(outputs[1], targets),
        [1, 3],
        torch.int64,
    ),
    "a dataclass": (
        Reconstruction(torch.zeros(2, 1, 4, 4), torch.zeros(2, 3)),
        lambda outputs, targets: squared(outputs.image, targets) + outputs.mean.square().mean(),
        [1, 1, 4, 4],
        torch.float32,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_zeros_have_the_shape_and_type_that_the_loss_takes(case: str) -> None:
    outputs, loss, shape, dtype = CASES[case]
    found = fitting_targets(loss, outputs)
    assert (list(found.shape), found.dtype) == (shape, dtype)
    assert not found.any()


def test_a_loss_that_takes_no_zeros_says_why() -> None:
    def picky(outputs: Tensor, targets: Tensor) -> Tensor:
        raise KeyError("lengths")

    with pytest.raises(KeyError, match="lengths"):
        fitting_targets(picky, torch.zeros(2, 5))
