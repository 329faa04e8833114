"""Model schema: names, shapes and dtypes of a model's tensors in order, on which both ends of the wire agree."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from slimfleet.compression.errors import PayloadError
from slimfleet.compression.types import Tensors

if TYPE_CHECKING:
    from numpy.typing import NDArray

TensorKind = Literal["weight", "buffer", "integer", "frozen"]
"""A trained float tensor; a float tensor that training only observes (batch-norm statistics); a counter or flag; a
float parameter that is not trained."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and dtype (numpy name) of one tensor, and the channel of the wire it travels on."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    kind: TensorKind

    @property
    def size(self) -> int:
        """Number of elements; 1 for a 0-d tensor."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the plain array."""
        import numpy as np  # not before there is a model: a device that waits for one stays small

        return self.size * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class ModelSchema:
    """The ordered tensors of a model. Both ends of an exchange must have the same `digest`."""

    tensors: tuple[TensorSpec, ...]

    @classmethod
    def of(
        cls, tensors: Mapping[str, NDArray[Any]], trained: Collection[str], frozen: Collection[str] = ()
    ) -> ModelSchema:
        """Read the schema off arrays; `trained` names the tensors that training changes, `frozen` other parameters."""

        def kind(name: str, array: NDArray[Any]) -> TensorKind:
            if array.dtype.kind != "f":
                return "integer"
            if name in frozen:
                return "frozen"
            return "weight" if name in trained else "buffer"

        return cls(
            tuple(
                TensorSpec(name, array.shape, array.dtype.name, kind(name, array))
                for name, array in tensors.items()
            )
        )

    @cached_property
    def digest(self) -> bytes:
        """Eight bytes of SHA-256 over names, shapes, dtypes and kinds in order."""
        lines = [f"{t.name}\0{','.join(map(str, t.shape))}\0{t.dtype}\0{t.kind}\n" for t in self.tensors]
        return hashlib.sha256("".join(lines).encode()).digest()[:8]

    @cached_property
    def elements(self) -> int:
        """Number of elements over all tensors."""
        return sum(t.size for t in self.tensors)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of the plain arrays: what an uncompressed model costs."""
        return sum(t.nbytes for t in self.tensors)

    @cached_property
    def weights(self) -> tuple[TensorSpec, ...]:
        """The trained tensors, in schema order: what is sparsified and quantised."""
        return self.of_kind("weight")

    @cached_property
    def plain(self) -> tuple[TensorSpec, ...]:
        """All tensors but the weights, in schema order: what travels without quantisation."""
        return self.of_kind("buffer", "integer", "frozen")

    @cached_property
    def moving(self) -> ModelSchema:
        """The schema of an update: without the frozen tensors, which never change."""
        moving = self.of_kind("weight", "buffer", "integer")
        return self if len(moving) == len(self.tensors) else ModelSchema(moving)

    def of_kind(self, *kinds: TensorKind) -> tuple[TensorSpec, ...]:
        """The tensors of these kinds, in schema order."""
        return tuple(t for t in self.tensors if t.kind in kinds)

    def with_shapes(self, shapes: Mapping[str, tuple[int, ...]]) -> ModelSchema:
        """The same tensors with other shapes: the schema of a shrunk model."""
        return ModelSchema(tuple(TensorSpec(t.name, shapes[t.name], t.dtype, t.kind) for t in self.tensors))

    def check(self, tensors: Mapping[str, NDArray[Any]]) -> Tensors:
        """Return `tensors` in schema order, or raise PayloadError("schema") naming what differs."""
        missing = [t.name for t in self.tensors if t.name not in tensors]
        extra = [name for name in tensors if name not in {t.name for t in self.tensors}]
        if missing or extra:
            raise PayloadError(
                "schema", f"tensors differ from the schema: missing {missing}, unexpected {extra}"
            )
        for spec in self.tensors:
            array = tensors[spec.name]
            if array.shape != spec.shape or array.dtype.name != spec.dtype:
                raise PayloadError(
                    "schema",
                    f"tensor {spec.name!r} is {array.dtype.name}{list(array.shape)}, "
                    f"the schema says {spec.dtype}{list(spec.shape)}",
                )
        return {t.name: tensors[t.name] for t in self.tensors}
