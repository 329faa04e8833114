"""Coder 1: the asymmetric numeral system and its frequency tables."""

import struct
from collections.abc import Sequence


class Ans:
    """64-bit state, 32-bit words, 24-bit quantiles."""

    def __init__(self, data: bytes) -> None:
        padded = data + bytes(-len(data) % 4)
        self.words = list(struct.unpack(f"<{len(padded) // 4}I", padded))
        self.state = 0
        while self.words and self.state < 1 << 32:
            self.state = self.state << 32 | self.words.pop()

    def symbol(self, frequencies: Sequence[int]) -> int:
        n, quantile, before = len(frequencies), self.state & 0xFFFFFF, 0
        for k, frequency in enumerate(frequencies):
            start = (before * ((1 << 24) - n) >> 16) + k
            before += frequency
            stop = (before * ((1 << 24) - n) >> 16) + k + 1
            if quantile < stop or k == n - 1:
                stop = 1 << 24 if k == n - 1 else stop
                self.state = (self.state >> 24) * (stop - start) + quantile - start
                if self.state < 1 << 32 and self.words:
                    self.state = self.state << 32 | self.words.pop()
                return k
        raise AssertionError


def frequencies_of(codes: Sequence[int]) -> list[int]:
    weights = [c if c < 8 else (8 + c % 8) << c // 8 - 1 for c in codes]
    frequencies = [(w << 16) // sum(weights) for w in weights]
    frequencies[weights.index(max(weights))] += (1 << 16) - sum(frequencies)
    return frequencies
