"""Checked values: from JSON or TOML into a frozen dataclass, with types, bounds and only known keys."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from difflib import get_close_matches
from functools import cache
from math import inf, isfinite
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from slimfleet.compression.errors import BadInput
from slimfleet.compression.validation import first_problem, shortened

T = TypeVar("T")

Source = str | Callable[[str], str]
"""Origin of values, as a message names it; a function where it depends on the (dotted) key."""


def checked(
    kind: type[T],
    values: object,
    source: Source,
    table: str = "",
    root: Mapping[str, Any] = MappingProxyType({}),
    infinite: Collection[str] = (),
) -> T:
    """`values` as the dataclass `kind`; tables become the dataclasses inside it, lists become tuples.

    Nothing else is converted, and bounds beside the types are enforced. `table` is the dotted name of the table that
    `values` is, where it is not the root; `root` has the keys and tables of the whole file, for suggestions, where
    `kind` does not; `infinite` are the dotted keys that may be infinite. Raises BadInput, in one line that begins with
    the source and names the key, its value and what would be right.
    """
    try:
        _refuse_nonfinite(values, source, table, infinite)
        text = json.dumps(values, default=str)
    except RecursionError as error:
        raise BadInput(f"{named(source, table)}: {_too_deep(table)}") from error
    except ValueError as error:  # a whole number of more digits than Python writes
        raise BadInput(f"{named(source, table)}: {table or 'it'} holds a number that is too long") from error
    try:
        result: T = _adapter(kind).validate_json(text, strict=True)  # type: ignore[arg-type]  # classes are hashable
    except ValidationError as error:
        problem = first_problem(error, table)
        raise BadInput(f"{named(source, problem.key)}: {problem}") from None
    assert isinstance(values, Mapping), "a dataclass is made from a table"
    known = asdict(result)  # type: ignore[call-overload]
    _refuse_unknown(values, known, source, table, root or ({} if table else known))
    return result


def named(source: Source, key: str) -> str:
    """Name of the origin of `key`, for messages."""
    return source if isinstance(source, str) else source(key)


def refuse_renamed(values: Mapping[str, Any], renamed: Mapping[str, str], source: Source) -> None:
    """Raise BadInput for the first key that has been renamed.

    `renamed` maps old dotted keys to new ones; a key that ends in `.` stands for a whole table.
    """
    try:
        keys = [".".join(path) for path in _paths(values)]
    except RecursionError as error:
        raise BadInput(f"{named(source, '')}: {_too_deep('')}") from error
    for key in keys:
        for old, new in renamed.items():
            if key == old or (old.endswith(".") and key.startswith(old)):
                now = new + key.removeprefix(old) if old.endswith(".") else new
                raise BadInput(f"{named(source, key)}: {key!r} is called {now!r} now")


def refuse_unlisted(names: Iterable[str], known: Collection[str], source: Source, table: str) -> None:
    """Raise BadInput for the first of the names in `table` that is not one of the known ones."""
    for name in names:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            near = f"did you mean {close[0]!r}? There" if close else "there"
            raise BadInput(
                f"{named(source, f'{table}.{name}')}: {table} has no {name!r}; "
                f"{near} are {', '.join(sorted(known))}"
            )


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Made once for each kind: to make that of the settings takes 20 times as long as to read a file with it."""
    return TypeAdapter(kind)


def _too_deep(table: str) -> str:
    return f"{table or 'it'} is nested too deep"


def _paths(values: Mapping[str, Any], table: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path of every key, a table before what is in it."""
    for key, value in values.items():
        yield (*table, key)
        if isinstance(value, Mapping):
            yield from _paths(value, (*table, key))


def _refuse_nonfinite(value: object, source: Source, key: str, infinite: Collection[str]) -> None:
    if isinstance(value, float | int) and not _is_finite(value) and not (key in infinite and value == inf):
        wanted = "a number" if key in infinite else "a finite number"
        raise BadInput(f"{named(source, key)}: {key} = {shortened(value)}: must be {wanted}")
    inside = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, item in inside:
        _refuse_nonfinite(item, source, f"{key}.{name}" if key else str(name), infinite)


def _is_finite(value: float) -> bool:
    try:
        return isfinite(value)
    except OverflowError:  # a whole number beyond the largest float
        return False


def _refuse_unknown(
    given: Mapping[str, Any], known: Mapping[str, Any], source: Source, base: str, root: Mapping[str, Any]
) -> None:
    """Raise BadInput for a given key that the checked result, `known`, does not have."""
    for *path, leaf in _paths(given):
        table: Any = known
        for step in path:
            table = table.get(step) if isinstance(table, Mapping) else None
        if isinstance(table, Mapping) and leaf not in table:
            full = ".".join(filter(None, [base, *path, leaf]))
            where = ".".join(filter(None, [base, *path]))
            beside = table if where else root
            raise BadInput(
                f"{named(source, full)}: unknown key {full!r}; {_suggestion(leaf, where, beside, root)}"
            )


def _suggestion(leaf: str, where: str, table: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    """A near key of the same table, else the same key of another one, else all keys of the table."""
    near = get_close_matches(leaf, table, n=1)
    if near:
        return f"did you mean {'.'.join(filter(None, [where, near[0]]))!r}?"
    elsewhere = [name for name, other in root.items() if isinstance(other, Mapping) and leaf in other]
    if elsewhere:
        return f"did you mean {elsewhere[0] + '.' + leaf!r}?"
    return f"there are {', '.join(sorted(table))}"
