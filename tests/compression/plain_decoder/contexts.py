"""Coder 2, tensor by tensor: rows and their flags, runs, prediction, expectations, trellis."""

from collections.abc import Sequence
from math import prod
from operator import mul

from plain_decoder.bits import Bits, clamp, learn
from plain_decoder.element import Expected, octave, read_fast, read_small

NEXT = ((0, 2), (5, 7), (1, 3), (6, 4), (2, 0), (4, 6), (3, 1), (7, 5))
"""Trellis states after an even and an odd index."""
NEAR = 7
"""Values of the prediction whose weights last for the tensor."""


def read_levels(
    bits: Bits,
    shapes: Sequence[tuple[int, ...]],
    classes: Sequence[int],
    how: int,
    guesses: Sequence[list[int]] | None,
) -> list[list[int]]:
    """Signed levels of every tensor, flat."""
    levels = []
    for i, (shape, start) in enumerate(zip(shapes, classes, strict=True)):
        if start and prod(shape):
            levels.append(Matrix(bits, shape, start, how, guesses[i] if guesses else None).read())
        else:
            levels.append([0] * prod(shape))
    return levels


def c8(v: int) -> int:
    return clamp(v, -127, 127)


def beside(row: Sequence[int], c: int) -> int:
    return 2 * abs(row[c - 1]) + abs(row[c - 2])


def above(up: Sequence[int], c: int) -> int:
    return 2 * abs(up[c]) + abs(up[c - 1]) + abs(up[c + 1])


