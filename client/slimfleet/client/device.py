"""Device: what it is, what it keeps, and how it does a round."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from slimfleet.client.governor.memory import within_memory
from slimfleet.client.ledger import Balance, Ledger
from slimfleet.client.round import Round, run_round
from slimfleet.client.state import DeviceState, Held, Residual, held_with, is_behind, residual_at
from slimfleet.client.store import DeviceStore
from slimfleet.client.watch import UNWATCHED, Watch, WatchedLedger
from slimfleet.client.workbench import SubModel, Workbench
from slimfleet.compression import (
    Assignment,
    BudgetExceeded,
    Cost,
    DeviceProfile,
    Examples,
    Payload,
    PayloadError,
    PolicyRefusal,
    Report,
    Tensors,
    Training,
)
from slimfleet.compression.held_out import LocalData, divided
from slimfleet.compression.messages import Registration, Spent
from slimfleet.compression.threads import torch_threads
from slimfleet.compression.types import Condition, Startup

log = logging.getLogger(__name__)


class Participant(Protocol):
    """What takes part in a federation: a `Device`, or something that stands in front of one."""

    def registration(self) -> Registration:
        """Its profile and number of examples."""
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
    startup: Callable[[], Startup] = Startup
    """What has been spent so far on the message that is being answered."""
    threads: int = 1
    """Threads that torch computes on. With more than one, the same seed may give other bytes."""
    share: int | None = None
    """The partition, where it is not `number`."""
    watch: Watch = UNWATCHED
    """Its own policy, which no assignment overrides, and its senses."""

    def registration(self) -> Registration:
        """How this device introduces itself."""
        examples = len(self._examples())
        condition = self.watch.condition(0, Balance(energy_j=0.0, radio_j=0.0, time_s=0.0))
        return Registration(
            profile=self.profile, examples=examples, startup=self.startup(), condition=condition
        )

    def do_round(self, assignment: Assignment, payload: Payload) -> tuple[Payload, Report]:
        """Train, encode, and keep the received model and the new residual for later rounds.

        Raises PolicyRefusal where the device's own policy forbids the round or the rest of it, PayloadError where the
        model cannot be used, and what `run_round` raises, with what was spent by then. The stored state then stays as
        it was.
        """
        with torch_threads(self.threads):
            return self._round(assignment, payload)

    def _examples(self) -> Examples:
        return self.workbench.loaded.of(self._partition)

    def data(self, training: Training) -> LocalData:
        """Its examples, and those of them that a round of this training holds out."""
        return divided(self._examples(), training.held_out, training.seed, self._partition)

    @property
    def _partition(self) -> int:
        return self.number if self.share is None else self.share

    def take_up(self, assignment: Assignment, payload: Payload) -> TakenUp:
        """Open the account of a round and look up what is kept from earlier ones. Nothing has been trained yet.

        Its memory is what the budget allows and what the device has left.
        """
        state = self.store.load(self.number)
        if is_behind(assignment, state.residual):
            log.error(
                "device %d: what it kept of round %d is lost, or an older state was put back; it starts again without "
                "a residual",
                self.number,
                assignment.acknowledged_round,
            )
        unsent = residual_at(assignment, state.residual, self.workbench.blueprint.schema.moving)
        account = self.open_ledger(assignment)
        free_bytes = self.watch.condition(assignment.round_number, account.balance()).free_memory_bytes
        assignment = replace(assignment, budget=within_memory(assignment.budget, free_bytes))
        ledger = WatchedLedger(account, self.watch, assignment.round_number, assignment.budget.deadline_s)
        return TakenUp(self, assignment, payload, state, unsent, account, ledger)

    def _round(self, assignment: Assignment, payload: Payload) -> tuple[Payload, Report]:
        taken = self.take_up(assignment, payload)
        with taken.charged(), taken.drawing():
            assignment = taken.assignment
            taken.begin()
            received = self.workbench.open(payload, taken.state.held)
            encoded, report, leftover = run_round(
                self.workbench,
                self.profile,
                self.data(assignment.training),
                assignment,
                received,
                taken.unsent,
                taken.ledger,
            )
        return encoded, taken.done(received, report, leftover)


@dataclass(frozen=True, slots=True)
class TakenUp:
    """A round that a device has taken up: its account, and what it keeps for its end."""

    device: Device
    assignment: Assignment
    payload: Payload
    state: DeviceState
    """As it was stored."""
    unsent: Tensors
    """The residual that holds as the round begins."""
    account: Ledger
    ledger: WatchedLedger
    """The account under the watch of the device's policy."""

    @contextmanager
    def charged(self) -> Iterator[None]:
        """Tell a refusal raised inside what has been spent by then; whatever else is raised closes the account too."""
        try:
            yield
        except (BudgetExceeded, PayloadError, PolicyRefusal) as refusal:
            refusal.spent = _spent(self.ledger, len(self.payload), self._condition())
            raise
        except BaseException:
            self.account.close()
            raise

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Let torch draw as it does in this round, and afterwards as before."""
        with torch.random.fork_rng(devices=[]):
            training = self.assignment.training
            # Of the processor alone: `torch.manual_seed` notes the call stack for each kind of GPU that is not there.
            torch.default_generator.manual_seed((training.seed * 1_000_003 + self.assignment.plan_id) % 2**63)
            yield

    def begin(self) -> None:
        """Raise PolicyRefusal where the device's policy forbids the round. Its model has been received all the same."""
        try:
            self.device.watch.check(self.assignment.round_number, self.account.balance())
        except PolicyRefusal:
            self.account.download(len(self.payload))
            raise

    def round(self, received: SubModel) -> Round:
        """The round, now that its model is there."""
        device, training = self.device, self.assignment.training
        data = device.data(training)
        return Round(
            device.workbench, device.profile, data, self.assignment, received, self.unsent, self.ledger
        )

    def done(self, received: SubModel, report: Report, leftover: Tensors) -> Report:
        """Keep the received model and the new residual for later rounds; the report with the device's condition."""
        number, state = self.assignment.round_number, self.state
        report = replace(report, condition=self._condition())
        self.account.close()
        held = _held_after(received, state, number)
        feedback = self.assignment.training.feedback
        residual = Residual(number, self.unsent, leftover) if feedback else state.residual
        if held is not state.held or residual is not state.residual:
            self.device.store.save(self.device.number, DeviceState(residual, held))
        return report

    def _condition(self) -> Condition:
        return self.device.watch.condition(self.assignment.round_number, self.ledger.balance())


def _spent(ledger: Ledger, received_bytes: int, condition: Condition) -> Spent:
    """What a refused round has cost; its memory is not told."""
    balance, _ = ledger.close()
    return Spent(
        cost=Cost(
            energy_j=balance.energy_j,
            radio_j=balance.radio_j,
            time_s=balance.time_s,
            memory_bytes=0,
            uplink_bytes=0,
            downlink_bytes=received_bytes,
        ),
        startup=balance.startup,
        condition=condition,
    )


def _held_after(received: SubModel, state: DeviceState, version: int) -> tuple[Held, ...]:
    """What to hold after a round. A model in plain float32 is not held: no change of it is ever sent."""
    if received.snapshot is None:
        return state.held
    return held_with(Held(version, received.channels, received.snapshot), state.held, received.base_version)
