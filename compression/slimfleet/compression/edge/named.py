"""Named code: a setting that takes the name of something built in, or `module:object` of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from slimfleet.compression.edge.references import resolve
from slimfleet.compression.errors import BadInput

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Named:
    """Bounds a text, beside its type: one of the built-in `names`, or `module:object`."""

    names: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._checked, handler(source))

    def _checked(self, name: str) -> str:
        module, colon, attribute = name.partition(":")
        is_reference = colon and all(
            part.isidentifier() for text in (module, attribute) for part in text.split(".")
        )
        if name in self.names or is_reference:
            return name
        near = "".join(f" (did you mean {close!r}?)" for close in get_close_matches(name, self.names, n=1))
        raise ValueError(f"must be {', '.join(map(repr, self.names))} or 'module:object' of your own{near}")


def is_own(name: str) -> bool:
    """Whether a name is `module:object`."""
    return ":" in name


def found(key: str, name: str, built_in: Mapping[str, T]) -> T:
    """The callable of this name: built in, or imported.

    Raises BadInput, in one line that begins with the `key` of the setting, where it cannot be imported or called.
    """
    if not is_own(name):
        return built_in[name]
    try:
        own: Any = resolve(name)
    except BadInput as error:
        raise BadInput(f"{key}: {error}") from error
    if not callable(own):
        raise BadInput(f"{key} = {name!r}: it is of type {type(own).__name__}, must be a class or a function")
    return own  # type: ignore[no-any-return]
