"""State of a federation: everything that lasts from round to round, and its one serialised form.

A checkpoint is a few named files. `state.json` holds what is no array; `version-NUMBER-FINGERPRINT.safetensors` one
published model each, `payload-HASH.bin` what devices at work were sent, and `best-NUMBER-FINGERPRINT.safetensors` the
best model so far, none of which changes; `server.safetensors` the server's tensors, and the seal that binds the files
of one round to each other: the digest of `state.json` and the names of the models.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from slimfleet.compression import BadInput, ModelSchema, Tensors
from slimfleet.compression.codec import Snapshot
from slimfleet.compression.cost import UpdateSizeModel
from slimfleet.compression.pruning.blueprint import Blueprint
from slimfleet.compression.schema import TensorSpec
from slimfleet.compression.sealed_file import open_sealed, seal_tensors
from slimfleet.compression.validation import shortened
from slimfleet.coordinator.environment import Environment
from slimfleet.coordinator.learning.aggregators import Aggregator
from slimfleet.coordinator.learning.best import Best
from slimfleet.coordinator.learning.calibration import Calibration
from slimfleet.coordinator.learning.row import RoundRow, Totals
from slimfleet.coordinator.learning.server_optimizer import ServerOptimizer
from slimfleet.coordinator.planning.skips import Skips
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.receiving.bounds import FleetBounds
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.sending.downlink import Downlink
from slimfleet.coordinator.sending.in_flight import (
    PAYLOAD,
    payload_name,
    restored_dispatches,
)
from slimfleet.coordinator.sending.versions import Versions
from slimfleet.coordinator.sending.work import InFlight
from slimfleet.coordinator.state_text import LASTING, OTHERS, RECORDS, StateText

FORMAT = 8
VALUES = "state.json"
SERVER = "server.safetensors"
VERSION = "version-"
"""Prefix of the names of files that never change."""
BASE = "base/"
"""Prefix of the names of tensors that earlier models had."""
FLEET = "registry/"
"""Prefix of the names of arrays that the registry has."""
BEST = "best-"
"""Prefix of the name of the best model so far, which does not change either."""
LASTING_FILES = (VERSION, PAYLOAD, BEST)
VERSIONS = "versions"
"""Field of the server file's seal: the names of the versions."""


@dataclass(slots=True, kw_only=True)
class OpenRound:
    """The round under way. No checkpoint holds it: the journal tells how it came about."""

    number: int
    downlink: Downlink
    mean: Aggregator
    bounds: FleetBounds
    """What each of its devices may claim and move."""
    opened_s: float
    """By the environment's time."""
    opened_at: float
    """By the coordinator's stopwatch."""
    handed_out_at: float = 0.0
    """By the stopwatch: from here on devices train."""
    closes_s: float = inf
    """Its deadline, by the environment's time."""
    selected: int = 0
    """Devices that it has given work."""
    found_too_few: bool = False
    """Whether its last plan had work for more devices than it found."""
    skipped: Skips = field(default_factory=Skips)
    answers: list[Answer] = field(default_factory=list)
    """Since the last step, as they came; those to dispatches of earlier rounds too."""


@dataclass(slots=True, kw_only=True)
class State:
    """All that a coordinator knows."""

    schema: ModelSchema
    blueprint: Blueprint
    server: ServerOptimizer
    versions: Versions
    registry: Registry = field(default_factory=Registry)
    calibration: Calibration = field(default_factory=Calibration)
    sizes: UpdateSizeModel = field(default_factory=UpdateSizeModel)
    rows: list[RoundRow] = field(default_factory=list)
    totals: Totals = field(default_factory=Totals)
    in_flight: InFlight = field(default_factory=InFlight)
    bases: dict[int, Tensors] = field(default_factory=dict)
    """Float buffers of the earlier models, by round, that work in flight started from."""
    open_round: OpenRound | None = None
    best: Best | None = None
    """The best model so far."""
    best_model: Tensors | None = None
    unasked: list[Answer] = field(default_factory=list)
    """Replays and unsolicited answers since the last step."""
    text: StateText = field(default_factory=StateText)

    @property
    def next_round(self) -> int:
        """Number of the round that is open, or will be opened next; the first is 1."""
        return len(self.rows) + 1

    def pause(self, later_s: float, later_at: float) -> None:
        """Let a pause pass without counting, by the environment's time and by the stopwatch: what is under way is as
        old as it was. When work that is sent again went out is not known any more."""
        self.in_flight = InFlight(
            replace(each, sent_s=each.sent_s + later_s, handed_out_at=inf) for each in self.in_flight.values()
        )
        if self.open_round is not None:
            self.open_round.opened_s += later_s
            self.open_round.closes_s += later_s
            self.open_round.opened_at += later_at
            self.open_round.handed_out_at += later_at

    def keep_bases(self) -> None:
        """Keep what work that outlasts the open round is judged by, and no more."""
        versions = self.in_flight.versions()
        kept = {version: base for version, base in self.bases.items() if version in versions}
        if self.open_round is not None and self.open_round.number in versions:
            model = self.open_round.downlink.tensors
            kept[self.open_round.number] = {
                spec.name: model[spec.name] for spec in self.schema.of_kind("buffer")
            }
        self.bases = kept


