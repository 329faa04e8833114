"""Sweep files: a scenario, a grid of settings, variants and seeds in one TOML file; anything wrong is BadInput."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

from annotated_types import Ge, Lt, MinLen

from slimfleet.compression.edge.checked import checked
from slimfleet.compression.edge.input_files import read_toml
from slimfleet.compression.errors import BadInput
from slimfleet.compression.validation import shortened
from slimfleet.simulations.scenario import DEFAULT
from slimfleet.simulations.settings import FleetSettings, TaskSettings

__all__ = ["MOST_CELLS", "Sweep", "load_sweep"]

MOST_CELLS = 10_000

_VALUES = frozenset(
    f"{table}.{name}"
    for table, kind in (("task", TaskSettings), ("fleet", FleetSettings))
    for name, hint in get_type_hints(kind).items()
    if get_origin(hint) is Mapping
)
"""Dotted keys of a scenario whose value is a table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a sweep file says. Its cells are all variants, with all combinations of the grid's values, on all seeds."""

    path: str = ""
    """Of the file itself."""
    name: Annotated[str, MinLen(1)] = "sweep"
    """The file's, by default."""
    scenario: Annotated[str, MinLen(1)] = DEFAULT
    """A shipped one, or the path of a file, relative to the sweep's."""
    seeds: Annotated[tuple[Annotated[int, Ge(0), Lt(2**63)], ...], MinLen(1)] = (0,)
    baseline: bool = False
    """Whether plain float32 FedAvg on the same devices, data and seeds is a point too."""
    set: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key -> value that every cell has."""
    grid: Mapping[str, Any] = field(default_factory=dict)
    """Dotted key -> list of values."""
    variants: Mapping[str, Any] = field(default_factory=dict)
    """Name -> dotted key -> value."""


def load_sweep(path: Path) -> Sweep:
    """Read a sweep file. Raises BadInput, in one line that names the file, the key and what would be right.

    What the keys of a scenario may be, the scenarios of the cells check.
    """
    source = f"the sweep {path}"
    tables = read_toml(path, source)
    tables.setdefault("name", path.stem)
    free = {table: _table(tables.pop(table, {}), table, source) for table in ("set", "grid", "variants")}
    if "path" in tables:
        raise BadInput(f"{source}: unknown key 'path'; did you mean 'scenario'?")
    sweep = replace(
        checked(Sweep, tables, source),
        path=str(path),
        set=_flat(free["set"]),
        grid=_flat(free["grid"]),
        variants={
            name: _flat(_table(table, f"variants.{name}", source)) for name, table in free["variants"].items()
        },
    )
    _check(sweep, source)
    return sweep


def _table(value: object, name: str, source: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadInput(f"{source}: {name} = {shortened(value)}: must be a table")
    return value


def _flat(table: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Tables inside tables as dotted keys, down to the values of a scenario."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        path = f"{at}{key}"
        flat |= (
            _flat(value, f"{path}.") if isinstance(value, Mapping) and path not in _VALUES else {path: value}
        )
    return flat


def _check(sweep: Sweep, source: str) -> None:
    for key, values in sweep.grid.items():
        if not isinstance(values, list) or not values:
            raise BadInput(
                f"{source}: grid.{key} = {shortened(values)}: must be a list of at least one value"
            )
    cells = prod(map(len, sweep.grid.values())) * max(1, len(sweep.variants)) * len(sweep.seeds)
    if cells > MOST_CELLS:
        raise BadInput(f"{source} has {cells:,} cells; a sweep may have {MOST_CELLS:,}")
    for name, listed in (
        ("seeds", sweep.seeds),
        *((f"grid.{key}", each) for key, each in sweep.grid.items()),
    ):
        _refuse_repeated(listed, name, source)
    for table, keys in (("set", sweep.set), ("grid", sweep.grid), *sweep.variants.items()):
        if "seed" in keys:
            raise BadInput(f"{source}: {table} has the key 'seed'; give the list 'seeds' at the root instead")
    for variant, settings in sweep.variants.items():
        for key in settings:
            if key in sweep.grid:
                raise BadInput(
                    f"{source}: {key} is in the grid and in the variant {variant!r}: keep one of them"
                )


def _refuse_repeated(values: Any, name: str, source: str) -> None:
    for index, value in enumerate(values):
        if value in values[:index]:
            raise BadInput(f"{source}: {name} has {shortened(value)} twice")
