"""Run of a scenario: a real coordinator and real device logic over a virtual fleet in virtual time."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

from slimfleet.client.cohort.rule import usual_group
from slimfleet.client.cohort.training import torch_device
from slimfleet.compression import BadInput, Plan, SlimfleetError
from slimfleet.compression.files import naming
from slimfleet.coordinator import Coordinator, CoordinatorSettings, Observer
from slimfleet.coordinator.checkpoint import closed_rounds
from slimfleet.coordinator.learning.row import why_nothing_was_used
from slimfleet.coordinator.observing.rounds import RoundsCsv
from slimfleet.coordinator.reporting import RunRecord, record_of, write_outputs
from slimfleet.coordinator.transport.flower import run
from slimfleet.coordinator.transport.flower.packing import Packing
from slimfleet.simulations.faults import assign_faults
from slimfleet.simulations.fleet import Moment
from slimfleet.simulations.grids.cohort.packing import CohortPacking
from slimfleet.simulations.grids.flower import Engine, EngineGrid, fleet_app
from slimfleet.simulations.grids.local import LocalEngine
from slimfleet.simulations.population import Population, build_fleet, enrol
from slimfleet.simulations.results_folder import keep_scenario, refuse_edited, refuse_used, results_folder
from slimfleet.simulations.scenario import baseline_settings, build_task_of, load_scenario
from slimfleet.simulations.settings import Scenario
from slimfleet.simulations.world import VirtualWorld, node_of

__all__ = ["Backend", "resumed_scenario", "simulate"]

Backend = Literal["local", "ray"]


def simulate(
    scenario: Scenario,
    out: Path,
    *,
    backend: Backend = "local",
    baseline: bool = False,
    resume: bool = False,
    observers: Sequence[Observer] = (),
    progress: Observer | None = None,
) -> tuple[RunRecord, RunRecord | None]:
    """Run `scenario` and leave its results in the folder `out`.

    With `baseline`, plain float32 federated averaging runs first on the same devices, data and seed. With `resume`,
    a run that was killed continues from its last checkpoint in `out`, to the same model bytes as if it had not been;
    it may be given other rounds than it began with. `observers` are told of the scenario's events, `progress` of the
    baseline's too.

    Returns the run's record and the baseline's. Raises BadInput where the scenario, the folder or the Ray cluster that
    the scenario names cannot be used, or another process runs in the folder; DiskError where the disk refuses, after
    which the run can be resumed; and SlimfleetError, with a results folder without a model, where no update was ever
    used.
    """
    fleet = _checked(scenario)
    with _cluster(scenario, backend), results_folder(out, resume):
        _prepare(out, scenario, resume)
        watching = [] if progress is None else [progress]
        reference = None
        if baseline:
            settings = baseline_settings(scenario)
            reference, _ = _run(scenario, settings, fleet, out / "baseline", backend, watching)
        watching = [RoundsCsv(out), *observers, *watching]
        record, coordinator = _run(scenario, scenario.coordinator, fleet, out, backend, watching)
        nothing = why_nothing_was_used(coordinator.state)
        model = coordinator.published() if nothing is None else None
        write_outputs(out, record, reference, scenario.to_toml(), model, coordinator.state.best_model)
    if nothing is not None:
        raise SlimfleetError(f"{nothing}; no model is published, the other results are in {out}")
    return record, reference


def resumed_scenario(out: Path, rounds: int | None = None, ray_address: str | None = None) -> Scenario:
    """The scenario that a run in `out` was started with; of other rounds or on another cluster where they are given."""
    path = out / "scenario.toml"
    with naming(path, "read"):
        there = path.is_file()
    if not there:
        raise BadInput(f"{out} holds no scenario.toml: there is no run to resume in it")
    other = {"rounds": rounds, "run.ray_address": ray_address}
    return load_scenario(
        str(path), {key: json.dumps(value) for key, value in other.items() if value is not None}
    )


def _checked(scenario: Scenario) -> Population:
    """The fleet. Refuses what a scenario file cannot know before anything is written: data, task, fleet and faults."""
    seed = scenario.coordinator.seed
    fleet = build_fleet(scenario.fleet, seed)
    assign_faults(scenario.fleet.faults, scenario.fleet.devices, seed)
    build_task_of(scenario).rehearse(scenario.partitions, seed)
    return fleet


def _cluster(scenario: Scenario, backend: Backend) -> AbstractContextManager[None]:
    """The Ray cluster that the scenario names, found fit before anything is written; a run's own Ray starts later."""
    if backend == "local" or not scenario.run.ray_address:
        return nullcontext()
    from slimfleet.simulations.grids.ray_cluster import existing_ray

    return existing_ray(scenario.run.ray_address)


