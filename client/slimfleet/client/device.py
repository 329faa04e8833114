"""One device: what it is, what it holds, and how it keeps account of a round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from slimfleet.client.held import Held, HeldStore, kept_with
from slimfleet.client.ledger import Ledger
from slimfleet.client.round import run_round
from slimfleet.client.state import ResidualStore
from slimfleet.client.workbench import SubModel, Workbench
from slimfleet.compression import Assignment, DeviceProfile, Payload, Report
from slimfleet.compression.messages import Registration


@dataclass(frozen=True, slots=True)
class Device:
    """A device that can do rounds. `number` is its partition of the task's data, and names its files."""

    number: int
    profile: DeviceProfile
    workbench: Workbench
    store: ResidualStore
    models: HeldStore
    open_ledger: Callable[[Assignment], Ledger]

    def registration(self) -> Registration:
        """How this device introduces itself."""
        return Registration(profile=self.profile, examples=len(self.workbench.task.load(self.number)))

    def do_round(self, assignment: Assignment, payload: Payload) -> tuple[Payload, Report]:
        """Train, encode, and keep on disk the model that came and what was left unsent.

        The residual of a round is kept beside the one before it: which of the two holds is known when the
        coordinator says, with the next assignment, whether it accepted the update.

        Raises PayloadError where the model cannot be used, and what `run_round` raises; what is on disk then stays as
        it was.
        """
        torch.set_num_threads(1)  # one thread a worker: the same seed gives the same bytes everywhere
        training = assignment.training
        store = replace(self.store, decay=training.feedback_decay, max_age=training.feedback_max_age)
        residual = store.load(self.number, assignment.acknowledged_round, assignment.round_number)
        held = self.models.load(self.number)
        with torch.random.fork_rng(devices=[]), closing(self.open_ledger(assignment)) as ledger:
            torch.manual_seed((training.seed * 1_000_003 + assignment.plan_id) % 2**63)
            received = self.workbench.open(payload, held)
            encoded, report, leftover = run_round(
                self.workbench,
                self.profile,
                self.workbench.task.load(self.number),
                assignment,
                received,
                residual,
                ledger,
            )
        self._hold(received, held, assignment.round_number)
        if training.feedback:
            store.save(self.number, assignment.round_number, residual, leftover)
        return encoded, report

    def _hold(self, received: SubModel, held: Sequence[Held], version: int) -> None:
        """Keep a model that later rounds may send changes of."""
        if received.snapshot is not None:
            newest = Held(version, received.channels, received.snapshot)
            self.models.save(self.number, kept_with(newest, held, received.base_version))