Files = Mapping[str, Callable[[], bytes]]
"""Name -> what gives the content."""


def files_of(state: State, environment: Environment) -> Files:
    """The state as files. One whose name begins with one of `LASTING_FILES` has the content of its earlier namesake."""
    text = state.text.of(state, environment, _identity(state))
    versions = {_name(number, each): partial(_version_bytes, each) for number, each in state.versions}
    payloads = {payload_name(each.payload): partial(bytes, each.payload) for each in state.in_flight.values()}
    best = _best_files(state.best, state.best_model)
    seal = {
        VALUES: xxhash.xxh3_64_hexdigest(text),
        VERSIONS: " ".join(versions),
        BEST: "".join(best),
    }
    arrays = {f"{BASE}{v}/{name}": a for v, base in state.bases.items() for name, a in base.items()}
    arrays |= {f"{FLEET}{name}": array for name, array in state.registry.arrays().items()}
    return {
        VALUES: lambda: text,
        SERVER: lambda: seal_tensors(state.server.state() | arrays, seal),
        **versions,
        **payloads,
        **best,
    }


def restore(state: State, environment: Environment, read: Callable[[str], bytes], rounds: int) -> float:
    """Restore a fresh state and its environment from what `files_of` returned after so many rounds.

    Returns when that was, by the environment's time.

    `read` gives the content of a file by its name. Raises BadInput where the files belong to another model or
    optimiser; ValueError or PayloadError where they are damaged, of another round or another format, and what `read`
    raises. The state is as it was then; the environment may not be.
    """
    text = read(VALUES)
    plain = _parsed(text)
    arrays, seal = open_sealed(read(SERVER))
    if seal.get(VALUES) != xxhash.xxh3_64_hexdigest(text):
        raise ValueError(f"{VALUES} and {SERVER} do not belong together, or have changed")
    for key, expected in _identity(state).items():
        if plain.get(key) != expected:
            raise BadInput(
                f"is of {WORDS[key]} {plain.get(key)}, expected is {expected}: "
                f"resume with the version and scenario that it began with"
            )
    if odd := {*_identity(state), *LASTING, *OTHERS} ^ plain.keys():
        raise ValueError(f"{VALUES} has other keys than it should: {', '.join(sorted(odd))}")
    values = {name: kind.validate_python(plain[name]) for name, kind in LASTING.items()}
    if len(values["rows"]) != rounds:
        raise ValueError(f"it is of round {len(values['rows'])}")
    records = RECORDS.validate_python(plain["registry"])
    fleet = {n.removeprefix(FLEET): arrays.pop(n) for n in list(arrays) if n.startswith(FLEET)}
    bases = _bases({name: arrays.pop(name) for name in list(arrays) if name.startswith(BASE)})
    _check_arrays(arrays, state.server.state())
    versions = dict(_version(name, read, state.schema) for name in seal.get(VERSIONS, "").split())
    best_name = seal.get(BEST, "")
    best_model = _best_model(best_name, read, state.schema) if best_name else None
    if (best_model is None) != (values["best"] is None):
        raise ValueError(f"{VALUES} and {SERVER} do not agree on whether there is a best model")
    try:
        environment.restore(plain["environment"])
        saved_s = float(plain["saved_s"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the environment of {VALUES} does not fit: {error!r}") from error
    in_flight = restored_dispatches(plain["in_flight"], read, state.blueprint)
    state.registry.restore(records, fleet)
    state.server.restore(arrays)
    state.versions.restore(versions)
    state.in_flight = InFlight(in_flight)
    state.bases = bases
    state.best_model = best_model
    for name, value in values.items():
        setattr(state, name, value)
    state.text = StateText()
    return saved_s


def _bases(arrays: Tensors) -> dict[int, Tensors]:
    """`State.bases` from its arrays in the server file."""
    bases: dict[int, Tensors] = {}
    for key, array in arrays.items():
        version, _, name = key.removeprefix(BASE).partition("/")
        bases.setdefault(int(version), {})[name] = array
    return bases


WORDS = {
    "format": "checkpoint format",
    "schema": "the model with schema",
    "optimizer": "the server optimiser",
    "fleet": "the fleet of",
}


def _identity(state: State) -> dict[str, Any]:
    """What a checkpoint must have in common with the federation that resumes from it."""
    return {
        "format": FORMAT,
        "schema": state.schema.digest.hex(),
        "optimizer": state.server.settings.optimizer,
        "fleet": state.registry.fingerprint,
    }


def _name(number: int, snapshot: Snapshot) -> str:
    return f"{VERSION}{number:06d}-{snapshot.fingerprint_with(snapshot.plain):016x}.safetensors"


def _version_bytes(snapshot: Snapshot) -> bytes:
    levels = {f"levels/{name}": array for name, array in snapshot.levels.items()}
    plain = {f"plain/{name}": array for name, array in snapshot.plain.items()}
    return seal_tensors({**levels, **plain, "units": np.array(snapshot.units, np.float32)}, {})


def _best_files(best: Best | None, model: Tensors | None) -> Files:
    """The best model as a file whose name says what is in it; none where there is none."""
    if best is None or model is None:
        return {}
    return {_best_name(best.round, model): lambda: seal_tensors(model, {})}


def _best_name(number: int, model: Tensors) -> str:
    content = xxhash.xxh3_64()
    for name, array in sorted(model.items()):
        content.update(f"{name} {array.dtype} {array.shape}".encode())
        content.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return f"{BEST}{number:06d}-{content.hexdigest()}.safetensors"


def _best_model(name: str, read: Callable[[str], bytes], schema: ModelSchema) -> Tensors:
    """The best model. Raises ValueError where the file is not the one that its name says, or of another model."""
    arrays, _ = open_sealed(read(name))
    number = int(name.removeprefix(BEST).split("-")[0])
    if _best_name(number, arrays) != name:
        raise ValueError(f"{name} holds another model than its name says")
    if missing := [s.name for s in schema.tensors if (a := arrays.get(s.name)) is None or a.shape != s.shape]:
        raise ValueError(f"{name} does not hold {missing[0]!r} as the model has it")
    return {spec.name: arrays[spec.name] for spec in schema.tensors}


def _version(name: str, read: Callable[[str], bytes], schema: ModelSchema) -> tuple[int, Snapshot]:
    """Number and content of a published model. Raises ValueError where the file is not the one that its name says."""
    number = int(name.removeprefix(VERSION).split("-")[0])
    arrays, _ = open_sealed(read(name))
    levels, plain = (
        {spec.name: arrays[key] for spec in specs if _fits(arrays.get(key := f"{kind}/{spec.name}"), spec)}
        for kind, specs in (("levels", schema.weights), ("plain", schema.plain))
    )
    units = tuple(map(float, arrays.get("units", ())))
    if missing := [spec.name for spec in schema.tensors if spec.name not in levels | plain]:
        raise ValueError(f"{name} does not hold {missing[0]!r} as the model has it")
    snapshot = Snapshot(levels, units, plain)
    if len(units) != len(levels) or _name(number, snapshot) != name:
        raise ValueError(f"{name} holds another version than its name says")
    return number, snapshot


def _fits(array: NDArray[Any] | None, spec: TensorSpec) -> bool:
    """Whether an array is a tensor as a version carries it."""
    kinds = {"weight": {np.dtype(np.int16)}, "integer": {np.dtype(spec.dtype)}}
    carried = kinds.get(spec.kind, {np.dtype(np.float16), np.dtype(np.float32)})
    return array is not None and array.shape == spec.shape and array.dtype in carried


def _parsed(text: bytes) -> dict[str, Any]:
    """`state.json` as a table, of the present format. Raises ValueError where it is not."""
    try:
        plain = json.loads(text)
    except RecursionError as error:
        raise ValueError(f"{VALUES} is too deep") from error
    if not isinstance(plain, dict):
        raise ValueError(f"{VALUES} holds no table")
    if plain.get("format") != FORMAT:
        raise ValueError(f"its format is {shortened(plain.get('format'))}, expected is {FORMAT}")
    return plain


def _check_arrays(arrays: Tensors, fresh: Tensors) -> None:
    """Raise ValueError unless `arrays` are those of a server that begins with `fresh`: these, and optimiser slots."""
    for name, expected in fresh.items():
        found = arrays.get(name)
        if found is None or (found.shape, found.dtype) != (expected.shape, expected.dtype):
            there = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise ValueError(f"{name} must be {expected.dtype} {list(expected.shape)}, {SERVER} has {there}")
    for name in arrays.keys() - fresh.keys():
        tensor = fresh.get(name.rpartition("/")[0].replace("optimizer/", "model/", 1))
        if (
            not name.startswith("optimizer/")
            or tensor is None
            or arrays[name].shape not in ((), tensor.shape)
        ):
            raise ValueError(
                f"{SERVER} has {name!r} of shape {list(arrays[name].shape)}, which does not belong there"
            )
