"""From plain values, as JSON and TOML have them, to a frozen dataclass: typed, bounded, nothing unknown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from slimfleet.compression.errors import BadInput

T = TypeVar("T")


def checked(kind: type[T], values: object, source: str) -> T:
    """`values` as the dataclass `kind`; tables become the dataclasses inside it, lists become tuples.

    Nothing else is converted, and a bound beside a field's type holds. Raises BadInput, in one line that begins with
    `source` and names the key, its value and what would be right.
    """
    try:
        text = json.dumps(values, allow_nan=False, default=str)
    except ValueError as error:
        raise BadInput(f"{source}: NaN and infinity are not numbers that can be used") from error
    try:
        result = TypeAdapter(kind).validate_json(text, strict=True)
    except ValidationError as error:
        raise BadInput(f"{source}: {_first(error)}") from None
    assert isinstance(values, Mapping), "a dataclass is made from a table"
    _refuse_unknown(values, asdict(result), source)  # type: ignore[call-overload]
    return result


def _first(error: ValidationError) -> str:
    """The first problem: key, value, and what pydantic would have."""
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    if first["type"] == "missing":
        return f"{key} is missing"
    wanted = first["msg"].replace("Input should be", "must be", 1)
    return f"{key or 'this'} = {json.dumps(first['input'])[:60]}: {wanted}"


def _refuse_unknown(given: Mapping[str, Any], known: Mapping[str, Any], source: str, table: str = "") -> None:
    for key, value in given.items():
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {table + near[0]!r}?" if near else f"there are {', '.join(sorted(known))}"
            raise BadInput(f"{source}: unknown key {table + key!r}; {hint}")
        if isinstance(value, Mapping) and isinstance(known[key], Mapping):
            _refuse_unknown(value, known[key], source, f"{table}{key}.")
