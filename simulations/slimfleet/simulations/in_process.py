"""In-process federation: a coordinator and its devices driven by plain function calls, without transport or files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from slimfleet.client.device import Participant
from slimfleet.compression import BudgetExceeded, PayloadError, PolicyRefusal, Report
from slimfleet.compression.messages import Spent, text_of
from slimfleet.coordinator import Answer, Closed, Coordinator, Dispatch, Planned
from slimfleet.simulations.fleet import BEGIN, Moment, build_fleet
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
    begun: dict[int, Moment] = field(default_factory=dict)
    """Node -> when, in virtual time, its device began its last dispatch."""

    @classmethod
    def of(cls, scenario: Scenario) -> InProcess:
        """The coordinator and the virtual fleet of a scenario."""
        fleet = build_fleet(scenario.fleet, scenario.coordinator.seed)
        world = VirtualWorld(fleet)
        coordinator = Coordinator(build_task_of(scenario), scenario.coordinator, world)
        devices = VirtualDevices(scenario, state=None)
        numbers = {node_of(each.number): each.number for each in fleet}
        begun = dict.fromkeys(numbers, BEGIN)
        reached = {node: devices.device(n, partial(begun.__getitem__, node)) for node, n in numbers.items()}
        return cls(coordinator, reached, begun)

    def __post_init__(self) -> None:
        for node, device in self.devices.items():
            registration = device.registration()
            registry = self.coordinator.state.registry
            registry.register(node, registration.profile, registration.examples)
            registry[node].hear(registration.condition, self.coordinator.environment.now_s())

    def plan(self) -> Planned:
        """Put as many dispatches in flight as should be; those of the next round, where none is open."""
        world = self.coordinator.environment
        planned = self.coordinator.plan(world.now_s(), self.coordinator.wanted())
        if isinstance(world, VirtualWorld):
            self.begun.update(
                {each.node: world.moment(each.node, each.sent_s) for each in planned.dispatches}
            )
        return planned

    def work(self, dispatch: Dispatch) -> Answer:
        """Let a device do its dispatch, and hand what it answers to the coordinator when it arrives."""
        coordinator, plan_id = self.coordinator, dispatch.plan_id
        try:
            payload, report = self.devices[dispatch.node].do_round(dispatch.assignment, dispatch.payload)
        except BudgetExceeded as refusal:
            self._arrive(dispatch, refusal.spent)
            return coordinator.fail(plan_id, refusal.constraint, str(refusal), refusal.spent)
        except (PolicyRefusal, PayloadError) as refusal:
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
