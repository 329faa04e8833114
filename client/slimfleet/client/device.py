"""One device: what it is, what it holds, and how it keeps account of a round."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace

import torch

from slimfleet.client.ledger import Ledger
from slimfleet.client.round import run_round
from slimfleet.client.state import ResidualStore
from slimfleet.client.workbench import Workbench
from slimfleet.compression import Assignment, DeviceProfile, Payload, Report
from slimfleet.compression.messages import Enrolment


@dataclass(frozen=True, slots=True)
class Device:
    """A device that can do rounds. `number` is its partition of the task's data, and names its files."""

    number: int
    profile: DeviceProfile
    workbench: Workbench
    store: ResidualStore
    open_ledger: Callable[[Assignment], Ledger]

    def enrolment(self) -> Enrolment:
        """How this device introduces itself."""
        return Enrolment(profile=self.profile, examples=len(self.workbench.task.load(self.number)))

    def do_round(self, assignment: Assignment, payload: Payload) -> tuple[Payload, Report]:
        """Train, encode, and keep on disk what was left unsent.

        The residual of a round is kept beside the one before it: which of the two holds is known when the
        coordinator says, with the next assignment, whether it accepted the update.

        Raises what `run_round` raises; the residual then stays as it was.
        """
        torch.set_num_threads(1)  # one thread a worker: the same seed gives the same bytes everywhere
        training = assignment.training
        store = replace(self.store, decay=training.feedback_decay, max_age=training.feedback_max_age)
        residual = store.load(self.number, assignment.acknowledged_round, assignment.round_number)
        with torch.random.fork_rng(devices=[]), closing(self.open_ledger(assignment)) as ledger:
            torch.manual_seed((training.seed * 1_000_003 + assignment.plan_id) % 2**63)
            encoded, report, leftover = run_round(
                self.workbench,
                self.profile,
                self.workbench.task.load(self.number),
                assignment,
                payload,
                residual,
                ledger,
            )
        if training.feedback:
            store.save(self.number, assignment.round_number, residual, leftover)
        return encoded, report