class Predictor:
    """Normalised least mean squares over history, guess and near levels, with weights in 1/4096."""

    def __init__(self, columns: int, guess: Sequence[Sequence[int]], depth: int) -> None:
        self.depth = depth
        self.history: list[list[int]] = [[] for _ in range(columns)]
        self.known = [[c8((row[c] + 32) >> 6) for row in guess[:depth]] for c in range(columns)]
        self.weights = [0] * NEAR
        self.values: list[int] = []

    def start_row(self) -> None:
        self.weights = [0] * len(self.history[0] + self.known[0]) + self.weights[-NEAR:]

    def end_row(self, levels: Sequence[int]) -> None:
        self.history = [
            [*column, c8(level)][-self.depth :] for column, level in zip(self.history, levels, strict=True)
        ]

    def predict(self, c: int, near: Sequence[int]) -> int:
        self.values = [*self.history[c], *self.known[c], *map(c8, near)]
        total: int = sum(map(mul, self.weights, self.values)) + (1 << 31)
        return (total % (1 << 32) - (1 << 31)) >> 4

    def learn(self, level: int, prediction: int) -> None:
        if level == 0 and -128 < prediction < 128:
            return
        error = clamp(256 * level - prediction, -(1 << 20), 1 << 20)
        by = min(abs(error) * 307 // (1 + sum(v * v for v in self.values)), 32767)
        by = by if error > 0 else -by
        self.weights = [
            clamp(w + ((by * v + 64) >> 7), -32768, 32767) if v else w
            for w, v in zip(self.weights, self.values, strict=True)
        ]


class Running:
    """What is expected along a row of the small preset."""

    def __init__(self, general: int) -> None:
        self.energy = self.miss = general >> 4
        self.n, self.drift = 2, 0

    def learn(self, level: int, prediction: int) -> None:
        z = 4096 * min(abs(level), 255)
        step = 8192 // (2 * min(self.n, 24) + 3)
        self.energy = max(self.energy + ((z - self.energy) * step >> 12), 16)
        self.n += 1
        self.miss += (16 * min(abs(256 * level - prediction), 1 << 17) - self.miss) >> 4
        if level:
            self.drift += ((256 if level > 0 else -256) - self.drift) >> 3


class Matrix:
    """One tensor. Zeros after the columns of each row in `x` stand for what is outside, before it too."""

    def __init__(
        self, bits: Bits, shape: tuple[int, ...], start: int, how: int, guess: list[int] | None
    ) -> None:
        self.bits, self.small, self.trellis = bits, how & 1, how & 2 if len(shape) > 1 else 0
        self.rows = shape[0] if len(shape) > 1 else 1
        self.columns, self.k = prod(shape) // self.rows, prod(shape[2:])
        v = ((4 | (start + 8) % 4) << (start + 8) // 4 - 2) - 4
        self.general = clamp(256 * v, 1024, 255 << 16)
        self.column = [self.general >> 4] * self.columns
        self.width = self.columns + max(3, 2 * self.k)
        self.x = [[0] * self.width] * 2
        self.guess = None
        if guess:
            self.guess = [guess[i : i + self.columns] for i in range(0, len(guess), self.columns)]
        self.predictor = Predictor(self.columns, self.guess or [], 256 if self.small else 64)
        self.state = 0

    def read(self) -> list[int]:
        empty = 0
        for r in range(self.rows):
            self.x.append([0] * self.width)
            empty = self.bits.alone(("empty", empty), 30) if self.columns >= 8 else 0
            if not empty:
                self.predictor.start_row()
                known = self.guess[r] if self.guess else None
                self.read_small_row(known) if self.small else self.read_fast_row(known)
            self.end_row(r, self.x[-1][: self.columns])
        return [level for row in self.x[2:] for level in row[: self.columns]]

    def end_row(self, r: int, levels: Sequence[int]) -> None:
        self.predictor.end_row(levels)
        clipped = [min(abs(level), 255) for level in levels]
        past = min(100 + r * self.columns, 400)
        self.general = max((self.general * past + 65536 * sum(clipped)) // (past + self.columns), 1024)
        step = 4096 // (min(r, 14) + 3)
        self.column = [
            max(old + ((4096 * m - old) * step >> 12), 16)
            for old, m in zip(self.column, clipped, strict=True)
        ]

    def predict(self, c: int, known: Sequence[int] | None) -> int:
        up, row, k = self.x[-2], self.x[-1], self.k
        backs = (row[c - k], row[c - 2 * k]) if k > 1 else (0, 0)
        guess = (known[c] + 32) >> 6 if known else 0
        return self.predictor.predict(c, (row[c - 1], row[c - 2], *backs, up[c - 1], up[c + 1], guess))

    def read_fast_row(self, known: Sequence[int] | None) -> None:
        up, row = self.x[-2:]
        base = [(8 * column + 3504 * min(above(up, c), 4096)) >> 4 for c, column in enumerate(self.column)]
        for c in range(0, self.columns // 8 * 8, 8):
            near = beside(row, c)
            size = min(octave((657 * near + sum(base[c : c + 8])) >> 7) >> 1, 23)
            state = self.bits.states["run", 2 * size + (near > 0)]
            sure = state[0] >= 63488
            if sure and self.bits.alone_under(state):
                continue
            self.read_fast_elements(range(c, c + 8), base, known)
            if not sure:
                learn(state, not any(row[c : c + 8]), 60)
        self.read_fast_elements(range(self.columns // 8 * 8, self.columns), base, known)

    def read_fast_elements(self, at: range, base: Sequence[int], known: Sequence[int] | None) -> None:
        row = self.x[-1]
        for c in at:
            prediction = self.predict(c, known)
            index, sign = read_fast(self.bits, prediction, base[c] + 219 * beside(row, c))
            row[c] = -index if sign else index
            self.predictor.learn(row[c], prediction)

    def read_small_row(self, known: Sequence[int] | None) -> None:
        row, running = self.x[-1], Running(self.general)
        inverse = (1 << 32) // (self.general >> 4)
        for c in range(self.columns):
            prediction = self.predict(c, known)
            expected = self.expected(c, prediction, running, inverse, known[c] if known else None)
            index, sign = read_small(self.bits, expected)
            level = 2 * index - expected.quantiser if self.trellis and index else index
            if self.trellis:
                self.state = NEXT[self.state][index % 2]
            row[c] = -level if sign else level
            running.learn(row[c], prediction)
            self.predictor.learn(row[c], prediction)

    def expected(
        self, c: int, prediction: int, running: Running, inverse: int, guess: int | None
    ) -> Expected:
        up2, up, row = self.x[-3:]
        apart = min(((running.energy * self.column[c] >> 16) * inverse) >> 16, 1 << 24)
        return Expected(
            quantiser=self.state & 1,
            prediction=prediction,
            lefts=(row[c - 1], row[c - 2], row[c - 3]),
            ups=(up[c], up2[c]),
            back=row[c - self.k] if self.k > 1 else 0,
            energy=running.energy,
            column=self.column[c],
            apart=apart,
            blend=(10 * apart + 3510 * (beside(row, c) + above(up, c))) >> 4,
            miss=running.miss,
            drift=running.drift,
            guess=guess,
        )
