"""Coder 2, one element: its contexts, its index and its sign."""

from collections.abc import Callable
from typing import NamedTuple

from plain_decoder.bits import Bits


def octave(v: int) -> int:
    u = v + 4
    e = u.bit_length() - 1
    return 4 * e + (u >> (e - 2)) % 4 - 8


def half_of(prediction: int) -> int:
    return min(octave(abs(prediction)) >> 1, 15)


def direction_of(prediction: int) -> int:
    half = half_of(prediction)
    return 16 + half if prediction >= 0 else 15 - half


def sg(v: int) -> int:
    return 1 if v > 0 else 2 if v < 0 else 0


class Expected(NamedTuple):
    """What is known before an element of the small preset is read, under the page's names."""

    quantiser: int
    prediction: int
    lefts: tuple[int, int, int]
    """x[r][c−1], x[r][c−2], x[r][c−3]"""
    ups: tuple[int, int]
    """x[r−1][c], x[r−2][c]"""
    back: int
    energy: int
    column: int
    apart: int
    blend: int
    miss: int
    drift: int
    guess: int | None

    @property
    def both(self) -> int:
        return min(octave(self.apart >> 4) >> 1, 23)

    @property
    def late(self) -> int:
        """The page's miss'."""
        return min(octave(self.miss >> 4) // 3, 15)

    def index_contexts(self) -> list[int]:
        left, left2, left3 = map(abs, self.lefts)
        row = min(octave(self.energy >> 4) >> 1, 23)
        col = min(octave(self.column >> 4) >> 1, 23)
        contexts = [
            min(octave(abs(self.prediction)), 47) * 16 + self.late,
            min(octave(self.blend >> 4), 63),
            min(abs(self.ups[0]), 4) * 24 + col,
            min(left, 5) * 72 + min(left2, 3) * 18 + min(left3, 2) * 6 + min(row // 3, 5),
            half_of(self.prediction) * 24 + self.both,
        ]
        return contexts if self.guess is None else [*contexts, size_of(self.guess) * 24 + self.both]

    def sign_contexts(self, index: int) -> list[int]:
        direction = direction_of(self.prediction)
        contexts = [
            direction * 8 + (self.late >> 1),
            min((self.drift + 256) >> 5, 15),
            sg(self.ups[0]) * 3 + sg(self.ups[1]),
            sg(self.lefts[0]) * 3 + sg(self.back),
            direction + 32 * min(index, 7),
        ]
        if self.guess is None:
            return contexts
        return [*contexts, size_of(self.guess) + (16 if self.guess >= 0 else 0)]


def size_of(guess: int) -> int:
    return min(octave(min(abs(guess), 1 << 20)) >> 1, 15)


def read_small(bits: Bits, e: Expected) -> tuple[int, int]:
    """Index and sign (1 is negative) in the small preset."""
    contexts, quantiser, high = list(enumerate(e.index_contexts())), e.quantiser, e.both >> 1

    def more(b: int) -> int:
        keys = [("index", b, quantiser, *context) for context in contexts]
        return bits.mixed(keys, ("index", min(b, 3), quantiser, high))

    index = read_index(bits, more)
    if index == 0:
        return 0, 0
    keys = [("sign", *context) for context in enumerate(e.sign_contexts(index))]
    return index, bits.mixed(keys, ("sign", min(index, 7)))


def read_fast(bits: Bits, prediction: int, blend: int) -> tuple[int, int]:
    """Index and sign (1 is negative) in the fast preset."""
    context = half_of(prediction) * 24 + min(octave(blend >> 4) >> 1, 23)
    index = read_index(bits, lambda b: bits.alone(("index", b, context)))
    return index, bits.alone(("sign", direction_of(prediction))) if index else 0


def read_index(bits: Bits, more: Callable[[int], int]) -> int:
    """`more` reads the bit of a bin."""
    for b in range(6):
        if not more(b):
            return b
    e = 0
    while e < 16 and more(min(6 + e, 13)):
        e += 1
    v = 1
    for i in range(e):
        v = 2 * v + (bits.bit(32768) if i else bits.alone(("suffix", e)))
    return 5 + v
