"""In-process federation: a coordinator and its devices driven by plain function calls, without transport or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slimfleet.client.device import Participant
from slimfleet.compression import BudgetExceeded, PayloadError
from slimfleet.compression.messages import text_of
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.observing.events import Closed, Planned
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.sending.dispatch import Dispatch


@dataclass(frozen=True, slots=True)
class InProcess:
    """Rounds of `coordinator` over `devices` (node -> device), each done on the calling thread.

    The devices are registered when this is made.
    """

    coordinator: Coordinator
    devices: Mapping[int, Participant]

    def __post_init__(self) -> None:
        for node, device in self.devices.items():
            registration = device.registration()
            self.coordinator.state.registry.register(node, registration.profile, registration.examples)

    def plan(self) -> Planned:
        """Put the next round's dispatches in flight."""
        per_round = self.coordinator.settings.selection.per_round
        return self.coordinator.plan(self.coordinator.environment.now_s(), per_round)

    def work(self, dispatch: Dispatch) -> Answer:
        """Let a device do its dispatch, and hand what it answers to the coordinator."""
        try:
            payload, report = self.devices[dispatch.node].do_round(dispatch.assignment, dispatch.payload)
        except BudgetExceeded as refusal:
            return self.coordinator.fail(dispatch.plan_id, refusal.constraint, str(refusal))
        except PayloadError as refusal:
            return self.coordinator.fail(dispatch.plan_id, refusal.reason, str(refusal))
        return self.coordinator.receive(dispatch.plan_id, payload, text_of(report))

    def step(self) -> Closed:
        """Fold the answers that have come; work that is still in flight is given up."""
        self.coordinator.give_up("timeout", "no answer before the step")
        return self.coordinator.step(self.coordinator.environment.now_s())

    def round(self) -> Closed:
        """A whole round."""
        for dispatch in self.plan().dispatches:
            self.work(dispatch)
        return self.step()