def _prepare(out: Path, scenario: Scenario, resume: bool) -> None:
    """Make the folder ready: a fresh run wants an empty one, a resumed one the same scenario but for its rounds."""
    if resume:
        refuse_edited(out, scenario)
        rounds, done = scenario.coordinator.rounds, closed_rounds(out / "checkpoint")
        if rounds < done:
            raise BadInput(
                f"--rounds {rounds}: the run in {out} has {done} rounds already; give at least {done}"
            )
    else:
        refuse_used(out)
    keep_scenario(out, scenario)


def _run(
    scenario: Scenario,
    settings: CoordinatorSettings,
    fleet: Population,
    out: Path,
    backend: Backend,
    observers: Sequence[Observer],
) -> tuple[RunRecord, Coordinator]:
    world = VirtualWorld(fleet)
    coordinator = Coordinator(build_task_of(scenario), settings, world)
    enrol(coordinator.state.registry, fleet, coordinator.task)
    engine = _engine(scenario, out / "devices", backend)
    try:
        grid = EngineGrid(range(node_of(0), node_of(len(fleet))), engine, partial(_begun, coordinator, world))
        packing = _packing(scenario, coordinator, world, backend)
        run(coordinator, grid, out, observers, everyone=True, packing=packing)
    finally:
        engine.close()
    record = record_of(coordinator, scenario.coordinator.name, backend, first_node=node_of(0))
    return record, coordinator


def _begun(coordinator: Coordinator, world: VirtualWorld, nodes: Sequence[int]) -> dict[int, Moment]:
    """When devices begin what they are sent: at its dispatch, also where a resumed run sends that again."""
    sent_s = {each.node: each.sent_s for each in coordinator.state.in_flight.values()}
    return {node: world.moment(node, sent_s.get(node, world.now_s())) for node in nodes}


def _engine(scenario: Scenario, devices: Path, backend: Backend) -> Engine:
    """The engine that does the devices' work; their state between rounds is in the folder `devices`."""
    with naming(devices):
        devices.mkdir(parents=True, exist_ok=True)
    if backend == "local":
        return LocalEngine(fleet_app(scenario, devices))
    from slimfleet.simulations.grids.ray import RayEngine  # only this backend needs Ray

    return RayEngine(partial(fleet_app, scenario), devices.absolute(), scenario.run)


def _workers(scenario: Scenario, backend: Backend) -> int:
    """Processes that train devices."""
    return 1 if backend == "local" else scenario.run.workers or os.cpu_count() or 1


def _packing(
    scenario: Scenario, coordinator: Coordinator, world: VirtualWorld, backend: Backend
) -> Packing | None:
    """How work travels; None for a message a device."""
    if scenario.run.engine == "loop":
        return None
    # Ray hides the GPUs of a machine from its workers.
    where = torch_device(scenario.run.device if backend == "local" else "cpu")

    def group_size(plan: Plan) -> int:
        work = coordinator.cost_model.works[plan.width]
        return scenario.run.group_size or usual_group(work, plan.batch_size, where)

    moments = partial(_begun, coordinator, world)
    return CohortPacking(coordinator, moments, group_size, _workers(scenario, backend))
