"""The rate controller: an update in as few bytes as an error allows, or with as little error as bytes allow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from slimfleet.compression.codec import error
from slimfleet.compression.codec.codec import CodecSpec, Encoded, check_values, sealed, stages
from slimfleet.compression.codec.native.library import load
from slimfleet.compression.codec.quantise import native_rate, portable_rate
from slimfleet.compression.codec.quantise.grid import Quantised
from slimfleet.compression.codec.quantise.portable_rate import PLAIN
from slimfleet.compression.codec.quantise.sparsify import weights_of
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Preset, Rounding, Tensors


def encode_to(
    tensors: Tensors,
    schema: ModelSchema,
    *,
    nmse: float | None = None,
    limit_bytes: int | None = None,
    rounding: Rounding = "deadzone",
    base_version: int = 0,
    plan_id: int = 0,
    side: bytes = b"",
    rng: np.random.Generator | None = None,
    preset: Preset = "small",
    reference: Tensors | None = None,
) -> Encoded:
    """The smallest payload found whose squared error is at most `nmse` times the update's squared norm.

    Both sums run over the trained tensors; buffers and integers travel as in `encode`. `nmse` 0 sends plain
    float32, None asks for the least error that `limit_bytes` has room for. Where the payload would exceed
    `limit_bytes`, the least error that fits is sent instead, whatever was asked.

    With `rounding` "stochastic" the update is unbiased, `nmse` bounds the error's mean over the draws of `rng`
    and may be 1 or more; a size limit that binds looks at the draw, so that only then a trace of bias is left.

    `preset` says by which coder; without the native one, every preset is the portable one. `reference`: tensors that
    resemble these and that the decoder has too, such as the last global update; `decode` needs them again.

    Raises ValueError for arguments that make no sense, BudgetExceeded("uplink_bytes") when nothing fits
    `limit_bytes`, and PayloadError as `encode` does.
    """
    return settle(
        tensors,
        schema,
        nmse=nmse,
        limit_bytes=limit_bytes,
        rounding=rounding,
        base_version=base_version,
        plan_id=plan_id,
        side=side,
        rng=rng,
        preset=preset,
        reference=reference,
    ).encoded


@dataclass(frozen=True, slots=True)
class Settled:
    """What `encode_to` sends."""

    encoded: Encoded
    again: Callable[[], Encoded]
    """Codes the same payload once more without a search: one encode at this operating point."""


def settle(
    tensors: Tensors,
    schema: ModelSchema,
    *,
    nmse: float | None = None,
    limit_bytes: int | None = None,
    rounding: Rounding = "deadzone",
    base_version: int = 0,
    plan_id: int = 0,
    side: bytes = b"",
    rng: np.random.Generator | None = None,
    preset: Preset = "small",
    reference: Tensors | None = None,
) -> Settled:
    """`encode_to`, for who also wants to know what one encode at its operating point takes."""
    _check(nmse, limit_bytes, rounding, rng)
    tensors = schema.check(tensors)
    check_values(tensors, schema, quantised=nmse != 0)
    seed = None if rng is None else int(rng.integers(2**63))  # one draw, however often it is coded

    def seal_up(quantised: Quantised) -> Encoded:
        return sealed(
            quantised,
            schema,
            base_version=base_version,
            plan_id=plan_id,
            side=side,
            preset=preset,
            reference=reference,
        )

    def code(spec: CodecSpec) -> Encoded:
        stage = stages(schema, spec, rng=None if seed is None else np.random.default_rng(seed))
        return seal_up(stage.encode(tensors, stage.init(schema))[0])

    priced = rounding == "deadzone" and preset != "portable" and load() is not None
    if priced and any(tensors[spec.name].any() for spec in weights_of(schema)):
        quantiser = native_rate.quantiser_for(tensors, schema, preset, nmse, limit_bytes, reference)
        settled = Settled(
            *native_rate.choose(
                quantiser, seal_up, lambda: code(PLAIN), target_nmse=nmse, limit_bytes=limit_bytes
            )
        )
    else:
        spec, encoded = portable_rate.choose(
            tensors, schema, code, target_nmse=nmse, limit_bytes=limit_bytes, rounding=rounding
        )
        settled = Settled(encoded, lambda: code(spec))
    if nmse and rounding == "deadzone" and _rounded_away(settled, tensors, schema, nmse):
        plain = code(PLAIN)
        if limit_bytes is None or len(plain.payload) <= limit_bytes:
            return Settled(plain, lambda: code(PLAIN))
    return settled


def _rounded_away(settled: Settled, tensors: Tensors, schema: ModelSchema, target: float) -> bool:
    """Whether float16 weights, onto which values of the grid are rounded at the end, miss a very small error."""
    weights = weights_of(schema)
    if all(spec.dtype != "float16" for spec in weights):
        return False
    return error.nmse({s.name: tensors[s.name] for s in weights}, settled.encoded.decoded) > target


def _check(
    nmse: float | None, limit_bytes: int | None, rounding: Rounding, rng: np.random.Generator | None
) -> None:
    if nmse is None and limit_bytes is None:
        raise ValueError("give an error (nmse), a size (limit_bytes) or both: there is nothing to aim at")
    most = float("inf") if rounding == "stochastic" else 1.0
    if nmse is not None and not 0 <= nmse < most:
        raise ValueError(f"nmse is {nmse}, with {rounding} rounding it must be at least 0 and below {most:g}")
    if limit_bytes is not None and limit_bytes < 0:
        raise ValueError(f"limit_bytes is {limit_bytes}, it must be at least 0")
    if rounding == "stochastic" and rng is None:
        raise ValueError("stochastic rounding needs a random generator")
