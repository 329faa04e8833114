"""Limits: what of a model the wire, its tables and the mean of a round can hold, checked before the first round."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from slimfleet.compression.codec.quantise.grid import LARGEST_VALUE
from slimfleet.compression.codec.quantise.plain import mask_bytes
from slimfleet.compression.errors import BadInput
from slimfleet.compression.pruning.groups import ChannelGroup
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.types import Tensors
from slimfleet.compression.wire import MAX_SIDE_BYTES, OVERHEAD_BYTES

MOST_TENSORS = 2**16 - 1
MOST_BYTES = 2**32 - 1
"""Of a payload. Both have a field of the header."""

MOST_CHANNELS = 8 * MAX_SIDE_BYTES
"""Each has a bit in the side section."""

LARGEST_FLOAT = float(np.finfo(np.float32).max)


def check_sizes(schema: ModelSchema) -> None:
    """Make sure that a model of `schema` fits the wire, and has something to train. Raises BadInput."""
    if not any(spec.size for spec in schema.weights):
        raise BadInput("the model is without parameters to train: none that has elements requires a gradient")
    if len(schema.tensors) > MOST_TENSORS:
        raise BadInput(
            f"the model has {len(schema.tensors):,} tensors, the limit is {MOST_TENSORS:,}: "
            f"put small ones together in one, or register constants with persistent=False"
        )
    if (needed := _plain_bytes(schema)) > MOST_BYTES:
        raise BadInput(
            f"the model has {schema.elements:,} elements, whose payload may take {needed:,} bytes, the limit is "
            f"{MOST_BYTES:,}: take a smaller model, or register constants with persistent=False"
        )
    for spec in schema.tensors:
        if not spec.name.isprintable():
            raise BadInput(f"tensor {spec.name!r} has a name that is not printable: give it another one")


def check_values(schema: ModelSchema, tensors: Tensors) -> None:
    """Make sure that weights begin finite, and that float32 can hold all other numbers. Raises BadInput.

    What is not trained may be NaN or infinite.
    """
    for spec in schema.of_kind("weight", "buffer", "frozen"):
        values, trained = tensors[spec.name], spec.kind == "weight"
        finite = np.isfinite(values)
        if trained and not finite.all():
            raise BadInput(
                f"tensor {spec.name!r} is trained and holds NaN or infinity: it must begin with numbers"
            )
        limit = LARGEST_VALUE if trained else LARGEST_FLOAT
        largest = float(np.abs(values).max(initial=0, where=finite))
        if largest > limit:
            raise BadInput(
                f"tensor {spec.name!r} holds {largest:.3g}, the limit is {limit:.3g}: choose another unit for it"
            )


def check_channels(groups: Iterable[ChannelGroup]) -> None:
    """Make sure that the channels of all groups have a place in the side section. Raises BadInput."""
    channels = sum(group.size for group in groups)
    if channels > MOST_CHANNELS:
        raise BadInput(
            f"the model has {channels:,} channels that may be removed, the limit is {MOST_CHANNELS:,}: "
            f"take a narrower or a shallower model"
        )


def _plain_bytes(schema: ModelSchema) -> int:
    """The most that a model takes as plain floats and integers; on a grid it is smaller."""
    integers = sum(spec.nbytes for spec in schema.of_kind("integer"))
    floats = sum(4 * spec.size for spec in schema.of_kind("weight", "buffer", "frozen"))
    return OVERHEAD_BYTES + MAX_SIDE_BYTES + 2 * mask_bytes(schema) + integers + floats
