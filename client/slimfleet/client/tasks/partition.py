"""Partitions: how one data set becomes the local data of many devices, skewed by label or kept apart by person."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import BadInput

Index = NDArray[np.int64]


def dirichlet_partition(
    labels: NDArray[np.integer], partitions: int, alpha: float, rng: np.random.Generator, minimum: int = 1
) -> list[Index]:
    """Split the examples with these `labels` (shape [n]) over `partitions` devices with skewed labels.

    Every class is distributed in proportions drawn from a symmetric Dirichlet(alpha), so that devices differ
    in their labels and in how much they hold: small `alpha` gives devices of one or two classes, `alpha =
    inf` an even split. The prior is that of Hsu, Qi and Brown, "Measuring the effects of non-identical data
    distribution for federated visual classification", 2019 (arXiv 1909.06335), drawn class by
    class as in Yurochkin et al., 2019 (arXiv 1905.12022). Devices with fewer than `minimum` examples
    then take some from the largest.

    Returns one sorted int64 index array a device; they are disjoint and together hold every example. Raises
    BadInput when `alpha` is not positive, there are fewer than `minimum` examples for every device, or an example has
    no label.
    """
    if not alpha > 0:
        raise BadInput(
            f"alpha is {alpha}, it must be positive (0.1 is strong label skew, inf is an even split)"
        )
    if partitions < 1 or partitions * minimum > len(labels):
        raise BadInput(
            f"{len(labels)} examples give at most {len(labels) // max(minimum, 1)} partitions of at least "
            f"{minimum} examples, not {partitions}"
        )
    if labels.ndim != 1:
        raise BadInput(f"labels of shape {list(labels.shape)}: give one label for each example, shape [n]")
    if unknown := int((labels != labels).sum()):  # NaN alone differs from itself
        raise BadInput(f"{unknown} of {len(labels)} labels are NaN: leave these examples out, or label them")
    owner = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cuts = (np.cumsum(_proportions(partitions, alpha, rng)) * len(members)).astype(np.int64)
        turn = np.searchsorted(cuts[:-1], np.arange(len(members)), side="right")
        # A new order of devices for each class spreads the remainders of rounding.
        owner[members] = rng.permutation(partitions)[turn]
    _fill_up(owner, partitions, minimum, rng)
    by_owner = np.argsort(owner, kind="stable")
    return np.split(by_owner, np.cumsum(np.bincount(owner, minlength=partitions))[:-1])


def grouped_partition(
    groups: NDArray[np.integer],
    labels: NDArray[np.integer],
    partitions: int,
    alpha: float,
    rng: np.random.Generator,
    minimum: int = 1,
) -> list[Index]:
    """Split examples that belong to `groups` (shape [n]), such as persons, so that groups stay together or apart.

    With as many partitions as groups, or fewer, each holds whole groups, dealt in turn. With more, each group is split
    over its share of the partitions, `dirichlet_partition` over its labels: no device holds examples of two groups.

    Returns one sorted int64 index array a device; they are disjoint and together hold every example. Raises BadInput
    as `dirichlet_partition` does.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    if partitions <= len(members):
        return [np.sort(np.concatenate(members[turn::partitions])) for turn in range(partitions)]
    smallest = min(map(len, members))
    most = len(members) * (smallest // max(minimum, 1))
    if partitions > most:
        raise BadInput(
            f"{len(labels)} examples of {len(members)} groups, the smallest of {smallest}, give at most {most} "
            f"partitions of at least {minimum} examples, not {partitions}"
        )
    found: list[Index] = []
    for turn, group in enumerate(members):
        devices = len(range(turn, partitions, len(members)))
        parts = dirichlet_partition(labels[group], devices, alpha, rng, minimum)
        found += [group[part] for part in parts]
    return found


def _proportions(partitions: int, alpha: float, rng: np.random.Generator) -> NDArray[np.float64]:
    if np.isinf(alpha * partitions):  # even; what is that large overflows in the generator
        return np.full(partitions, 1.0 / partitions)
    return rng.dirichlet(np.full(partitions, alpha))


def _fill_up(owner: Index, partitions: int, minimum: int, rng: np.random.Generator) -> None:
    """Move examples, one at a time and in place, from the largest partition to those under `minimum`."""
    sizes = np.bincount(owner, minlength=partitions)
    for short in np.flatnonzero(sizes < minimum):
        while sizes[short] < minimum:
            largest = int(np.argmax(sizes))
            owner[rng.choice(np.flatnonzero(owner == largest))] = short
            sizes[largest] -= 1
            sizes[short] += 1
