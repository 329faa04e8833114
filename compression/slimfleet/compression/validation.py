"""Validation errors: the first problem that pydantic found, in one readable line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

WANTED: Mapping[str, str] = {
    "dataclass_type": "must be a table",
    "dict_type": "must be a table",
    "tuple_type": "must be a list",
    "too_short": "must have at least one value",
    "predicate_failed": "must be printable, without line ends and control characters",
}
"""Replacements for pydantic's messages about Python types, by error type."""

LONGEST_VALUE = 60
"""Most characters of a wrong value that a message repeats."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong or missing value."""

    key: str
    """Dotted, from the root; empty where the root itself is wrong."""
    value: object
    wanted: str
    """What the value must be; empty where the key is missing."""
    others: int = 0
    """Number of further problems."""

    def __str__(self) -> str:
        more = f" (and {self.others} more)" if self.others else ""
        if not self.wanted:
            return f"{self.key} is missing{more}"
        return f"{self.key or 'this'} = {shortened(self.value)}: {self.wanted}{more}"


def first_problem(error: ValidationError, table: str = "") -> Problem:
    """The first of the problems that `error` lists; `table` is put before its key."""
    first, *rest = error.errors(include_url=False)
    # A list with a bad item is reported a second time, as a list.
    others = sum(other["loc"] != first["loc"][: len(other["loc"])] for other in rest)
    key = ".".join(filter(None, [table, *map(str, first["loc"])]))
    if first["type"] == "missing":
        return Problem(key, None, "", others)
    message = first["msg"].removeprefix("Value error, ")
    wanted = WANTED.get(first["type"]) or message.replace("Input should be", "must be", 1)
    return Problem(key, first["input"], wanted, others)


def shortened(value: object) -> str:
    """A value as JSON, cut to a length that fits a line."""
    text = json.dumps(value, default=str)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."
