"""State of a federation: everything that lasts from round to round, and its one serialised form.

A checkpoint is a few named files. `state.json` holds what is no array; `server.safetensors` the server's tensors and
the digest of `state.json`; `version-NUMBER-FINGERPRINT.safetensors` one published model each, which never changes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import xxhash
from pydantic import TypeAdapter

from slimfleet.compression import BadInput, ModelSchema, PayloadError, Skip
from slimfleet.compression.codec import Snapshot
from slimfleet.compression.cost import UpdateSizeModel
from slimfleet.compression.sealed_file import open_sealed, seal_tensors
from slimfleet.coordinator.environment import Environment
from slimfleet.coordinator.learning.aggregate import CoverageMean
from slimfleet.coordinator.learning.calibration import Calibration
from slimfleet.coordinator.learning.row import RoundRow, Totals
from slimfleet.coordinator.learning.server_optimizer import ServerOptimizer
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.receiving.bounds import FleetBounds
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.sending.downlink import Downlink
from slimfleet.coordinator.sending.versions import Versions

FORMAT = 4
VALUES = "state.json"
SERVER = "server.safetensors"
VERSION = "version-"
"""Prefix of the names of files that never change."""

log = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class OpenRound:
    """The round under way. It does not outlast a restart."""

    number: int
    downlink: Downlink
    mean: CoverageMean
    bounds: FleetBounds
    """What each of its devices may claim and move."""
    opened_s: float
    """By the environment's time."""
    opened_at: float
    """By the coordinator's stopwatch."""
    handed_out_at: float = 0.0
    """By the stopwatch: from here on devices train."""
    skipped: dict[int, Skip] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    """Of the round's dispatches, as they came."""


@dataclass(slots=True, kw_only=True)
class State:
    """All that a coordinator knows."""

    schema: ModelSchema
    server: ServerOptimizer
    versions: Versions
    registry: Registry = field(default_factory=Registry)
    calibration: Calibration = field(default_factory=Calibration)
    sizes: UpdateSizeModel = field(default_factory=UpdateSizeModel)
    rows: list[RoundRow] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    in_flight: dict[int, Dispatch] = field(default_factory=dict)
    """Plan id -> work that no answer has come to yet. It does not outlast a restart."""
    open_round: OpenRound | None = None
    unasked: list[Answer] = field(default_factory=list)
    """Replays and unsolicited answers since the last step."""

    @property
    def next_round(self) -> int:
        """Number of the round that is open, or will be opened next; the first is 1."""
        return len(self.rows) + 1


LASTING: Mapping[str, TypeAdapter[Any]] = MappingProxyType(
    {
        "rows": TypeAdapter(list[RoundRow]),
        "registry": TypeAdapter(Registry),
        "calibration": TypeAdapter(Calibration),
        "sizes": TypeAdapter(UpdateSizeModel),
        "totals": TypeAdapter(Totals),
    }
)
"""What of a `State` lasts and is no array; its types alone say how it is written and read."""

Files = Mapping[str, Callable[[], bytes]]
"""Name -> what gives the content."""


def files_of(state: State, environment: Environment) -> Files:
    """The state as files. A file whose name begins with `VERSION` has the content of its namesake of earlier rounds."""
    plain = {name: kind.dump_python(getattr(state, name)) for name, kind in LASTING.items()}
    values = json.dumps({**_identity(state), **plain, "environment": environment.to_json()}).encode()
    return {
        VALUES: lambda: values,
        SERVER: lambda: seal_tensors(state.server.state(), {VALUES: xxhash.xxh3_64_hexdigest(values)}),
        **{_name(number, each): partial(_version_bytes, each) for number, each in state.versions},
    }


def restore(state: State, environment: Environment, files: Mapping[str, bytes]) -> None:
    """Restore a fresh state and its environment from what `files_of` returned.

    Raises BadInput where the files belong to another model, optimiser or format, and ValueError or PayloadError where
    they are damaged; nothing is changed then. A damaged version is left out: devices that hold it are sent a whole
    model.
    """
    for name in (VALUES, SERVER):
        if name not in files:
            raise ValueError(f"{name} is missing")
    plain = json.loads(files[VALUES])
    for key, expected in _identity(state).items():
        if not isinstance(plain, dict) or plain.get(key) != expected:
            found = plain.get(key) if isinstance(plain, dict) else None
            raise BadInput(
                f"is of {WORDS[key]} {found}, expected is {expected}: "
                f"resume with the version and scenario that it began with"
            )
    if missing := {*LASTING, "environment"} - plain.keys():
        raise ValueError(f"{VALUES} lacks {', '.join(sorted(missing))}")
    arrays, fields = open_sealed(files[SERVER])
    if fields.get(VALUES) != xxhash.xxh3_64_hexdigest(files[VALUES]):
        raise ValueError(f"{VALUES} and {SERVER} do not belong together, or have changed")
    values = {name: kind.validate_python(plain[name]) for name, kind in LASTING.items()}
    versions = _read_versions(files, state.schema)
    try:
        state.server.restore(arrays)
    except KeyError as key:
        raise ValueError(f"{SERVER} lacks {key}") from key
    state.versions.restore(versions)
    for name, value in values.items():
        setattr(state, name, value)
    environment.restore(plain["environment"])


WORDS = {
    "format": "checkpoint format",
    "schema": "the model with schema",
    "optimizer": "the server optimiser",
}


def _identity(state: State) -> dict[str, Any]:
    """What a checkpoint must have in common with the federation that resumes from it."""
    return {
        "format": FORMAT,
        "schema": state.schema.digest.hex(),
        "optimizer": state.server.settings.optimizer,
    }


def _name(number: int, snapshot: Snapshot) -> str:
    return f"{VERSION}{number:06d}-{snapshot.fingerprint:016x}.safetensors"


def _version_bytes(snapshot: Snapshot) -> bytes:
    levels = {f"levels/{name}": array for name, array in snapshot.levels.items()}
    return seal_tensors({**levels, "units": np.array(snapshot.units, np.float32)}, {})


def _read_versions(files: Mapping[str, bytes], schema: ModelSchema) -> dict[int, Snapshot]:
    versions = {}
    for name in sorted(name for name in files if name.startswith(VERSION)):
        number = int(name.removeprefix(VERSION).split("-")[0])
        try:
            arrays, _ = open_sealed(files[name])
            levels = {spec.name: arrays[f"levels/{spec.name}"] for spec in schema.weights}
            snapshot = Snapshot(levels, tuple(map(float, arrays["units"])))
        except (KeyError, PayloadError):
            snapshot = None
        if snapshot is None or _name(number, snapshot) != name:
            log.warning(
                "the published model %s is damaged: devices that hold it will be sent a whole one", name
            )
        else:
            versions[number] = snapshot
    return versions
