"""Driving: the rounds of a coordinator over a link to its devices."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path

from slimfleet.compression import SlimfleetError
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.entries import GaveUp
from slimfleet.coordinator.keeping import Keeper
from slimfleet.coordinator.observing.events import Event, Observer, Planned, Waiting
from slimfleet.coordinator.planning.skips import Skips
from slimfleet.coordinator.receiving.lot import Lot
from slimfleet.coordinator.transport.link import Link
from slimfleet.coordinator.transport.post import POLL_S, Post
from slimfleet.coordinator.transport.registering import PATIENCE_S, Registrar

log = logging.getLogger(__name__)


def drive(
    coordinator: Coordinator,
    link: Link,
    folder: Path | None,
    observers: Sequence[Observer] = (),
    *,
    everyone: bool = False,
) -> None:
    """Run the rounds that are left, and tell `observers` of every event.

    What `folder/checkpoint` holds is taken up, and kept up to date there (`keeping`); None keeps nothing on disk. A
    round begins once enough devices have registered; with `everyone`, as in a simulation, once every node has answered,
    so that the outcome does not depend on who was first, and a power cut may cost what has happened since the last
    step. Raises SlimfleetError where no device can register, and what an observer raises.
    """
    settings, state, environment = coordinator.settings, coordinator.state, coordinator.environment
    keeper = Keeper(coordinator, None if folder is None else folder / "checkpoint", durable=not everyone)
    keeper.begin()
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
    registrar = Registrar(state.registry, link, environment.now_s, keeper.take, expires=not everyone)
    post = Post(link, environment, registrar.listen)
    post.send(state.in_flight.values())  # of a run that was killed: devices do the same again
    if state.open_round is not None:
        tell(_going_on(coordinator, link))
    while state.next_round <= settings.rounds:
        if state.open_round is None:
            for waiting in _gathering(coordinator, link, registrar, everyone):
                log.info("round %d is waiting: %s", state.next_round, waiting.text)
                tell(waiting)
        for event in _until_due(coordinator, link, post, keeper):
            tell(event)
        closed = coordinator.step()
        post.forget({each.dispatch.plan_id for each in closed.answers if each.dispatch is not None})
        tell(closed)
        if (saved := keeper.save()) is not None:
            tell(saved)


def _going_on(coordinator: Coordinator, link: Link) -> Planned:
    """The event of a round that was open when its coordinator was killed. Whom it skipped has been told."""
    return Planned(
        round_number=coordinator.state.next_round,
        dispatches=(),
        skipped=Skips(),
        reachable=coordinator.state.registry.registered(link.nodes()),
        seconds=0.0,
        at=coordinator.instant(),
        settings=coordinator.settings,
        state=coordinator.state,
    )


def _until_due(coordinator: Coordinator, link: Link, post: Post, keeper: Keeper) -> Iterator[Event]:
    """Give out work and take answers until the open round is due, and tell of both."""
    state, environment = coordinator.state, coordinator.environment
    while True:
        if state.open_round is None or coordinator.wanted():
            yield from _planned(coordinator, link, post, keeper)
        if coordinator.is_due(environment.now_s()):
            return
        came = post.next_before(coordinator.next_alarm_s())
        if came is not None:
            if isinstance(came, Lot):
                # Not kept: after a crash its devices do their work again, in the same groups and so to the same bytes.
                yield from coordinator.receive_lot(came)
            else:
                yield from keeper.take(came)
        elif silent := coordinator.silent(environment.now_s()):
            post.forget(silent)
            message = f"silent for {coordinator.settings.round_timeout_s:g} s"
            yield from keeper.take(GaveUp(plan_ids=tuple(silent), reason="timeout", message=message))


def _planned(coordinator: Coordinator, link: Link, post: Post, keeper: Keeper) -> Iterator[Planned]:
    """Give as many devices work as should have some."""
    is_first = coordinator.state.open_round is None
    most, nodes = coordinator.wanted(), link.nodes()
    planned = coordinator.plan(coordinator.environment.now_s(), most, nodes)
    keeper.note(planned)
    post.send(planned.dispatches)
    if is_first and planned.skipped and not planned.dispatches:
        node, skip = next(iter(planned.skipped.items()))
        label = coordinator.state.registry.label(node)
        log.warning("round %d: no plan fits any device; %s: %s", planned.round_number, label, skip.reason)
    if is_first or planned.dispatches:
        yield planned


def _gathering(
    coordinator: Coordinator, link: Link, registrar: Registrar, everyone: bool
) -> Iterator[Waiting]:
    """Ends when a round can begin, or its time is up; tells how many devices there are whenever that changes.

    Nodes that are connected but do not answer are waited for only once, and not for long; all of them, for as long as a
    round may take.
    """
    settings, registry = coordinator.settings, coordinator.state.registry
    needed = settings.selection.min_devices
    until = time.monotonic() + settings.round_timeout_s
    told = -1
    while True:
        nodes = link.nodes()
        registrar.ask(nodes)
        came = registrar.listen()
        ready = len(nodes) - len(registry.missing(nodes))
        awaited = registrar.awaits(nodes, inf if everyone else PATIENCE_S)
        if len(nodes) >= needed:
            if not len(registry) and registrar.problems.keys() >= set(nodes):
                raise SlimfleetError(_nobody(registrar, len(nodes)))
            if ready and (not awaited or (ready >= needed and not everyone)):
                return
        if time.monotonic() >= until:
            if registrar.problems and not len(registry):
                raise SlimfleetError(_nobody(registrar, len(nodes)))
            return
        if ready != told and ready < needed:
            told = ready
            yield Waiting(ready=ready, needed=needed)
        if not came:
            time.sleep(POLL_S)


def _nobody(registrar: Registrar, nodes: int) -> str:
    problem = list(registrar.problems.values())[-1] if registrar.problems else "nothing"
    return f"none of {nodes} devices could register; the last one said: {problem}"
