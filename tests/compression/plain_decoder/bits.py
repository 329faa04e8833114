"""Coder 2 bit by bit: range coder, bit states, mixing."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from math import exp

State = list[int]
"""`one` and `seen`."""
Key = tuple[object, ...]


def clamp(v: int, low: int, high: int) -> int:
    return low if v < low else high if v > high else v


LOGISTIC = [round(65536 / (1 + exp(-(i - 32) / 4))) for i in range(65)]


def squash(d: int) -> int:
    i, f = divmod(clamp(d, -2047, 2047) + 2048, 64)
    return (LOGISTIC[i] * (64 - f) + LOGISTIC[i + 1] * f) >> 6


SQUASHED = [squash(d) for d in range(-2047, 2048)]
STRETCH = [min(bisect_left(SQUASHED, 16 * j + 8) - 2047, 2047) for j in range(4096)]
RATE = [655360 // (10 * n + 16) for n in range(256)]


def learn(state: State, bit: int, limit: int) -> None:
    one, seen = state
    state[0] = one + (((65535 if bit else 0) - one) * RATE[seen] >> 16)
    state[1] = min(seen + 1, limit)


class Bits:
    """The bits of one stream, with the states and mixer weights that last for its section; `inputs` are mixed."""

    def __init__(self, data: bytes, inputs: int) -> None:
        self.data, self.at = data, 0
        self.range, self.code = (1 << 64) - 1, self.take(8)
        self.states: defaultdict[Key, State] = defaultdict(lambda: [32768, 0])
        self.weights: defaultdict[Key, list[int]] = defaultdict(lambda: [19661] * inputs)

    def take(self, count: int) -> int:
        """The next bytes as a number; those past the end are zeros."""
        self.at += count
        return int.from_bytes(self.data[self.at - count : self.at].ljust(count, b"\0"), "big")

    def bit(self, p: int) -> int:
        """A bit that is 1 with probability p / 65536."""
        bound = (self.range >> 16) * p
        bit = int(self.code < bound)
        if bit:
            self.range = bound
        else:
            self.code -= bound
            self.range -= bound
        while self.range < 1 << 32:
            self.range <<= 32
            self.code = self.code << 32 | self.take(4)
        return bit

    def interval(self) -> tuple[int, int]:
        """The number of all bytes read lies in it: its lower end, and how many numbers it holds."""
        return int.from_bytes(self.data[: self.at].ljust(self.at, b"\0"), "big") - self.code, self.range

    def check_end(self) -> None:
        """Assert that the stream ends as an encoder would have ended it."""
        last = int.from_bytes(self.data[: self.at].ljust(self.at, b"\0")[-8:], "big")
        lowest = last & -last
        assert len(self.data) <= self.at
        assert not self.data or self.data[-1]
        assert self.code < self.range
        assert last == 0 or (lowest > self.code and lowest >= self.range - self.code)

    def alone(self, key: Key, limit: int = 60) -> int:
        """A bit under one state."""
        return self.alone_under(self.states[key], limit)

    def alone_under(self, state: State, limit: int = 60) -> int:
        bit = self.bit(clamp(state[0], 32, 65504))
        learn(state, bit, limit)
        return bit

    def mixed(self, keys: Sequence[Key], mixer: Key) -> int:
        """A bit under several states, one for each input."""
        states, weights = [self.states[key] for key in keys], self.weights[mixer]
        stretched = [STRETCH[one >> 4] for one, _ in states]
        mixed = squash(sum(w * s >> 8 for w, s in zip(weights, stretched, strict=True)) >> 8)
        bit = self.bit(clamp(mixed, 32, 65504))
        error = ((65535 if bit else 0) - mixed) >> 4
        for i, s in enumerate(stretched):
            weights[i] = clamp(weights[i] + ((s * error * 41 + 32768) >> 16), -(1 << 20), 1 << 20)
        for state in states:
            learn(state, bit, 255)
        return bit
