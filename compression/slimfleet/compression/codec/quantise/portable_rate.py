"""Rate control over the portable coder: one knob, the share of the weights that is kept, and a search for it.

After entropy coding, 8 bits with a higher sparsity are smaller than fewer bits with a lower one at equal error,
so one knob spans everything from dense 8 bits down to a single weight. Below what 8 bits reach there is float32.
"""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log

import numpy as np

from slimfleet.compression.codec.codec import Encoded, quantise
from slimfleet.compression.codec.error import expected_nmse, nmse
from slimfleet.compression.codec.quantise.grid import dequantise
from slimfleet.compression.codec.quantise.sparsify import magnitudes
from slimfleet.compression.codec.spec import PLAIN, Aim, CodecSpec
from slimfleet.compression.errors import BudgetExceeded
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Rounding, Tensors
from slimfleet.compression.wire import OVERHEAD_BYTES

BITS = 8
TRIES = 10
"""Most positions of the knob that one search looks at, its two ends included."""
CLOSE = log(0.99)
"""A search may end at 0.99 of its bound."""

Code = Callable[[CodecSpec], Encoded]


def choose(tensors: Tensors, schema: ModelSchema, aim: Aim, code: Code) -> Encoded:
    """What `code` makes of the spec that meets `aim`.

    Raises BudgetExceeded("uplink_bytes") when not even one weight fits the size.
    """
    empty = not any(tensors[spec.name].any() for spec in schema.weights)
    if empty:
        spec = CodecSpec(bits=BITS)
    elif not aim.nmse:
        spec = PLAIN
    else:
        spec = _for_error(tensors, schema, aim.nmse, aim.rounding)
    encoded = code(spec)
    if spec != PLAIN and len(encoded.payload) > plain_bytes(schema):
        # Few weights: tables cost more than they save.
        plain = code(PLAIN)
        if len(plain.payload) < len(encoded.payload):
            spec, encoded = PLAIN, plain
    if aim.limit_bytes is None or aim.fits(encoded.payload):
        return encoded
    if empty:
        raise too_large(len(encoded.payload), aim.limit_bytes)
    return code(_for_size(schema, code, aim.limit_bytes, aim.rounding, spec.sparsity))


def _for_error(tensors: Tensors, schema: ModelSchema, bound: float, rounding: Rounding) -> CodecSpec:
    """The sparsest spec found that errs by at most `bound`. It quantises and does not code.

    Stochastic rounding is judged by its expected error: a choice that looked at the draw would bias it.
    """
    rng = np.random.default_rng(0)  # for draws that are thrown away
    weights = {spec.name: tensors[spec.name] for spec in schema.weights}

    def error(log_kept: float) -> float:
        quantised = quantise(tensors, schema, _spec(log_kept, rounding), rng=rng)
        if rounding == "stochastic" and quantised.grid is not None:
            return expected_nmse(tensors, schema, quantised.grid)
        return nmse(weights, dequantise(quantised, schema))

    if rounding == "stochastic":
        found = _frontier(error, bound, inside=0.0, outside=_least(schema))
    else:
        fewest = _fewest(tensors, schema, bound)
        often_enough = min(fewest + log(4), 0.0)
        found = _frontier(error, bound, inside=often_enough, outside=fewest)
        if found is None:
            found = _frontier(error, bound, inside=0.0, outside=often_enough)
    return PLAIN if found is None else _spec(found, rounding)


def _fewest(tensors: Tensors, schema: ModelSchema, target: float) -> float:
    """Logarithm of the share of weights that holds all but `target` of the energy: with fewer, zeros alone err more."""
    energies = np.cumsum(np.sort(magnitudes(tensors, schema, 0)).astype(np.float64) ** 2)
    dropped = int(np.searchsorted(energies, target * energies[-1], side="right"))
    return log(max(energies.size - dropped, 1) / energies.size)


def _for_size(
    schema: ModelSchema, code: Code, limit_bytes: int, rounding: Rounding, too_dense: float
) -> CodecSpec:
    """The densest spec found whose payload fits, sparser than `too_dense`."""

    def size(log_kept: float) -> float:
        return len(code(_spec(log_kept, rounding)).payload)

    least = _least(schema)
    found = _frontier(size, max(limit_bytes, 1), inside=least, outside=log(1 - too_dense))
    if found is None:
        raise too_large(int(size(least)), limit_bytes)
    return _spec(found, rounding)


def _frontier(value: Callable[[float], float], bound: float, inside: float, outside: float) -> float | None:
    """The position nearest to `outside` found whose value is at most `bound`; None if not even `inside` is.

    False position on the logarithm of the value, with the Illinois rule against an end that stays.
    """

    def excess(position: float) -> float:
        return log(max(value(position), 1e-30) / bound)

    good, below = inside, excess(inside)
    if below > 0:
        return None
    bad, above = outside, excess(outside)
    if above <= 0:
        return outside
    best, moved = below, ""
    for _ in range(TRIES - 2):
        if best >= CLOSE:
            break
        middle = good + (bad - good) * below / (below - above)
        tried = excess(middle)
        if tried <= 0:
            good, below, best = middle, tried, tried
            above /= 2 if moved == "good" else 1
            moved = "good"
        else:
            bad, above = middle, tried
            below /= 2 if moved == "bad" else 1
            moved = "bad"
    return good


def _spec(log_kept: float, rounding: Rounding) -> CodecSpec:
    return CodecSpec(bits=BITS, sparsity=1 - exp(log_kept), rounding=rounding)


def _least(schema: ModelSchema) -> float:
    """Logarithm of the share that one weight is."""
    return -log(max(sum(spec.size for spec in schema.weights), 1))


def plain_bytes(schema: ModelSchema) -> int:
    """The least that the weights take in plain float32."""
    return OVERHEAD_BYTES + 4 * sum(spec.size for spec in schema.weights)


def too_large(least_bytes: int, limit_bytes: int) -> BudgetExceeded:
    """No update fits the limit."""
    return BudgetExceeded(
        "uplink_bytes",
        f"the coarsest update takes {least_bytes} bytes, the limit is {limit_bytes}: "
        f"narrow the model or raise the limit",
    )
