"""Run over a Flower grid: our simulation's, Flower's own, or a real SuperLink's."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path

from flwr.serverapp import Grid

from slimfleet.compression import SlimfleetError
from slimfleet.coordinator.checkpoint import checkpoints, restore_checkpoint, save_checkpoint
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.observing.events import Event, Observer, Planned, Waiting
from slimfleet.coordinator.receiving.lot import Lot
from slimfleet.coordinator.transport.flower.messages import deliver
from slimfleet.coordinator.transport.flower.packing import OneByOne, Packing
from slimfleet.coordinator.transport.flower.post import POLL_S, Post
from slimfleet.coordinator.transport.flower.registering import PATIENCE_S, Registrar

log = logging.getLogger(__name__)


def run(
    coordinator: Coordinator,
    grid: Grid,
    folder: Path | None,
    observers: Sequence[Observer] = (),
    *,
    everyone: bool = False,
    packing: Packing | None = None,
) -> None:
    """Run the rounds that are left, and tell `observers` of every event.

    A checkpoint in `folder/checkpoint` is taken up, and one is written after every round; None keeps nothing on disk.
    A round begins once enough devices have registered; with `everyone`, once every node has answered, so that the
    outcome does not depend on who was first. `packing` says how work travels, by default in a message for each device.
    Raises SlimfleetError where no device can register, and what an observer
    raises.
    """
    settings, state, environment = coordinator.settings, coordinator.state, coordinator.environment
    kept = None if folder is None else folder / "checkpoint"
    if kept is not None and checkpoints(kept):
        restore_checkpoint(kept, state, environment)
    log.info(
        "task %s, rounds %d to %d, %d devices a round, planner %s, selection %s",
        coordinator.task.name,
        state.next_round,
        settings.rounds,
        settings.selection.per_round,
        settings.planner.policy,
        settings.selection.policy,
    )

    def tell(event: Event) -> None:
        for observer in observers:
            observer(event)

    # Validity is counted in wall-clock time, and a run of everyone may be one in virtual time.
    registrar = Registrar(state.registry, grid, environment.now_s, expires=not everyone)
    packing = packing or OneByOne(None if everyone else settings.round_timeout_s)
    post = Post(grid, environment, registrar.listen, packing)
    post.send(state.in_flight.values())  # of a run that was killed: devices do the same again
    while state.next_round <= settings.rounds:
        for waiting in _gathering(coordinator, grid, registrar, everyone):
            log.info("round %d is waiting: %s", state.next_round, waiting.text)
            tell(waiting)
        for event in _until_due(coordinator, grid, post):
            tell(event)
        closed = coordinator.step()
        post.forget({each.dispatch.plan_id for each in closed.answers if each.dispatch is not None})
        tell(closed)
        if kept is not None:
            tell(save_checkpoint(kept, state, environment))


def _until_due(coordinator: Coordinator, grid: Grid, post: Post) -> Iterator[Event]:
    """Give out work and take answers until the open round is due, and tell of both."""
    state, environment = coordinator.state, coordinator.environment
    while True:
        if state.open_round is None or coordinator.wanted():
            yield from _planned(coordinator, grid, post)
        if coordinator.is_due(environment.now_s()):
            return
        came = post.next_before(coordinator.next_alarm_s())
        if came is not None:
            plan_id, reply = came
            if isinstance(reply, Lot):
                yield from coordinator.receive_lot(reply)
            else:
                yield deliver(coordinator, plan_id, reply)
            continue
        silent = coordinator.expire(environment.now_s())
        post.forget({each.dispatch.plan_id for each in silent if each.dispatch is not None})
        yield from silent


def _planned(coordinator: Coordinator, grid: Grid, post: Post) -> Iterator[Planned]:
    """Give as many devices work as should have some."""
    is_first = coordinator.state.open_round is None
    most, nodes = coordinator.wanted(), list(grid.get_node_ids())
    planned = coordinator.plan(coordinator.environment.now_s(), most, nodes)
    post.send(planned.dispatches)
    if is_first and planned.skipped and not planned.dispatches:
        node, skip = next(iter(planned.skipped.items()))
        label = coordinator.state.registry.label(node)
        log.warning("round %d: no plan fits any device; %s: %s", planned.round_number, label, skip.reason)
    if is_first or planned.dispatches:
        yield planned


def _gathering(
    coordinator: Coordinator, grid: Grid, registrar: Registrar, everyone: bool
) -> Iterator[Waiting]:
    """Ends when a round can begin, or its time is up; tells how many devices there are whenever that changes.

    Nodes that are connected but do not answer are waited for only once, and not for long.
    """
    settings, registry = coordinator.settings, coordinator.state.registry
    needed = settings.selection.min_devices
    until = time.monotonic() + settings.round_timeout_s
    told = -1
    while True:
        nodes = list(grid.get_node_ids())
        registrar.ask(nodes)
        registrar.listen()
        ready = sum(node in registry for node in nodes)
        awaited = registrar.awaits(nodes, inf if everyone else PATIENCE_S)
        if len(nodes) >= needed:
            if not awaited and not len(registry):
                raise SlimfleetError(_nobody(registrar, len(nodes)))
            if not awaited or (ready >= needed and not everyone):
                return
        if time.monotonic() >= until:
            if registrar.problems and not len(registry):
                raise SlimfleetError(_nobody(registrar, len(nodes)))
            return
        if ready != told and ready < needed:
            told = ready
            yield Waiting(ready=ready, needed=needed)
        time.sleep(POLL_S)


def _nobody(registrar: Registrar, nodes: int) -> str:
    problem = list(registrar.problems.values())[-1] if registrar.problems else "nothing"
    return f"none of {nodes} devices could register; the last one said: {problem}"
