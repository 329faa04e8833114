"""In-process federation: a coordinator and its devices driven by plain function calls, without transport or files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from slimfleet.client.device import Participant
from slimfleet.compression import BudgetExceeded, PayloadError, PolicyRefusal, Report
from slimfleet.compression.messages import Spent, text_of
from slimfleet.coordinator import Answer, Closed, Coordinator, Dispatch, Planned
from slimfleet.simulations.fleet import BEGIN, Moment
from slimfleet.simulations.population import build_fleet, enrol
from slimfleet.simulations.scenario import build_task_of
from slimfleet.simulations.settings import Scenario
from slimfleet.simulations.virtual_devices import DeviceLost, VirtualDevices
from slimfleet.simulations.world import VirtualWorld, node_of

__all__ = ["InProcess"]


@dataclass(frozen=True, slots=True)
class _Devices(Mapping[int, Participant]):
    """The devices of a virtual fleet by node, each made when it is asked for."""

    devices: VirtualDevices
    count: int
    begun: Mapping[int, Moment]

    def __getitem__(self, node: int) -> Participant:
        if not node_of(0) <= node < node_of(self.count):
            raise KeyError(node)
        return self.devices.device(node - node_of(0), lambda: self.begun.get(node, BEGIN))

    def __iter__(self) -> Iterator[int]:
        return iter(range(node_of(0), node_of(self.count)))

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True, slots=True)
class InProcess:
    """Rounds of `coordinator` over `devices` (node -> device), each done on the calling thread.

    Devices that have not registered do so when this is made.
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
        enrol(coordinator.state.registry, fleet, coordinator.task)
        begun: dict[int, Moment] = {}
        return cls(coordinator, _Devices(VirtualDevices(scenario, state=None), len(fleet), begun), begun)

    def __post_init__(self) -> None:
        registry = self.coordinator.state.registry
        for node in registry.missing(list(self.devices)):
            registration = self.devices[node].registration()
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
