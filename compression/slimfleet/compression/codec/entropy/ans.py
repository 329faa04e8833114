"""Portable coder: integers under frequency tables, by constriction's ANS coder.

It has 64-bit state, 32-bit words and 24-bit quantiles. A table's frequencies sum to a power of two, so constriction's
fixed-point conversion is exact in float64 and the coder amounts to integers: symbol k of n owns the quantiles from
`c_k * (2**24 - n) // 2**16 + k` on, where c_k is the sum of the frequencies before k. ANS decodes garbage without
complaint: the caller checks that nothing is left over.

constriction is imported when something is coded, not before: there is no wheel of it for every machine. Without it
nothing is encoded, and reading is slow (`plain_ans`).
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any

import numpy as np

from slimfleet.compression.codec.entropy.frequencies import TOTAL_BITS, Counts
from slimfleet.compression.codec.entropy.plain_ans import PlainAns, starts_of
from slimfleet.compression.codec.native.bindings import Levels
from slimfleet.compression.codec.native.build import INSTALL_COMPILER
from slimfleet.compression.errors import BadInput, PayloadError

_WORD = 4


def _stream() -> Any:
    """constriction's stream coders; raises BadInput where it is not installed."""
    try:
        from constriction import stream
    except ImportError as error:
        raise BadInput(
            "slimfleet's portable coder needs the package constriction, which is not installed and on PyPI has no "
            "wheel for Linux on ARM. The native coder does without: "
            f"{INSTALL_COMPILER}, with SLIMFLEET_PORTABLE unset"
        ) from error
    return stream


@functools.cache
def installed() -> bool:
    """Whether the portable coder can encode on this machine, and read fast."""
    return find_spec("constriction") is not None


class Table:
    """A frequency table as an entropy model of the magnitudes 0 .. n - 1, n >= 2."""

    def __init__(self, frequencies: Counts) -> None:
        self._frequencies = frequencies

    @functools.cached_property
    def model(self) -> Any:
        """For constriction."""
        probabilities = self._frequencies / float(1 << TOTAL_BITS)
        return _stream().model.Categorical(probabilities, perfect=False)

    @functools.cached_property
    def starts(self) -> list[int]:
        """For `PlainAns`."""
        return starts_of(self._frequencies)


@functools.cache
def _signs() -> Table:
    return Table(np.array([1 << (TOTAL_BITS - 1)] * 2))


def encode_levels(tensors: Iterable[tuple[Levels, Table]]) -> bytes:
    """Code flat signed levels, each tensor with its table: all magnitudes, then the signs of those not zero.

    Little-endian words without the zero bytes at their end.
    """
    coder = _stream().stack.AnsCoder()
    # What is pushed last is decoded first.
    for levels, table in reversed(list(tensors)):
        coder.encode_reverse((levels[levels != 0] < 0).astype(np.int32), _signs().model)
        coder.encode_reverse(np.abs(levels), table.model)
    return bytes(coder.get_compressed().astype("<u4").tobytes().rstrip(b"\0"))


class LevelDecoder:
    """Reads levels back, tensor by tensor."""

    def __init__(self, data: bytes) -> None:
        """Start on the output of `encode_levels`; raises PayloadError("entropy") for bytes that cannot be one."""
        if data.endswith(b"\0"):
            raise PayloadError("entropy", "entropy-coded words end in a zero byte")
        words = np.frombuffer(data + bytes(-len(data) % _WORD), "<u4").astype(np.uint32)
        self._coder: Any = _stream().stack.AnsCoder(words) if installed() else PlainAns(words)

    def read(self, size: int, table: Table) -> Levels:
        """The next `size` signed levels. Garbage in gives garbage out, of that size."""
        levels = self._symbols(table, size)
        used = levels != 0
        signs = self._symbols(_signs(), int(np.count_nonzero(used)))
        signs *= -2
        signs += 1
        levels[used] *= signs
        return levels

    def _symbols(self, table: Table, size: int) -> Levels:
        model = table.model if installed() else table.starts
        symbols: Levels = self._coder.decode(model, size)
        return symbols

    def finish(self) -> None:
        """Raise PayloadError("entropy") unless everything was consumed."""
        if not self._coder.is_empty():
            raise PayloadError("entropy", "entropy-coded words are left over: they are not what was encoded")
