"""Assignment of work: selection, budgets and planning in one pass over the devices that can be reached."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from slimfleet.compression import Assignment, Budget, Cost, Plan, Skip
from slimfleet.compression.cost import CostModel, Work
from slimfleet.compression.messages import EvaluationLimit
from slimfleet.coordinator.environment import Status
from slimfleet.coordinator.learning.calibration import Calibration
from slimfleet.coordinator.planning import PLANNERS, History, Sizes
from slimfleet.coordinator.planning.evaluating import evaluation_limit, most_evaluated
from slimfleet.coordinator.planning.policy import Planner
from slimfleet.coordinator.planning.selection import ORDERS, Candidate, credible_joules
from slimfleet.coordinator.registry import DeviceRecord, Registry
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.sending.downlink import Downlink
from slimfleet.coordinator.settings import CoordinatorSettings

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.8
"""Share of a device's memory that training may take. A board with 512 MB and no desktop needs some 80 MB for its
system; larger devices have more to spare."""


@dataclass(frozen=True, slots=True)
class Assigner:
    """Gives work to devices in one round. Battery levels and reasons are noted in the registry."""

    settings: CoordinatorSettings
    registry: Registry
    calibration: Calibration
    cost_model: CostModel
    downlink: Downlink
    dispatches: list[Dispatch] = field(default_factory=list)
    skipped: dict[int, Skip] = field(default_factory=dict)
    """Node -> the constraint that left it without a plan."""
    _most: list[int] = field(default_factory=list)
    """Examples that one device may evaluate, once it is known."""

    def assign(self, statuses: Mapping[int, Status], most: int) -> None:
        """Go down the selected order until `most` devices have a plan; the others on the way are skipped."""
        planner = PLANNERS[self.settings.planner.policy](self.settings.planner)
        for node in self._order(statuses):
            if len(self.dispatches) == most:
                break
            record = self.registry[node]
            try:
                self._assign(planner, record, statuses[node])
            except Exception:
                # The figures that a device states must not end the round for the others.
                log.exception(
                    "round %d: no plan could be made for %s", self._round, self.registry.label(node)
                )
                self._skip(record, Skip(constraint="profile", needed=0.0, limit=0.0))

    def _assign(self, planner: Planner, record: DeviceRecord, status: Status) -> None:
        """Give one device work, or skip it."""
        limits = self._limits(record, status)
        model = self.cost_model.on(record.startup)
        choice = planner.plan(record.profile, limits, model, self._history(record))
        if isinstance(choice, Skip):
            self._skip(record, choice)
            return
        record.last_reason = choice.reason
        self.dispatches.append(self._dispatch(record, choice, limits))

    @property
    def _round(self) -> int:
        return self.downlink.round_number

    def _order(self, statuses: Mapping[int, Status]) -> list[int]:
        """The nodes with enough charge, in the order in which they are considered; the others are skipped."""
        settings = self.settings.selection
        work = self.cost_model.works[1.0]
        round_j = credible_joules(
            {each.node: (each.profile.device_class, _full_round_j(each, work)) for each in self.registry}
        )
        candidates = []
        for node, status in sorted(statuses.items()):
            record = self.registry[node]
            record.battery = status.battery
            if status.battery is not None and not status.charging and status.battery < settings.battery_floor:
                self._skip(
                    record, Skip(constraint="battery", needed=settings.battery_floor, limit=status.battery)
                )
                continue
            candidates.append(
                Candidate(
                    node=node,
                    round_j=round_j[node],
                    loss=record.loss,
                    battery=status.battery,
                    charging=status.charging,
                )
            )
        rng = np.random.default_rng((self.settings.seed, self._round, 1))
        return ORDERS[settings.policy](candidates, settings, rng)

    def _skip(self, record: DeviceRecord, skip: Skip) -> None:
        record.last_reason = skip.reason
        self.skipped[record.node] = skip

    def _history(self, record: DeviceRecord) -> History:
        return History(
            examples=record.examples,
            correction=self.calibration.correction(str(record.node), record.profile.device_class),
            sizes=Sizes(
                exact=partial(self.downlink.size, held=record.holding), least=self.downlink.least_size
            ),
        )

    def _limits(self, record: DeviceRecord, status: Status) -> Budget:
        """The device's budget, and for memory and energy what it and its battery have to spare, where that is less."""
        budget = self.settings.budget.of(record.profile.device_class)
        ram = int(MEMORY_SHARE * record.profile.ram_bytes)
        memory = ram if budget.memory_bytes is None else min(budget.memory_bytes, ram)
        return replace(budget, memory_bytes=memory, energy_j=self._paced(budget.energy_j, record, status))

    def _paced(self, energy_j: float | None, record: DeviceRecord, status: Status) -> float | None:
        """Spread the charge above the battery floor evenly over the rounds that this device may still be chosen for."""
        capacity, settings = record.profile.battery_j, self.settings
        if capacity is None or status.battery is None or status.charging:
            return energy_j
        rounds_left = max(settings.rounds - self._round + 1, 1)
        turns = max(rounds_left * settings.selection.per_round / len(self.registry), 1.0)
        spare = (status.battery - settings.selection.battery_floor) * capacity / turns
        return spare if energy_j is None else min(energy_j, spare)

    def _dispatch(self, record: DeviceRecord, plan: Plan, limits: Budget) -> Dispatch:
        payload, index_map, holding_after = self.downlink.for_plan(plan, record.holding)
        model, work = self.cost_model.on(record.startup), self.cost_model.works[plan.width]
        uplink = (
            index_map.moving.schema.nbytes
            if plan.nmse == 0
            else model.sizes.predict(work.parameters, plan.nmse)
        )
        predicted = model.predict(record.profile, plan, work, uplink, len(payload), limits.power_w)
        assignment = Assignment(
            round_number=self._round,
            plan_id=plan_id(self.settings.seed, self._round, record.node),
            plan=plan,
            # The fixed policy is plain federated averaging, which knows no budgets: its devices do not stop early.
            budget=Budget() if self.settings.planner.policy == "fixed" else limits,
            training=self.settings.training(self._round),
            codec_preset=self.settings.codec.preset,
            acknowledged_round=record.acknowledged_round,
            evaluation=self._evaluation(record, plan, predicted),
        )
        return Dispatch(record.node, assignment, payload, index_map, limits, predicted, holding_after)

    def _evaluation(self, record: DeviceRecord, plan: Plan, predicted: Cost) -> EvaluationLimit | None:
        """What a device may evaluate: nothing of a narrower model, which is not the global one."""
        share = self.settings.evaluation.on_devices
        if not share or plan.width < 1.0 or not self.settings.is_evaluated(self._round):
            return None
        if not self._most:
            self._most.append(most_evaluated(share, (each.examples for each in self.registry)))
        work = self.cost_model.works[plan.width]
        return evaluation_limit(self.settings, record.profile, work, predicted, self._most[0])


def plan_id(seed: int, round_number: int, node: int) -> int:
    """64 bits, unique to the device and round; not a secret."""
    digest = hashlib.sha256(f"{seed}/{round_number}/{node}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _full_round_j(record: DeviceRecord, work: Work) -> float:
    profile = record.profile
    flops = work.flops_per_example * record.examples
    return profile.train_w * flops / profile.train_flops_per_s + profile.radio_j_per_burst
