"""Updates in float32 that are encoded at once are those that are encoded one by one."""

from __future__ import annotations

import numpy as np
import pytest

from slimfleet.compression import ModelSchema
from slimfleet.compression.codec import Aim, Coding, encode_plain, encode_to, is_plain
from slimfleet.compression.wire import Envelope

SHAPES = {"matrix": (12, 7), "bias": (7,)}
SCHEMA = ModelSchema.of({name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}, SHAPES)


@pytest.mark.parametrize("preset", ["fast", "small", "portable"])
def test_payloads_are_the_same_bytes(preset: str) -> None:
    rng = np.random.default_rng(0)
    stacked = {name: rng.normal(0, 0.1, (6, *shape)).astype(np.float32) for name, shape in SHAPES.items()}
    for array in stacked.values():
        array[2] = 0.0
    stacked["bias"][4, 3] = np.nan
    stacked["matrix"][5] = 0.0
    envelopes = [Envelope(base_version=3, plan_id=2**40 + place) for place in range(6)]
    payloads = encode_plain(stacked, SCHEMA, envelopes)
    assert [place for place, payload in enumerate(payloads) if payload is None] == [2, 4]
    for place in (0, 1, 3, 5):
        alone = encode_to(
            {name: array[place] for name, array in stacked.items()},
            SCHEMA,
            Aim(nmse=0.0, limit_bytes=10_000),
            envelope=envelopes[place],
            coding=Coding(preset),
        )
        assert payloads[place] == alone.payload
        for name, array in stacked.items():
            assert np.array_equal(alone.decoded[name], array[place])


def test_only_float32_weights_are_plain() -> None:
    assert is_plain(SCHEMA)
    arrays = {"half": np.zeros(3, np.float16), "whole": np.zeros(3, np.float32)}
    assert not is_plain(ModelSchema.of(arrays, arrays))
    counted = {"weight": np.zeros(3, np.float32), "count": np.zeros(1, np.int64)}
    assert not is_plain(ModelSchema.of(counted, ["weight"]))
