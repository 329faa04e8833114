"""Results folder of a run: made, held against other runs, and bound to the scenario that the run began with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from slimfleet.compression.errors import BadInput, DiskError
from slimfleet.compression.files import LOCK, locked, naming, write_atomically
from slimfleet.compression.validation import shortened
from slimfleet.coordinator.checkpoint import checkpoints
from slimfleet.simulations.scenario import load_scenario
from slimfleet.simulations.settings import Scenario

__all__ = ["keep_scenario", "refuse_edited", "refuse_used", "results_folder"]

_KEPT = Path("checkpoint") / "scenario.toml"
"""Beside the checkpoints: the scenario as the run began with it, or as it was last extended."""
_MAY_CHANGE = frozenset({"rounds", "run.ray_address"})


@contextmanager
def results_folder(out: Path, resume: bool) -> Iterator[None]:
    """Make `out`, where no run is resumed in it, and hold it for this process.

    Raises BadInput where it is in use or cannot be used. A DiskError from inside says how to go on.
    """
    try:
        if not resume:
            refuse_used(out)
            with naming(out):
                out.mkdir(parents=True, exist_ok=True)
        with locked(out):
            yield
    except DiskError as error:
        if os.path.lexists(out / "scenario.toml"):
            hint = f"; put that right, then continue with: slimfleet-simulate --resume {out}"
            raise DiskError(f"{error}{hint}") from error
        raise


def refuse_used(out: Path) -> None:
    """Raise BadInput where `out` holds anything, or is a link to nowhere."""
    with naming(out, "use"):
        if out.is_symlink() and not out.exists():
            raise BadInput(f"{out} is a link to {out.readlink()}, which does not exist")
        used = out.exists() and any(path.name != LOCK for path in out.iterdir())
    if used:
        raise BadInput(f"{out} is not empty: choose another folder for the results")


def keep_scenario(out: Path, scenario: Scenario) -> None:
    """Write what the run in `out` begins with: for people, and beside the checkpoints for `refuse_edited`."""
    text = scenario.to_toml().encode()
    write_atomically(out / "scenario.toml", text)
    write_atomically(out / _KEPT, text)


def refuse_edited(out: Path, scenario: Scenario) -> None:
    """Raise BadInput, which names the key, where `scenario` is not the one that the run in `out` began with.

    Its rounds and the cluster that it runs on may be others.
    """
    with naming(out / _KEPT, "read"):
        there = (out / _KEPT).is_file()
    if not there:
        if checkpoints(out / "checkpoint"):
            raise BadInput(
                f"{out / _KEPT} is missing, so the run in {out} cannot be resumed: start another one"
            )
        return  # killed before its first round
    began, now = (dict(_leaves(each.tables())) for each in (load_scenario(str(out / _KEPT)), scenario))
    for key in sorted((began.keys() | now.keys()) - _MAY_CHANGE):
        if began.get(key) != now.get(key):
            raise BadInput(
                f"{key} is {_said(now, key)} in {out / 'scenario.toml'}, but the run began with {_said(began, key)}: "
                f"put it back to resume, or start another run"
            )


def _leaves(table: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def _said(leaves: Mapping[str, Any], key: str) -> str:
    return shortened(leaves[key]) if key in leaves else "missing"
