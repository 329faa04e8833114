"""Bits and distortion of an update that is thresholded, quantised uniformly and entropy coded.

The values of an update are taken as Laplacian: their magnitudes are exponential, of mean 1 after scaling.
Real updates have heavier tails (kurtosis 93 and more against 6), so both figures err on the high side; what
matters here is the order of the candidates, and `UpdateSizeModel` corrects the sizes from what really went
over the wire.
"""

from __future__ import annotations

from math import exp, expm1, inf, log, log2

FLOAT32_BITS = 32
QUANTISER_RANGE = 6.0
"""Span of the quantiser above the threshold, in mean magnitudes; exp(-6) = 0.25% of values lie beyond."""


def bits_per_value(bits: int, sparsity: float) -> float:
    """Order-0 entropy, in bits, of one value of the update.

    h(sparsity) says which values are sent; each of those costs a sign, and a magnitude whose level is
    geometric (the exponential distribution has no memory, so the threshold drops out).
    """
    if bits == FLOAT32_BITS:
        return float(FLOAT32_BITS)
    step = _step(bits)
    level = 0.0 if step == inf else min(_binary_entropy(exp(-step)) / -expm1(-step), bits - 1.0)
    return _binary_entropy(sparsity) + (1 - sparsity) * (1 + level)


def expected_nmse(bits: int, sparsity: float) -> float:
    """Squared error of the compressed update over the squared norm of the update, 0..1.

    With p = 1 - sparsity and the threshold t = -ln p, values below t hold the share 1 - p(1 + t + t²/2)
    of the energy, and a kept one loses the variance of an exponential within its cell of width d,
    reconstructed at the cell's mean: 1 - d²·exp(-d)/(1 - exp(-d))² (Sullivan 1996, "Efficient scalar
    quantization of exponential and Laplacian random variables").
    """
    if bits == FLOAT32_BITS:
        return 0.0
    kept, step = 1 - sparsity, _step(bits)
    threshold = -log(kept)
    dropped = 1 - kept * (1 + threshold + threshold**2 / 2)
    within_cell = 1.0 if step == inf else 1 - step**2 * exp(-step) / expm1(-step) ** 2
    return dropped + kept * within_cell / 2


def _step(bits: int) -> float:
    """Width of a quantiser cell; one bit is the sign alone, so that its only cell has no end."""
    return inf if bits == 1 else QUANTISER_RANGE / 2 ** (bits - 1)


def _binary_entropy(share: float) -> float:
    return 0.0 if share in (0.0, 1.0) else -share * log2(share) - (1 - share) * log2(1 - share)
