"""Run a scenario: a real coordinator and real device logic over a virtual fleet in virtual time."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from slimfleet.compression import BadInput
from slimfleet.compression.files import write_atomically
from slimfleet.coordinator import Coordinator
from slimfleet.coordinator.checkpoint import checkpoints, restore_checkpoint, save_checkpoint
from slimfleet.coordinator.learning.outcome import RoundRow
from slimfleet.coordinator.observing.prometheus import Metrics
from slimfleet.coordinator.transport.flower.app import server_app
from slimfleet.simulations.baseline import baseline_of
from slimfleet.simulations.faults import assign_faults
from slimfleet.simulations.fleet import build_fleet
from slimfleet.simulations.grids.client_app import virtual_client_app
from slimfleet.simulations.grids.flower import SERVER_NODE, Engine, EngineGrid, context_of
from slimfleet.simulations.grids.local import LocalEngine
from slimfleet.simulations.outcome import DeviceRow, RunRecord
from slimfleet.simulations.outputs import write_outputs
from slimfleet.simulations.scenario import build_task_of, load_scenario
from slimfleet.simulations.settings import Scenario
from slimfleet.simulations.world import VirtualWorld, node_of

Backend = Literal["local", "ray"]


class Watcher(Protocol):
    """Is told how a run goes."""

    def began(self, title: str, first_round: int, rounds: int) -> None:
        """A run is about to open its first round."""
        ...

    def closed(self, row: RoundRow) -> None:
        """A round has been closed."""
        ...


def simulate(
    scenario: Scenario,
    out: Path,
    *,
    backend: Backend = "local",
    baseline: bool = False,
    resume: bool = False,
    watcher: Watcher | None = None,
    metrics: Metrics | None = None,
) -> tuple[RunRecord, RunRecord | None]:
    """Run `scenario` and leave its results in the folder `out`.

    With `baseline`, plain float32 federated averaging runs first on the same devices, data and seed. With `resume`
    a run that was killed goes on from its last checkpoint in `out`, to the same model bytes as if it had not been.

    Returns the run's record and the baseline's. Raises BadInput where the scenario or the folder cannot be used.
    """
    _check(scenario)
    _prepare(out, scenario, resume)
    reference = None
    if baseline:
        plain = baseline_of(scenario)
        reference, _ = _run(plain, out / "baseline", backend, resume, "baseline", watcher, None)
    record, coordinator = _run(scenario, out, backend, resume, scenario.coordinator.name, watcher, metrics)
    write_outputs(out, record, reference, scenario.to_toml(), coordinator.published())
    return record, reference


def resumed_scenario(out: Path) -> Scenario:
    """The scenario that a run in `out` was started with."""
    path = out / "scenario.toml"
    if not path.is_file():
        raise BadInput(f"{out} holds no scenario.toml: there is no run to resume in it")
    return load_scenario(str(path))


def _run(
    scenario: Scenario,
    out: Path,
    backend: Backend,
    resume: bool,
    title: str,
    watcher: Watcher | None,
    metrics: Metrics | None,
) -> tuple[RunRecord, Coordinator]:
    began = time.perf_counter()
    settings = scenario.coordinator
    fleet = build_fleet(scenario.fleet, scenario.coordinator.seed)
    world = VirtualWorld(fleet, settings.budget.common.deadline_s)
    coordinator = Coordinator(build_task_of(scenario), settings, world, metrics)
    if resume and checkpoints(out / "checkpoint"):
        restore_checkpoint(out / "checkpoint", coordinator)
    if watcher is not None:
        watcher.began(title, coordinator.next_round, settings.rounds)

    def after_round(row: RoundRow) -> None:
        save_checkpoint(out / "checkpoint", coordinator)
        if watcher is not None:
            watcher.closed(row)

    engine = _engine(scenario, out / "devices", backend)
    try:
        grid = EngineGrid([node_of(device.number) for device in fleet], engine)
        server_app(lambda _: coordinator, after_round)(grid=grid, context=context_of(SERVER_NODE, {}))
    finally:
        engine.close()
    return _record(scenario, backend, coordinator, world, time.perf_counter() - began), coordinator


def _engine(scenario: Scenario, state: Path, backend: Backend) -> Engine:
    state.mkdir(parents=True, exist_ok=True)
    if backend == "local":
        return LocalEngine(virtual_client_app(scenario, state))
    from slimfleet.simulations.grids.ray import RayEngine

    workers = scenario.run.workers or os.cpu_count() or 1
    make_app = partial(virtual_client_app, scenario, state.absolute())
    return RayEngine(make_app, workers, scenario.run.device_timeout_s)


def _check(scenario: Scenario) -> None:
    """Find out what a scenario file cannot know before anything is written: data, task, fleet and faults."""
    build_task_of(scenario).load(0)
    build_fleet(scenario.fleet, scenario.coordinator.seed)
    assign_faults(scenario.fleet.faults, scenario.fleet.devices, scenario.coordinator.seed)


def _prepare(out: Path, scenario: Scenario, resume: bool) -> None:
    """Make the folder ready: a fresh run wants an empty one, a resumed one the same scenario."""
    if resume:
        began_with = resumed_scenario(out)
        if began_with != scenario:
            raise BadInput(
                f"the run in {out} was started with another scenario: resume it with --resume {out} alone"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise BadInput(f"{out} is not empty: choose another folder for the results")
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "scenario.toml", scenario.to_toml().encode())


def _record(
    scenario: Scenario, backend: Backend, coordinator: Coordinator, world: VirtualWorld, wall_time_s: float
) -> RunRecord:
    device_rows = tuple(
        DeviceRow(
            device=record.node - 1,
            name=record.profile.name,
            device_class=record.profile.device_class,
            participations=record.participations,
            skips=record.skips,
            rejections=record.rejections,
            failures=record.failures,
            energy_j=record.energy_j,
            uplink_bytes=record.uplink_bytes,
            downlink_bytes=record.downlink_bytes,
            time_s=record.time_s,
            mean_width=record.width_sum / record.participations if record.participations else None,
            battery_left=world.battery_level(record.node),
            violations=record.violations,
            last_reason=record.last_reason,
        )
        for record in coordinator.registry
    )
    return RunRecord(
        scenario=scenario.coordinator.name,
        seed=scenario.coordinator.seed,
        backend=backend,
        devices=scenario.fleet.devices,
        rows=tuple(coordinator.rows),
        device_rows=device_rows,
        skipped=dict(coordinator.totals.skipped),
        rejected=dict(coordinator.totals.rejected),
        failed=dict(coordinator.totals.failed),
        violations=dict(coordinator.totals.violations),
        energy_source="simulated",
        wall_time_s=wall_time_s,
    )
