"""In-process federation: a coordinator and its devices driven by plain function calls, without transport or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slimfleet.client.device import Participant
from slimfleet.compression import BudgetExceeded, PayloadError, Report
from slimfleet.compression.messages import Spent, text_of
from slimfleet.coordinator import Answer, Closed, Coordinator, Dispatch, Planned
from slimfleet.simulations.fleet import build_fleet
from slimfleet.simulations.scenario import build_task_of
from slimfleet.simulations.settings import Scenario
from slimfleet.simulations.virtual_devices import DeviceLost, VirtualDevices
from slimfleet.simulations.world import VirtualWorld, node_of

__all__ = ["InProcess"]


@dataclass(frozen=True, slots=True)
class InProcess:
    """Rounds of `coordinator` over `devices` (node -> device), each done on the calling thread.

    The devices are registered when this is made.
    """

    coordinator: Coordinator
    devices: Mapping[int, Participant]

    @classmethod
    def of(cls, scenario: Scenario) -> InProcess:
        """The coordinator and the virtual fleet of a scenario."""
        fleet = build_fleet(scenario.fleet, scenario.coordinator.seed)
        coordinator = Coordinator(build_task_of(scenario), scenario.coordinator, VirtualWorld(fleet))
        devices = VirtualDevices(scenario, state=None)
        return cls(coordinator, {node_of(each.number): devices.device(each.number) for each in fleet})

    def __post_init__(self) -> None:
        for node, device in self.devices.items():
            registration = device.registration()
            self.coordinator.state.registry.register(node, registration.profile, registration.examples)

    def plan(self) -> Planned:
        """Put as many dispatches in flight as should be; those of the next round, where none is open."""
        return self.coordinator.plan(self.coordinator.environment.now_s(), self.coordinator.wanted())

    def work(self, dispatch: Dispatch) -> Answer:
        """Let a device do its dispatch, and hand what it answers to the coordinator when it arrives."""
        coordinator, plan_id = self.coordinator, dispatch.plan_id
        try:
            payload, report = self.devices[dispatch.node].do_round(dispatch.assignment, dispatch.payload)
        except BudgetExceeded as refusal:
            self._arrive(dispatch, refusal.spent)
            return coordinator.fail(plan_id, refusal.constraint, str(refusal), refusal.spent)
        except PayloadError as refusal:
            self._arrive(dispatch, refusal.spent)
            return coordinator.fail(plan_id, refusal.reason, str(refusal), refusal.spent)
        except DeviceLost as lost:
            self._arrive(dispatch, None)
            return coordinator.fail(plan_id, "dropout", str(lost))
        self._arrive(dispatch, report)
        return coordinator.receive(plan_id, payload, text_of(report))

    def step(self) -> Closed:
        """Fold the answers that have come; work that is still in flight is given up."""
        self.coordinator.give_up("timeout", "no answer before the step")
        return self.coordinator.step()

    def round(self) -> Closed:
        """A whole round."""
        for dispatch in self.plan().dispatches:
            self.work(dispatch)
        return self.step()

    def _arrive(self, dispatch: Dispatch, told: Report | Spent | None) -> None:
        """Let time pass until an answer comes."""
        cost = told.spent if isinstance(told, Report) else told.cost if told is not None else None
        environment = self.coordinator.environment
        arrival_s = environment.arrival_s(dispatch, None if cost is None else cost.time_s)
        environment.reach(arrival_s, more_may_come=False)
