"""Assignment of work: selection, budgets and planning in one pass over the devices that can be reached."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from slimfleet.compression import Assignment, Budget, Condition, Cost, Plan, Skip
from slimfleet.compression.cost import CostModel, Work
from slimfleet.compression.messages import EvaluationLimit
from slimfleet.coordinator.learning.calibration import Calibration
from slimfleet.coordinator.planning import History, Sizes
from slimfleet.coordinator.planning.evaluating import evaluation_limit, most_evaluated
from slimfleet.coordinator.planning.own import NoPlan, Policies
from slimfleet.coordinator.planning.reputation import blemish, sits_out
from slimfleet.coordinator.planning.selection import Candidate, credible_joules
from slimfleet.coordinator.registry import DeviceRecord, Registry
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.sending.downlink import Downlink
from slimfleet.coordinator.settings import CoordinatorSettings

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.8
"""Share of a device's memory that training may take. A board with 512 MB and no desktop needs some 80 MB for its
system; larger devices have more to spare."""


@dataclass(frozen=True)
class Assigner:
    """Gives work to devices in one round. Reasons are noted in the registry."""

    settings: CoordinatorSettings
    registry: Registry
    calibration: Calibration
    cost_model: CostModel
    downlink: Downlink
    now_s: float
    policies: Policies
    dispatches: list[Dispatch] = field(default_factory=list)
    skipped: dict[int, Skip] = field(default_factory=dict)
    """Node -> the constraint that left it without a plan."""

    def assign(self, statuses: Mapping[int, Condition], most: int) -> None:
        """Go down the selected order until `most` devices have a plan; the others on the way are skipped."""
        for node in self._order(statuses):
            if len(self.dispatches) == most:
                break
            record = self.registry[node]
            try:
                self._assign(record, statuses[node])
            except NoPlan as error:
                # Once a round: a planner that is wrong for one device is wrong for many.
                if all(skip.constraint != "planner" for skip in self.skipped.values()):
                    log.error("round %d: no plan for %s: %s", self._round, self.registry.label(node), error)
                self._skip(record, Skip(constraint="planner", needed=0.0, limit=0.0))
            except Exception:
                # The figures that a device states must not end the round for the others.
                log.exception(
                    "round %d: no plan could be made for %s", self._round, self.registry.label(node)
                )
                self._skip(record, Skip(constraint="profile", needed=0.0, limit=0.0))

    def _assign(self, record: DeviceRecord, status: Condition) -> None:
        """Give one device work, or skip it."""
        limits = self._limits(record, status)
        model = self.cost_model.on(record.startup)
        choice = self.policies.planner.plan(record.profile, limits, model, self._history(record))
        if isinstance(choice, Skip):
            self._skip(record, choice)
            return
        record.last_reason = choice.reason
        if self.settings.selection.reputation:
            record.last_reason += blemish(record)
        self.dispatches.append(self._dispatch(record, choice, limits))

    @property
    def _round(self) -> int:
        return self.downlink.round_number

    def _order(self, statuses: Mapping[int, Condition]) -> list[int]:
        """The nodes with enough charge, in the order in which they are considered; the others are skipped."""
        settings = self.settings.selection
        work = self.cost_model.works[1.0]
        round_j = credible_joules(
            {each.node: (each.profile.device_class, _full_round_j(each, work)) for each in self.registry}
        )
        candidates = []
        for node, status in sorted(statuses.items()):
            record = self.registry[node]
            if record.refused_at_s is not None and self.now_s - record.refused_at_s < settings.policy_pause_s:
                waited_s = self.now_s - record.refused_at_s
                self._skip(record, Skip(constraint="policy", needed=settings.policy_pause_s, limit=waited_s))
                continue
            if status.battery is not None and not status.charging and status.battery < settings.battery_floor:
                self._skip(
                    record, Skip(constraint="battery", needed=settings.battery_floor, limit=status.battery)
                )
                continue
            if settings.reputation and (skip := sits_out(record, self.settings.seed, self._round)):
                self._skip(record, skip)
                continue
            candidates.append(
                Candidate(
                    node=node,
                    round_j=round_j[node],
                    loss=record.loss,
                    battery=self._charge(record, status),
                    charging=bool(status.charging),
                    metered=status.metered,
                    temperature_c=status.temperature_c,
                )
            )
        rng = np.random.default_rng((self.settings.seed, self._round, 1))
        return self.policies.order(candidates, settings, rng)

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

    def _charge(self, record: DeviceRecord, status: Condition) -> float | None:
        """State of charge to reckon with; None on mains.

        A battery of unknown charge counts as half-way between the floor and full. It is not taken for full; and since
        only an answer tells more, the device must not be left out either.
        """
        if status.battery is None and record.profile.battery_j is not None:
            return (1 + self.settings.selection.battery_floor) / 2
        return status.battery

    def _limits(self, record: DeviceRecord, status: Condition) -> Budget:
        """The device's budget, and for memory and energy what it and its battery have to spare, where that is less."""
        budget = self.settings.budget.of(record.profile.device_class)
        limits = (int(MEMORY_SHARE * record.profile.ram_bytes), budget.memory_bytes, status.free_memory_bytes)
        memory = min(limit for limit in limits if limit is not None)
        return replace(budget, memory_bytes=memory, energy_j=self._paced(budget.energy_j, record, status))

    def _paced(self, energy_j: float | None, record: DeviceRecord, status: Condition) -> float | None:
        """Spread the charge above the battery floor evenly over the rounds that this device may still be chosen for."""
        capacity, charge, settings = record.profile.battery_j, self._charge(record, status), self.settings
        if capacity is None or charge is None or status.charging:
            return energy_j
        rounds_left = max(settings.rounds - self._round + 1, 1)
        turns = max(rounds_left * settings.quota / len(self.registry), 1.0)
        spare = (charge - settings.selection.battery_floor) * capacity / turns
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
        if (
            not self.settings.evaluation.on_devices
            or plan.width < 1.0
            or not self.settings.is_evaluated(self._round)
        ):
            return None
        work = self.cost_model.works[plan.width]
        return evaluation_limit(self.settings, record.profile, work, predicted, self._most_evaluated)

    @cached_property
    def _most_evaluated(self) -> int:
        share = self.settings.evaluation.on_devices
        return most_evaluated(share, (each.examples for each in self.registry))


def plan_id(seed: int, round_number: int, node: int) -> int:
    """64 bits, unique to the device and round; not a secret."""
    digest = hashlib.sha256(f"{seed}/{round_number}/{node}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _full_round_j(record: DeviceRecord, work: Work) -> float:
    profile = record.profile
    flops = work.flops_per_example * record.examples
    return profile.train_w * flops / profile.train_flops_per_s + profile.radio_j_per_burst
