"""Run over a Flower grid: our simulation's, Flower's own, or a real SuperLink's."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from flwr.app import Message
from flwr.serverapp import Grid

from slimfleet.compression import PayloadError, SlimfleetError
from slimfleet.coordinator.checkpoint import checkpoints, restore_checkpoint, save_checkpoint
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.observing.events import Event, Observer, Planned
from slimfleet.coordinator.transport.flower.messages import (
    deliver,
    registration_in,
    registration_request,
    train_messages,
)

POLL_S = 0.05
"""Pause between two looks for answers, where none had come."""

log = logging.getLogger(__name__)


def run(
    coordinator: Coordinator, grid: Grid, folder: Path | None, observers: Sequence[Observer] = ()
) -> None:
    """Run the rounds that are left, and tell `observers` of every event.

    A run resumes from a checkpoint in `folder/checkpoint`, and writes one after every round; None keeps nothing on
    disk. Raises SlimfleetError where no device can register, and what an observer raises.
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

    while state.next_round <= settings.rounds:
        nodes = _reachable(coordinator, grid)
        _register(coordinator, grid, nodes)
        planned = coordinator.plan(environment.now_s(), settings.selection.per_round, nodes)
        tell(planned)
        plan_ids = {dispatch.node: dispatch.plan_id for dispatch in planned.dispatches}
        for reply in _replies(coordinator, grid, planned):
            # A node without a dispatch of this round has no plan id: its answer counts as a replay.
            tell(deliver(coordinator, plan_ids.get(reply.metadata.src_node_id, -1), reply))
        for answer in coordinator.give_up("timeout", f"silent for {settings.round_timeout_s:g} s"):
            tell(answer)
        tell(coordinator.step(environment.now_s()))
        if kept is not None:
            tell(save_checkpoint(kept, state, environment))


def _reachable(coordinator: Coordinator, grid: Grid) -> list[int]:
    """The grid's nodes, once there are enough of them or the round's time is up."""
    settings = coordinator.settings
    until = time.monotonic() + settings.round_timeout_s
    nodes = list(grid.get_node_ids())
    while len(nodes) < settings.selection.min_devices and time.monotonic() < until:
        time.sleep(POLL_S)
        nodes = list(grid.get_node_ids())
    return nodes


def _register(coordinator: Coordinator, grid: Grid, nodes: list[int]) -> None:
    """Register the devices among `nodes` that are new."""
    registry = coordinator.state.registry
    requests = [registration_request(node) for node in registry.missing(nodes)]
    if not requests:
        return
    problem = "nothing"
    for reply in grid.send_and_receive(requests, timeout=coordinator.settings.round_timeout_s):
        node = reply.metadata.src_node_id
        try:
            registration = registration_in(reply)
        except PayloadError as error:
            problem = str(error)
            log.warning("node %d could not register: %s", node, error)
        else:
            registry.register(node, registration.profile, registration.examples)
    if not len(registry):
        raise SlimfleetError(f"none of {len(requests)} devices could register; the last one said: {problem}")


def _replies(coordinator: Coordinator, grid: Grid, planned: Planned) -> Iterator[Message]:
    """Push the work and yield replies as they come, until all are in or the time is up."""
    messages = train_messages(planned.dispatches)
    if not messages:
        return
    waiting = set(grid.push_messages(messages))
    until = time.monotonic() + coordinator.settings.round_timeout_s
    while waiting and time.monotonic() < until:
        some = False
        for reply in grid.pull_messages(waiting):
            some = True
            waiting.discard(reply.metadata.reply_to_message_id)
            yield reply
        if not some:
            time.sleep(POLL_S)
