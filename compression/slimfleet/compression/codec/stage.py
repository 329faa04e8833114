"""The codec seam: a stage is three pure functions with explicit state, and `chain` folds stages into one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from slimfleet.compression.schema import ModelSchema

S = TypeVar("S")
X = TypeVar("X")
Y = TypeVar("Y")


@dataclass(frozen=True, slots=True)
class Stage(Generic[X, Y, S]):
    """One reversible or lossy step of a codec, after optax's gradient transformations, with an inverse added.

    `decode` gives what the other end will have; it needs no state, since the other end holds none.
    """

    init: Callable[[ModelSchema], S]
    """The state before the first use."""
    encode: Callable[[X, S], tuple[Y, S]]
    """Map a value and the state to the coded value and the next state."""
    decode: Callable[[Y], X]
    """Map a coded value back."""


def stateless(encode: Callable[[X], Y], decode: Callable[[Y], X]) -> Stage[X, Y, None]:
    """A stage that remembers nothing."""
    return Stage(init=lambda schema: None, encode=lambda x, state: (encode(x), state), decode=decode)


def chain(*stages: Stage[Any, Any, Any]) -> Stage[Any, Any, tuple[Any, ...]]:
    """Apply stages in order to encode and in reverse to decode; the state is the tuple of their states."""

    def init(schema: ModelSchema) -> tuple[Any, ...]:
        return tuple(stage.init(schema) for stage in stages)

    def encode(value: Any, states: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
        following = []
        for stage, state in zip(stages, states, strict=True):
            value, state = stage.encode(value, state)
            following.append(state)
        return value, tuple(following)

    def decode(value: Any) -> Any:
        for stage in reversed(stages):
            value = stage.decode(value)
        return value

    return Stage(init, encode, decode)
