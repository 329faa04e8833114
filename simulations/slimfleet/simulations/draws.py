"""Draws for a whole population at once, equal to those that each device would make by itself.

A device draws from `np.random.default_rng((seed, number, ...))`: a SeedSequence hashes the words of the tuple into a
pool of four (O'Neill 2015, "Developing a seed_seq Alternative"), which seeds PCG64, a linear congruential generator of
128 bits with the output function XSL-RR (O'Neill 2014, "PCG: A Family of Simple Fast Space-Efficient Statistically
Good Algorithms for Random Number Generation"). Both are written here in array arithmetic. A generator of this kind can
jump, so that the fourth draw of a million devices costs no more than the first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["uniforms"]

Words = NDArray[np.uint32]
Halves = tuple[NDArray[np.uint64], NDArray[np.uint64]]
"""Numbers of 128 bits: their upper and lower halves."""

_BLOCK = 16_384
"""Devices worked on together: their arrays stay in the processor's cache."""

_WORD, _WIDE = 2**32, 2**128
_POOL = 4
_INIT_A, _MULT_A = 0x43B0D7E5, 0x931E8875
_INIT_B, _MULT_B = 0x8B51F9DD, 0x58F38DED
_MIX_L, _MIX_R = 0xCA01F9DD, 0x4973F715
_STEP = 0x2360ED051FC65DA44385DF649FCCF645
"""Multiplier of PCG64."""


def uniforms(
    seed: Sequence[int], numbers: NDArray[np.integer], stream: Sequence[int], wanted: Sequence[int]
) -> NDArray[np.float64]:
    """Draws of many generators, uniform over [0, 1): (len(wanted), n), float64.

    Row r holds, for every number k of `numbers` (n,), draw `wanted[r]` of
    `np.random.default_rng((*seed, k, *stream)).random(...)`, counted from 0. Numbers are from 0 to 2**32 - 1, the other
    words of any size from 0.
    """
    found = np.empty((len(wanted), len(numbers)), np.float64)
    for start in range(0, len(numbers), _BLOCK):
        block = slice(start, start + _BLOCK)
        found[:, block] = _drawn(seed, numbers[block].astype(np.uint32), stream, wanted)
    return found


def _drawn(
    seed: Sequence[int], numbers: Words, stream: Sequence[int], wanted: Sequence[int]
) -> NDArray[np.float64]:
    before, after = ([word for each in part for word in _words(each)] for part in (seed, stream))
    pool = _mixed([*before, numbers, *after], numbers.shape)
    state, increment = _seeded(pool)
    # Seeding takes a step of its own, and the first draw another.
    return np.array([_float(_jumped(state, increment, draw + 2)) for draw in wanted])


def _words(value: int) -> list[Words]:
    """A number as words of 32 bits, the lowest first; 0 is one word."""
    words = [value % _WORD]
    while value := value // _WORD:
        words.append(value % _WORD)
    return [np.array(word, np.uint32) for word in words]


class _Hash:
    """The hash of SeedSequence, whose constant moves on with every call."""

    def __init__(self, start: int, step: int) -> None:
        self._constant, self._step = start, step

    def __call__(self, value: Words) -> Words:
        mixed = value ^ np.uint32(self._constant)
        self._constant = self._constant * self._step % _WORD
        mixed = mixed * np.uint32(self._constant)
        return mixed ^ (mixed >> np.uint32(16))


def _mixed(entropy: Sequence[Words], shape: tuple[int, ...]) -> list[Words]:
    """The pool of SeedSequence, four words for each generator."""
    hashed = _Hash(_INIT_A, _MULT_A)
    padded = [*entropy, *[np.array(0, np.uint32)] * (_POOL - len(entropy))]
    with np.errstate(over="ignore"):  # words wrap around
        pool = [hashed(word) for word in padded[:_POOL]]
        for source in range(_POOL):
            for target in range(_POOL):
                if source != target:
                    pool[target] = _mix(pool[target], hashed(pool[source]))
        for word in padded[_POOL:]:
            for target in range(_POOL):
                pool[target] = _mix(pool[target], hashed(word))
        return [np.broadcast_to(word, shape) for word in pool]


def _mix(one: Words, other: Words) -> Words:
    mixed: Words = np.uint32(_MIX_L) * one - np.uint32(_MIX_R) * other
    return mixed ^ (mixed >> np.uint32(16))


def _seeded(pool: Sequence[Words]) -> tuple[Halves, Halves]:
    """State of PCG64 with the seed, before its first step, and its increment: `generate_state(4, uint64)` of the pool,
    the higher half of each first."""
    hashed = _Hash(_INIT_B, _MULT_B)
    with np.errstate(over="ignore"):
        words = [hashed(pool[place % _POOL]).astype(np.uint64) for place in range(2 * _POOL)]
    state_high, state_low, stream_high, stream_low = (
        low | (high << np.uint64(32)) for low, high in zip(words[::2], words[1::2], strict=True)
    )
    one, top = np.uint64(1), np.uint64(63)
    increment = ((stream_high << one) | (stream_low >> top), (stream_low << one) | one)
    # The generator starts at 0 and takes a step, to the increment; then the seed is added.
    return _sum(increment, (state_high, state_low)), increment


def _jumped(state: Halves, increment: Halves, steps: int) -> Halves:
    """The state so many steps on: steps of x -> m x + c are one step with other constants."""
    factor, total = 1, 0
    for _ in range(steps):
        factor, total = factor * _STEP % _WIDE, (total * _STEP + 1) % _WIDE
    return _sum(_product(state, factor), _product(increment, total))


def _float(state: Halves) -> NDArray[np.float64]:
    """Output XSL-RR: the halves, one upon the other, rotated by the upper six bits; of it, the upper 53 bits."""
    high, low = state
    folded, turn = high ^ low, high >> np.uint64(58)
    turned = (folded >> turn) | (folded << ((np.uint64(64) - turn) & np.uint64(63)))
    return (turned >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _sum(one: Halves, other: Halves) -> Halves:
    low = one[1] + other[1]
    return one[0] + other[0] + (low < one[1]), low


def _product(value: Halves, factor: int) -> Halves:
    """`value` times a constant, modulo 2**128: products of 32 bits by 32."""
    high, low = value
    factor_high, factor_low = np.uint64(factor >> 64), np.uint64(factor % 2**64)
    short, half = np.uint64(2**32 - 1), np.uint64(32)
    ones, others = (low & short, low >> half), (factor_low & short, factor_low >> half)
    lowest, crossed = ones[0] * others[0], ones[1] * others[0]
    middle = (lowest >> half) + (crossed & short) + ones[0] * others[1]
    carried = ones[1] * others[1] + (crossed >> half) + (middle >> half)
    with np.errstate(over="ignore"):
        return carried + low * factor_high + high * factor_low, low * factor_low
