"""Vocabularies: texts to numbers, one a word, the commonest words of the training texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

PADDING = 0
"""Number of what follows a text that is shorter than others; the same in every vocabulary."""

UNKNOWN = 1

Encode = Callable[[str, int], list[int]]
"""The numbers of the first tokens of a text, at least one and at most so many."""


def word_numbers(texts: Sequence[str], size: int) -> Encode:
    """Numbers for the commonest words of `texts`, from 2 up to `size` - 1; every other word is `UNKNOWN`.

    Words stand between blanks. Of equally common ones the first in the alphabet counts more.
    """
    counts = Counter(word for text in texts for word in text.split())
    common = sorted(counts, key=lambda word: (-counts[word], word))[: size - UNKNOWN - 1]
    numbers = {word: number for number, word in enumerate(common, start=UNKNOWN + 1)}

    def encode(text: str, most: int) -> list[int]:
        return [numbers.get(word, UNKNOWN) for word in text.split()[:most]] or [UNKNOWN]

    return encode


def encoded(texts: Sequence[str], encode: Encode, length: int) -> NDArray[np.int64]:
    """The texts as int64 [n, length], padded with `PADDING`."""
    rows = np.full((len(texts), length), PADDING, dtype=np.int64)
    for row, text in zip(rows, texts, strict=True):
        numbers = encode(text, length)
        row[: len(numbers)] = numbers
    return rows
