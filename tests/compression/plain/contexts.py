"""Coder 2, tensor by tensor: prediction from rows before and a guess, and the levels of a stream."""

from collections.abc import Iterable, Sequence
from math import prod
from operator import mul

from plain.bits import Bits, State, clamp, learn
from plain.element import Expected, octave, read_fast, read_small

NEXT = ((0, 2), (5, 7), (1, 3), (6, 4), (2, 0), (4, 6), (3, 1), (7, 5))
NEAR = 7
"""Values of a prediction whose weights last for the tensor."""
MARGIN = [0, 0, 0]
"""After the levels of a row: columns −1, −2, −3, and the column one past the end."""


def c8(v: int) -> int:
    return clamp(v, -127, 127)


class Tensor:
    """One tensor as a matrix. `guess` is flat, in C order, in levels × 256."""

    def __init__(
        self, bits: Bits, shape: Sequence[int], start: int, how: int, guess: Sequence[int] | None
    ) -> None:
        self.bits, self.small, self.trellis = bits, bool(how & 1), bool(how & 2) and len(shape) > 1
        self.count = shape[0] if len(shape) > 1 else 1
        self.columns, self.k = prod(shape) // self.count, prod(shape[2:])
        v = ((4 | (start + 8) % 4) << ((start + 8) // 4 - 2)) - 4
        self.general = clamp(256 * v, 1024, 255 << 16)
        self.column = [self.general >> 4] * self.columns
        self.weights = [0] * NEAR
        self.state = self.after_empty = 0
        self.rows = [[0] * self.columns + MARGIN] * 2  # two of zeros come before the first
        self.window = 256 if self.small else 64
        self.history: list[list[int]] = [[] for _ in self.column]
        starts = range(0, prod(shape), self.columns)
        self.guess = None if guess is None else [guess[i : i + self.columns] for i in starts]
        known = (self.guess or [])[: self.window]
        self.known = [[c8((row[c] + 32) >> 6) for row in known] for c in range(self.columns)]

    def decode(self) -> list[int]:
        for r in range(self.count):
            x = [0] * self.columns + MARGIN
            flagged = self.columns >= 8 and self.bits.alone(("empty", self.after_empty), 30)
            if not flagged:
                self.row(r, x)
            self.after_empty = int(flagged)
            self.rows.append(x)
            for levels, level in zip(self.history, x, strict=False):
                levels.append(c8(level))
                del levels[: -self.window]
            past, total = min(100 + r * self.columns, 400), sum(min(abs(level), 255) for level in x)
            self.general = max((self.general * past + 65536 * total) // (past + self.columns), 1024)
            rate = 4096 // (min(r, 14) + 3)
            for c, mean in enumerate(self.column):
                self.column[c] = max(mean + ((4096 * min(abs(x[c]), 255) - mean) * rate >> 12), 16)
        return [level for x in self.rows[2:] for level in x[: self.columns]]

    def row(self, r: int, x: list[int]) -> None:
        """Fill in the levels of row `r`."""
        self.inverse = (1 << 32) // (self.general >> 4)
        self.energy = self.miss = self.general >> 4
        self.drift = 0
        self.weights = [0] * len(self.history[0] + self.known[0]) + self.weights[-NEAR:]
        in_runs = 0 if self.small else self.columns // 8 * 8
        for c in range(0, in_runs, 8):
            self.run(r, c, x)
        self.elements(r, range(in_runs, self.columns), x)

    def run(self, r: int, c: int, x: list[int]) -> None:
        """Fill in eight levels from column `c` on."""
        state = self.run_state(c, x)
        asked = state[0] >= 63488
        if asked and self.bits.alone_under(state):
            return
        self.elements(r, range(c, c + 8), x)
        if not asked:
            learn(state, int(not any(x[c : c + 8])), 60)

    def run_state(self, c: int, x: list[int]) -> State:
        """Of the run that begins at column `c`."""
        beside = self.beside(c, x)
        total = 657 * beside + sum(self.base(i) for i in range(c, c + 8))
        return self.bits.states["run", 2 * min(octave(total >> 7) >> 1, 23) + (beside > 0)]

    def elements(self, r: int, columns: Iterable[int], x: list[int]) -> None:
        for c in columns:
            values = self.history[c] + self.known[c] + self.near(r, c, x)
            total = sum(map(mul, self.weights, values)) & 0xFFFFFFFF
            prediction = (total - (total >> 31 << 32)) >> 4
            x[c] = self.level(self.expected(r, c, x, prediction))
            self.adapt(x[c], prediction, values)
            self.follow(c, x[c], prediction)

    def near(self, r: int, c: int, x: list[int]) -> list[int]:
        up = self.rows[-1]
        backs = [x[c - d] if self.k > 1 and c >= d else 0 for d in (self.k, 2 * self.k)]
        guess = 0 if self.guess is None else (self.guess[r][c] + 32) >> 6
        return [c8(v) for v in (x[c - 1], x[c - 2], *backs, up[c - 1], up[c + 1], guess)]

    def level(self, e: Expected) -> int:
        index, sign = read_small(self.bits, e) if self.small else read_fast(self.bits, e)
        magnitude = index
        if self.trellis:
            magnitude = 2 * index - e.quantiser if index else 0
            self.state = NEXT[self.state][index % 2]
        return -magnitude if sign else magnitude

    def adapt(self, level: int, prediction: int, values: list[int]) -> None:
        """Normalised least mean squares."""
        if level == 0 and -128 < prediction < 128:
            return
        error = clamp(256 * level - prediction, -(1 << 20), 1 << 20)
        by = min(abs(error) * 307 // (1 + sum(map(mul, values, values))), 32767)
        by = by if error > 0 else -by
        self.weights = [
            clamp(w + (by * v + 64 >> 7), -32768, 32767) if v else w  # a value of 0 changes nothing
            for w, v in zip(self.weights, values, strict=True)
        ]

    def follow(self, c: int, level: int, prediction: int) -> None:
        """Let the expectations follow the level that came."""
        z, n = 4096 * min(abs(level), 255), min(2 + c, 24)
        self.energy = max(self.energy + ((z - self.energy) * (8192 // (2 * n + 3)) >> 12), 16)
        self.miss += (16 * min(abs(256 * level - prediction), 1 << 17) - self.miss) >> 4
        if level:
            self.drift += ((256 if level > 0 else -256) - self.drift) >> 3

    def beside(self, c: int, x: list[int]) -> int:
        return 2 * abs(x[c - 1]) + abs(x[c - 2])

    def above(self, c: int) -> int:
        up = self.rows[-1]
        return 2 * abs(up[c]) + abs(up[c - 1]) + abs(up[c + 1])

    def base(self, c: int) -> int:
        return 8 * self.column[c] + 3504 * min(self.above(c), 4096) >> 4

    def expected(self, r: int, c: int, x: list[int], prediction: int) -> Expected:
        up, k, column = self.rows[-1], self.k, self.column[c]
        back = x[c - k] if k > 1 and c >= k else 0
        apart = min(((self.energy * column >> 16) * self.inverse) >> 16, 1 << 24)
        beside = self.beside(c, x)
        small = (10 * apart + 3510 * (beside + self.above(c))) >> 4
        blend = small if self.small else self.base(c) + 219 * beside
        return Expected(
            quantiser=self.state % 2 if self.trellis else 0,
            prediction=prediction,
            lefts=(x[c - 1], x[c - 2], x[c - 3]),
            ups=(up[c], self.rows[-2][c]),
            back=back,
            energy=self.energy,
            column=column,
            apart=apart,
            blend=blend,
            miss=self.miss,
            drift=self.drift,
            guess=None if self.guess is None else self.guess[r][c],
        )


def read_levels(
    bits: Bits,
    shapes: Sequence[Sequence[int]],
    classes: Sequence[int],
    how: int,
    guesses: Sequence[Sequence[int]] | None,
) -> list[list[int]]:
    """The levels of every weight tensor, flat in C order; `how` is the byte of that name."""
    result = []
    for i, shape in enumerate(shapes):
        if classes[i] == 0 or prod(shape) == 0:
            result.append([0] * prod(shape))
        else:
            guess = None if guesses is None else guesses[i]
            result.append(Tensor(bits, shape, classes[i], how, guess).decode())
    return result
