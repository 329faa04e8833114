"""A second decoder of coder 2, in plain Python, written from docs/wire-format.md alone: the page is complete.

Names are the page's. Nothing here is fast, and nothing checks a payload beyond what the page's section asks.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Sequence
from math import exp, prod
from operator import mul

NEXT = ((0, 2), (5, 7), (1, 3), (6, 4), (2, 0), (4, 6), (3, 1), (7, 5))
NEAR = 7
"""Inputs of a prediction whose weights last for the tensor."""
MARGIN = 3
"""Zeros after a row: at -1, -2, -3 they are the columns before it, at `columns` the one after it."""

State = list[int]
"""`one` and `seen`."""


def clamp(v: int, low: int, high: int) -> int:
    return low if v < low else high if v > high else v


def c8(v: int) -> int:
    return clamp(v, -127, 127)


def octave(v: int) -> int:
    u = v + 4
    e = u.bit_length() - 1
    return 4 * e + (u >> (e - 2)) % 4 - 8


def sg(v: int) -> int:
    return 1 if v > 0 else 2 if v < 0 else 0


LOGISTIC = [round(65536 / (1 + exp(-(i - 32) / 4))) for i in range(65)]


def squash(d: int) -> int:
    i, f = divmod(clamp(d, -2047, 2047) + 2048, 64)
    return (LOGISTIC[i] * (64 - f) + LOGISTIC[i + 1] * f) >> 6


SQUASHED = [squash(d) for d in range(-2047, 2048)]
STRETCH = [min(bisect_left(SQUASHED, 16 * j + 8) - 2047, 2047) for j in range(4096)]
RATE = [655360 // (10 * n + 16) for n in range(256)]


class Bits:
    """The range coder, and the adaptive states that belong to a section."""

    def __init__(self, data: bytes, inputs: int) -> None:
        assert data[-1:] != b"\0"
        self.data, self.at = data, 0
        self.range, self.code = (1 << 64) - 1, self.take(8)
        self.states: defaultdict[object, State] = defaultdict(lambda: [32768, 0])
        self.weights: defaultdict[object, list[int]] = defaultdict(lambda: [19661] * inputs)

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

    def alone(self, key: object, limit: int = 60) -> int:
        state = self.states[key]
        bit = self.bit(clamp(state[0], 32, 65504))
        learn(state, bit, limit)
        return bit

    def mixed(self, keys: Sequence[object], mixer: object) -> int:
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


def learn(state: State, bit: int, limit: int) -> None:
    one, seen = state
    state[0] = one + (((65535 if bit else 0) - one) * RATE[seen] >> 16)
    state[1] = min(seen + 1, limit)


class Tensor:
    """Decodes one tensor as a matrix, row by row; `guess` is flat, in levels × 256."""

    def __init__(
        self,
        bits: Bits,
        shape: Sequence[int],
        start: int,
        small: bool,
        trellis: bool,
        guess: Sequence[int] | None,
    ) -> None:
        matrix = len(shape) > 1
        self.bits, self.small, self.trellis = bits, small, trellis and matrix
        self.count = shape[0] if matrix else 1
        self.columns = prod(shape) // self.count
        self.k = prod(shape[2:])
        self.window = 256 if small else 64
        v = ((4 | (start + 8) % 4) << ((start + 8) // 4 - 2)) - 4
        self.general = max(256 * v, 1024)
        self.column = [self.general >> 4] * self.columns
        self.weights = [0] * NEAR
        self.state = self.after_empty = 0
        self.rows = [[0] * (self.columns + MARGIN) for _ in range(2)]
        """Those decoded, after two of zeros."""
        self.history: list[list[int]] = [[] for _ in range(self.columns)]
        """Of each column, the clipped levels of the rows before."""
        cut = (
            [list(guess[i : i + self.columns]) for i in range(0, prod(shape), self.columns)] if guess else []
        )
        self.guess = cut
        self.known = [[c8((row[c] + 32) >> 6) for row in cut[: self.window]] for c in range(self.columns)]

    def decode(self) -> list[int]:
        for r in range(self.count):
            flagged = self.columns >= 8 and self.bits.alone(("empty", self.after_empty), 30)
            x = [0] * (self.columns + MARGIN)
            if not flagged:
                self.row(r, x)
            self.after_empty = int(flagged)
            self.rows.append(x)
            for c, past in enumerate(self.history):
                past.append(c8(x[c]))
                del past[: -self.window]
            past = min(100 + r * self.columns, 400)
            total = 65536 * sum(min(abs(v), 255) for v in x)
            self.general = max((self.general * past + total) // (past + self.columns), 1024)
        return [v for x in self.rows[2:] for v in x[: self.columns]]

    def row(self, r: int, x: list[int]) -> None:
        """Fill in the levels of row r."""
        self.inverse = (1 << 32) // (self.general >> 4)
        self.energy = self.miss = self.general >> 4
        self.drift = 0
        self.weights = [0] * (len(self.history[0]) + len(self.known[0])) + self.weights[-NEAR:]
        for c in range(self.columns):
            values = self.history[c] + self.known[c] + self.near(r, c, x)
            total = sum(map(mul, self.weights, values))
            prediction = (((total + (1 << 31)) & 0xFFFFFFFF) - (1 << 31)) >> 8
            x[c] = self.element(r, c, x, prediction)
            self.learn(x[c], prediction, values)
            self.expect(r, c, x[c], prediction)

    def near(self, r: int, c: int, x: list[int]) -> list[int]:
        k, up = self.k, self.rows[-1]
        back = x[c - k] if k > 1 and c >= k else 0
        back2 = x[c - 2 * k] if k > 1 and c >= 2 * k else 0
        guess = c8((self.guess[r][c] + 32) >> 6) if self.guess else 0
        return [*map(c8, (x[c - 1], x[c - 2], back, back2, up[c - 1], up[c + 1])), guess]

    def learn(self, level: int, prediction: int, values: list[int]) -> None:
        """Normalised least mean squares. Weights are left unreduced: only sums of them modulo 2³² are used."""
        if level == 0 and -128 < prediction < 128:
            return
        error = clamp(256 * level - prediction, -(1 << 20), 1 << 20)
        by = abs(error) * 38 // (1 + sum(map(mul, values, values)))
        by = by if error > 0 else -by
        if by:
            self.weights = [w + by * v for w, v in zip(self.weights, values, strict=True)]

    def expect(self, r: int, c: int, level: int, prediction: int) -> None:
        """What the element says about those to come."""
        z, n = 4096 * min(abs(level), 255), min(c + 2, 24)
        self.energy = max(self.energy + ((z - self.energy) * (655360 // (10 * n + 15)) >> 16), 16)
        column = self.column[c]
        self.column[c] = max(column + ((z - column) * (65536 // (min(r, 14) + 3)) >> 16), 16)
        self.miss += (16 * min(abs(256 * level - prediction), 1 << 17) - self.miss) >> 4
        if level:
            self.drift += ((256 if level > 0 else -256) - self.drift) >> 3

    def element(self, r: int, c: int, x: list[int], prediction: int) -> int:
        """One level."""
        up, k = self.rows[-1], self.k
        back = x[c - k] if k > 1 and c >= k else 0
        left, left2, left3 = abs(x[c - 1]), abs(x[c - 2]), abs(x[c - 3])
        total = 2 * left + left2 + 2 * abs(up[c]) + abs(up[c - 1]) + abs(up[c + 1])
        around = 585 * total if k == 1 else 512 * (total + abs(back))
        apart = min(((self.energy * self.column[c] >> 16) * self.inverse) >> 16, 1 << 24)
        blend = (10 * apart + 6 * around) >> 4
        guessed = octave(min(abs(prediction), 1 << 20))
        half = min(guessed >> 1, 15)
        direction = 16 + half if prediction >= 0 else 15 - half
        quantiser = self.state & 1 if self.trellis else 0

        if not self.small:
            context = half * 24 + min(octave(blend >> 4) >> 1, 23)
            index = self.index(lambda b: self.bits.alone(("index", b, context)))
            negative = bool(index) and self.bits.alone(("sign", direction))
            return self.level(index, quantiser, bool(negative))

        miss = min(octave(self.miss >> 4) // 3, 15)
        row = min(octave(self.energy >> 4) >> 1, 23)
        col = min(octave(self.column[c] >> 4) >> 1, 23)
        both = min(octave(apart >> 4) >> 1, 23)
        contexts = [
            min(guessed, 47) * 16 + miss,
            min(octave(blend >> 4), 63),
            min(abs(up[c]), 4) * 24 + col,
            min(left, 5) * 72 + min(left2, 3) * 18 + min(left3, 2) * 6 + min(row // 3, 5),
            half * 24 + both,
        ]
        guess = self.guess[r][c] if self.guess else 0
        size = min(octave(min(abs(guess), 1 << 20)) >> 1, 15)
        if self.guess:
            contexts.append(size * 24 + both)
        index = self.index(
            lambda b: self.bits.mixed(
                [("index", b, quantiser, i, context) for i, context in enumerate(contexts)],
                ("index", min(b, 3), quantiser, both >> 1),
            )
        )
        if index == 0:
            return self.level(0, quantiser, False)
        signs = [
            direction * 8 + (miss >> 1),
            min((self.drift + 256) >> 5, 15),
            sg(up[c]) * 3 + sg(self.rows[-2][c]),
            sg(x[c - 1]) * 3 + sg(back),
            direction + 32 * min(index, 7),
        ]
        if self.guess:
            signs.append(16 + size if guess >= 0 else size)
        negative = self.bits.mixed(
            [("sign", i, context) for i, context in enumerate(signs)], ("sign", min(index, 7))
        )
        return self.level(index, quantiser, bool(negative))

    def index(self, more: Callable[[int], int]) -> int:
        """`more` reads the bit of a bin."""
        for b in range(6):
            if not more(b):
                return b
        e = 0
        while e < 16 and more(min(6 + e, 13)):
            e += 1
        v = 1
        for i in range(e):
            v = 2 * v + (self.bits.bit(32768) if i else self.bits.alone(("suffix", e)))
        return 5 + v

    def level(self, index: int, quantiser: int, negative: bool) -> int:
        """The level of an index, which also moves the trellis."""
        size = index
        if self.trellis:
            size = 2 * index - quantiser if index else 0
            self.state = NEXT[self.state][index % 2]
        return -size if negative else size


def levels_of(
    stream: bytes,
    shapes: Sequence[Sequence[int]],
    classes: Sequence[int],
    how: int,
    guesses: Sequence[Sequence[int]] | None,
) -> list[list[int]]:
    """The levels of every weight tensor, flat in C order; `how` is the byte of that name."""
    bits = Bits(stream, 6 if guesses else 5)
    result = []
    for i, shape in enumerate(shapes):
        if classes[i] == 0 or prod(shape) == 0:
            result.append([0] * prod(shape))
            continue
        guess = guesses[i] if guesses else None
        result.append(Tensor(bits, shape, classes[i], bool(how & 1), bool(how & 2), guess).decode())
    assert bits.at >= len(bits.data)
    return result
