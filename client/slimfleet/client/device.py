"""Device: what it is, what it keeps, and how it does a round."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

import torch

from slimfleet.client.ledger import Ledger
from slimfleet.client.round import run_round
from slimfleet.client.state import DeviceState, Held, Residual, held_with, is_behind, residual_at
from slimfleet.client.store import DeviceStore
from slimfleet.client.workbench import SubModel, Workbench
from slimfleet.compression import Assignment, DeviceProfile, Payload, Report
from slimfleet.compression.messages import Registration

log = logging.getLogger(__name__)


class Participant(Protocol):
    """What takes part in a federation: a `Device`, or something that stands in front of one."""

    def registration(self) -> Registration:
        """How it introduces itself."""
        ...

    def do_round(self, assignment: Assignment, payload: Payload) -> tuple[Payload, Report]:
        """Train on the received model and encode the update."""
        ...


@dataclass(frozen=True, slots=True)
class Device:
    """A device that can do rounds. `number` is its partition of the task's data, and its place in the store."""

    number: int
    profile: DeviceProfile
    workbench: Workbench
    store: DeviceStore
    open_ledger: Callable[[Assignment], Ledger]

    def registration(self) -> Registration:
        """How this device introduces itself."""
        return Registration(profile=self.profile, examples=len(self.workbench.task.load(self.number)))

    def do_round(self, assignment: Assignment, payload: Payload) -> tuple[Payload, Report]:
        """Train, encode, and keep the received model and the new residual for later rounds.

        Raises PayloadError where the model cannot be used, and what `run_round` raises; the stored state then stays as
        it was.
        """
        torch.set_num_threads(1)  # one thread a worker: the same seed gives the same bytes everywhere
        training = assignment.training
        state = self.store.load(self.number)
        if is_behind(assignment, state.residual):
            log.error(
                "device %d: what it kept of round %d is lost, or an older state was put back; it starts again without "
                "a residual",
                self.number,
                assignment.acknowledged_round,
            )
        unsent = residual_at(assignment, state.residual, self.workbench.blueprint.schema)
        with torch.random.fork_rng(devices=[]), closing(self.open_ledger(assignment)) as ledger:
            torch.manual_seed((training.seed * 1_000_003 + assignment.plan_id) % 2**63)
            received = self.workbench.open(payload, state.held)
            encoded, report, leftover = run_round(
                self.workbench,
                self.profile,
                self.workbench.task.load(self.number),
                assignment,
                received,
                unsent,
                ledger,
            )
        held = _held_after(received, state, assignment.round_number)
        residual = (
            Residual(assignment.round_number, unsent, leftover) if training.feedback else state.residual
        )
        if held is not state.held or residual is not state.residual:
            self.store.save(self.number, DeviceState(residual, held))
        return encoded, report


def _held_after(received: SubModel, state: DeviceState, version: int) -> tuple[Held, ...]:
    """What to hold after a round. A model in plain float32 is not held: no change of it is ever sent."""
    if received.snapshot is None:
        return state.held
    return held_with(Held(version, received.channels, received.snapshot), state.held, received.base_version)
