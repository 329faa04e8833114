"""Run over a Flower grid: our simulation's, Flower's own, or a real SuperLink's."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid

from slimfleet.compression import SlimfleetError
from slimfleet.coordinator.checkpoint import checkpoints, restore_checkpoint, save_checkpoint
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.observing.events import Event, Observer, Planned, Waiting
from slimfleet.coordinator.transport.flower.messages import deliver, train_messages
from slimfleet.coordinator.transport.flower.registering import PATIENCE_S, Registrar

POLL_S = 0.05
"""Pause between two looks for answers, where none had come."""

log = logging.getLogger(__name__)


def run(
    coordinator: Coordinator,
    grid: Grid,
    folder: Path | None,
    observers: Sequence[Observer] = (),
    *,
    everyone: bool = False,
) -> None:
    """Run the rounds that are left, and tell `observers` of every event.

    A checkpoint in `folder/checkpoint` is taken up, and one is written after every round; None keeps nothing on disk.
    A round begins once enough devices have registered; with `everyone`, once every node has answered, so that the
    outcome does not depend on who was first. Raises SlimfleetError where no device can register, and what an observer
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

    registrar = Registrar(state.registry, grid, environment.now_s)
    while state.next_round <= settings.rounds:
        for waiting in _gathering(coordinator, grid, registrar, everyone):
            log.info("round %d is waiting: %s", state.next_round, waiting.text)
            tell(waiting)
        planned = coordinator.plan(
            environment.now_s(), settings.selection.per_round, list(grid.get_node_ids())
        )
        tell(planned)
        if planned.skipped and not planned.dispatches:
            node, skip = next(iter(planned.skipped.items()))
            label = state.registry.label(node)
            log.warning("round %d: no plan fits any device; %s: %s", state.next_round, label, skip.reason)
        for reply, plan_id in _replies(coordinator, grid, registrar, planned):
            tell(deliver(coordinator, plan_id, reply))
        for answer in coordinator.give_up("timeout", f"silent for {settings.round_timeout_s:g} s"):
            tell(answer)
        tell(coordinator.step(environment.now_s()))
        if kept is not None:
            tell(save_checkpoint(kept, state, environment))


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


def _replies(
    coordinator: Coordinator, grid: Grid, registrar: Registrar, planned: Planned
) -> Iterator[tuple[Message, int]]:
    """Push the work and yield replies as they come, with the plan that each answers, until all are in or the time is
    up. A reply that does not come from the node that was given the work answers no plan, -1: it counts as a replay.
    """
    dispatches = planned.dispatches
    messages = train_messages(dispatches)
    if not messages:
        return
    waiting = dict(zip(grid.push_messages(messages), dispatches, strict=True))
    until = time.monotonic() + coordinator.settings.round_timeout_s
    while waiting and time.monotonic() < until:
        some = False
        for reply in grid.pull_messages(list(waiting)):
            some = True
            dispatch = waiting.pop(reply.metadata.reply_to_message_id, None)
            # The link answers, under a number of its own, for nodes that are gone.
            fits = dispatch is not None and (reply.has_error() or reply.metadata.src_node_id == dispatch.node)
            yield reply, dispatch.plan_id if dispatch is not None and fits else -1
        registrar.listen()
        if not some:
            time.sleep(POLL_S)
