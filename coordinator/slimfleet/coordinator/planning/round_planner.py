"""Who takes part in a round and what each is asked to do: selection, budgets and planning in one pass."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from slimfleet.compression import Assignment, Budget, Plan, Skip
from slimfleet.compression.cost import CostModel, Work
from slimfleet.coordinator.environment import Environment, Status
from slimfleet.coordinator.learning.calibration import Calibration
from slimfleet.coordinator.planning import POLICIES as PLANNERS
from slimfleet.coordinator.planning import History
from slimfleet.coordinator.planning.selection import POLICIES as SELECTIONS
from slimfleet.coordinator.planning.selection import Candidate, eligible
from slimfleet.coordinator.registry import DeviceRecord, Registry
from slimfleet.coordinator.sending.dispatch import Dispatch, Downlink
from slimfleet.coordinator.settings import CoordinatorSettings

MEMORY_SHARE = 0.8
"""Share of a device's memory that training may take. A board with 512 MB and no desktop keeps some 80 MB for its
system; larger devices have more to spare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundPlan:
    """Who does what in a round, and who does nothing and why."""

    dispatches: list[Dispatch]
    skipped: dict[int, Skip]
    """Node -> the constraint that left it without a plan."""
    reachable: frozenset[int]
    eligible: frozenset[int]
    """Those of the reachable that selection may choose: none with a battery below its floor."""


@dataclass(frozen=True, slots=True)
class RoundPlanner:
    """Plans rounds from what the coordinator knows. What it finds out (battery, reason) it notes in the registry."""

    settings: CoordinatorSettings
    registry: Registry
    calibration: Calibration
    environment: Environment

    def plan_round(
        self, number: int, nodes: Sequence[int], cost_model: CostModel, downlink: Downlink
    ) -> RoundPlan:
        """Go down the selected order until enough devices have a plan; the others on the way are skipped."""
        planner = PLANNERS[self.settings.planner](self.settings.planner_settings)
        statuses = {node: status for node in nodes if (status := self.environment.status(node, number))}
        order = self._order(number, statuses, cost_model.works[1.0])
        dispatches: list[Dispatch] = []
        skipped: dict[int, Skip] = {}
        for node in order:
            if len(dispatches) == self.settings.selection.per_round:
                break
            record = self.registry[node]
            limits = self._limits(record, statuses[node], number)
            history = History(
                examples=record.examples,
                correction=self.calibration.correction(str(node), record.profile.device_class),
                downlink_bytes=self._downlink_bytes(record, downlink),
            )
            choice = planner.plan(record.profile, limits, cost_model, history)
            record.last_reason = choice.reason
            if isinstance(choice, Skip):
                skipped[node] = choice
            else:
                dispatches.append(self._dispatch(number, record, choice, limits, cost_model, downlink))
        return RoundPlan(
            dispatches=dispatches,
            skipped=skipped,
            reachable=frozenset(statuses),
            eligible=frozenset(order),
        )

    def _downlink_bytes(self, record: DeviceRecord, downlink: Downlink) -> dict[float, int]:
        """What each width would cost this device, given what it holds. The fixed policy does not ask."""
        if self.settings.planner == "fixed":
            return {}
        return downlink.sizes(self.settings.planner_settings.widths, record.holding)

    def _order(self, number: int, statuses: dict[int, Status], work: Work) -> list[int]:
        """The eligible nodes, in the order in which to ask them."""
        settings = self.settings.selection
        candidates = []
        for node, status in sorted(statuses.items()):
            record = self.registry[node]
            record.battery = status.battery
            candidates.append(
                Candidate(
                    node=node,
                    round_j=_full_round_j(record, work),
                    loss=record.loss,
                    battery=status.battery,
                    charging=status.charging,
                )
            )
        rng = np.random.default_rng((self.settings.seed, number, 1))
        return SELECTIONS[settings.policy](eligible(candidates, settings), settings, rng)

    def _limits(self, record: DeviceRecord, status: Status, number: int) -> Budget:
        """The device's budget, and for memory and energy what it and its battery have to spare, where that is less."""
        budget = self.settings.budget_of(record.profile.device_class)
        ram = int(MEMORY_SHARE * record.profile.ram_bytes)
        memory = ram if budget.memory_bytes is None else min(budget.memory_bytes, ram)
        return replace(
            budget, memory_bytes=memory, energy_j=self._paced(budget.energy_j, record, status, number)
        )

    def _paced(
        self, energy_j: float | None, record: DeviceRecord, status: Status, number: int
    ) -> float | None:
        """Share what is above the battery floor evenly over the rounds that this device may still be asked for."""
        capacity = record.profile.battery_j
        if capacity is None or status.battery is None or status.charging:
            return energy_j
        rounds_left = max(self.settings.rounds - number + 1, 1)
        turns = max(rounds_left * self.settings.selection.per_round / len(self.registry), 1.0)
        spare = (status.battery - self.settings.selection.battery_floor) * capacity / turns
        return spare if energy_j is None else min(energy_j, spare)

    def _dispatch(
        self,
        number: int,
        record: DeviceRecord,
        plan: Plan,
        limits: Budget,
        cost_model: CostModel,
        downlink: Downlink,
    ) -> Dispatch:
        payload, index_map, holding_after = downlink.for_plan(plan, record.holding)
        decay = self.settings.learning_rate_decay ** (number - 1)
        training = self.settings.training
        assignment = Assignment(
            round_number=number,
            plan_id=plan_id(self.settings.seed, number, record.node),
            plan=plan,
            # The fixed policy is plain federated averaging, which knows no budgets: its devices do not stop early.
            budget=Budget() if self.settings.planner == "fixed" else limits,
            training=replace(training, learning_rate=training.learning_rate * decay),
            codec_preset=self.settings.codec_preset,
            acknowledged_round=record.acknowledged_round,
        )
        work = cost_model.works[plan.width]
        uplink = (
            index_map.schema.nbytes
            if plan.nmse == 0
            else cost_model.sizes.predict(work.parameters, plan.nmse)
        )
        predicted = cost_model.predict(record.profile, plan, work, uplink, len(payload), limits.power_w)
        return Dispatch(record.node, assignment, payload, index_map, limits, predicted, holding_after)


def _full_round_j(record: DeviceRecord, work: Work) -> float:
    profile = record.profile
    flops = work.flops_per_example * record.examples
    return profile.train_w * flops / profile.train_flops_per_s + profile.radio_j_per_burst


def plan_id(seed: int, round_number: int, node: int) -> int:
    """64 bits that no other device or round has; not a secret."""
    digest = hashlib.sha256(f"{seed}/{round_number}/{node}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
