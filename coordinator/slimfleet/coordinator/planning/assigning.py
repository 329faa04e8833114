"""Assignment of work: selection, budgets and planning in one pass over the devices that can be reached."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression import Assignment, Budget, Condition, Cost, Plan, Skip
from slimfleet.compression.cost import CostModel
from slimfleet.compression.messages import EvaluationLimit
from slimfleet.compression.types import UNKNOWN
from slimfleet.coordinator.conditions import FleetConditions
from slimfleet.coordinator.learning.calibration import Calibration
from slimfleet.coordinator.planning.candidates import Candidates
from slimfleet.coordinator.planning.evaluating import evaluation_limit, most_evaluated
from slimfleet.coordinator.planning.nominal import Nominal
from slimfleet.coordinator.planning.own import NoPlan, Policies
from slimfleet.coordinator.planning.policy import BlockPlanner, History, Request, Sizes
from slimfleet.coordinator.planning.reputation import blemish, sits_out
from slimfleet.coordinator.planning.skips import Skips
from slimfleet.coordinator.record import DeviceRecord
from slimfleet.coordinator.registry import Nodes, Registry
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.sending.downlink import Downlink
from slimfleet.coordinator.settings import CoordinatorSettings

log = logging.getLogger(__name__)

MEMORY_SHARE = 0.8
"""Share of a device's memory that training may take. A board with 512 MB and no desktop needs some 80 MB for its
system; larger devices have more to spare."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A device that is considered, and what the planner is asked for it."""

    record: DeviceRecord
    request: Request


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
    nominal: Nominal
    dispatches: list[Dispatch] = field(default_factory=list)
    skipped: Skips = field(default_factory=Skips)

    def assign(self, nodes: Nodes, conditions: FleetConditions, most: int) -> None:
        """Go down the selected order until `most` devices have a plan; the others on the way are skipped.

        `nodes`, sorted, are those of registered devices that may be asked, and `conditions` theirs.
        """
        order = iter(self._order(nodes, conditions))
        while batch := list(islice(order, most - len(self.dispatches))):
            rows = np.searchsorted(nodes, np.array(batch, np.uint64)).tolist()
            asked = [
                self._asked(node, conditions[row] or UNKNOWN) for node, row in zip(batch, rows, strict=True)
            ]
            self._assign([each for each in asked if each is not None])

    def _asked(self, node: int, status: Condition) -> _Asked | None:
        """What to ask the planner for a device; None where its figures leave no question."""
        record = self.registry[node]
        try:
            return _Asked(
                record,
                Request(
                    profile=record.profile,
                    budget=self._limits(record, status),
                    cost_model=self.cost_model.on(record.startup),
                    history=self._history(record),
                ),
            )
        except Exception:  # noqa: BLE001 - `_failed` logs it
            self._failed(record)
            return None

    def _assign(self, asked: Sequence[_Asked]) -> None:
        """Give these devices work, or skip them."""
        planner = self.policies.planner
        choices: list[Plan | Skip] | None = None
        if isinstance(planner, BlockPlanner):
            try:
                choices = planner.plan_all([each.request for each in asked])
            except Exception:
                log.debug("round %d: a block is planned one by one", self._round, exc_info=True)
        for place, each in enumerate(asked):
            record, request = each.record, each.request
            try:
                choice = (
                    planner.plan(request.profile, request.budget, request.cost_model, request.history)
                    if choices is None
                    else choices[place]
                )
                self._take(record, choice, request)
            except NoPlan as error:
                # Once a round: a planner that is wrong for one device is wrong for many.
                if all(skip.constraint != "planner" for skip in self.skipped.single.values()):
                    log.error(
                        "round %d: no plan for %s: %s", self._round, self.registry.label(record.node), error
                    )
                self._skip(record, Skip(constraint="planner", needed=0.0, limit=0.0))
            except Exception:  # noqa: BLE001 - `_failed` logs it
                self._failed(record)

    def _take(self, record: DeviceRecord, choice: Plan | Skip, request: Request) -> None:
        """Turn a choice into a dispatch, or a skip."""
        if isinstance(choice, Skip):
            self._skip(record, choice)
            return
        record.last_reason = choice.reason
        if self.settings.selection.reputation:
            record.last_reason += blemish(record)
        self.dispatches.append(self._dispatch(record, choice, request))

    def _failed(self, record: DeviceRecord) -> None:
        """Skip a device whose figures raise: they must not end the round for the others."""
        log.exception("round %d: no plan could be made for %s", self._round, self.registry.label(record.node))
        self._skip(record, Skip(constraint="profile", needed=0.0, limit=0.0))

    @property
    def _round(self) -> int:
        return self.downlink.round_number

    def _order(self, nodes: Nodes, conditions: FleetConditions) -> Iterable[int]:
        """The nodes with enough charge, in the order in which they are considered; the others are skipped."""
        settings, columns = self.settings.selection, self.registry.columns
        rows = columns.row_of(nodes)
        battery, may_take = conditions.battery, conditions.reached
        paused = may_take & (self.now_s - columns.refused_at_s[rows] < settings.policy_pause_s)
        for node, row in _places(nodes, rows, paused):
            waited_s = self.now_s - float(columns.refused_at_s[row])
            self._skip(
                self.registry[node], Skip(constraint="policy", needed=settings.policy_pause_s, limit=waited_s)
            )
        low = may_take & ~paused & (conditions.charging != 1) & (battery < settings.battery_floor)
        if low.any():
            columns.leave_out(rows[low], battery[low], settings.battery_floor)
            self.skipped.add_low(nodes[low], battery[low], settings.battery_floor)
        may_take = may_take & ~paused & ~low
        if settings.reputation:
            doubtful = np.flatnonzero(may_take & (columns.rejected[rows] > 0))
            for place in doubtful.tolist():
                record = self.registry[int(nodes[place])]
                if skip := sits_out(record, self.settings.seed, self._round):
                    self._skip(record, skip)
                    may_take[place] = False
        joules, has_battery = self.nominal.of(self.registry)
        battery = np.where(np.isnan(battery) & has_battery[rows], self._unknown_charge, battery)
        candidates = Candidates(
            node=nodes[may_take],
            round_j=joules[rows[may_take]],
            loss=columns.loss[rows[may_take]],
            battery=battery[may_take],
            charging=conditions.charging[may_take] == 1,
            metered=conditions.metered[may_take],
            temperature_c=conditions.temperature_c[may_take],
        )
        return self.policies.order(
            candidates, settings, np.random.default_rng((self.settings.seed, self._round, 1))
        )

    def _skip(self, record: DeviceRecord, skip: Skip) -> None:
        record.last_reason = skip.reason
        self.skipped.add(record.node, skip)

    def _history(self, record: DeviceRecord) -> History:
        return History(
            examples=record.examples,
            correction=self.calibration.correction(str(record.node), record.profile.device_class),
            sizes=Sizes(
                exact=partial(self.downlink.size, held=record.holding),
                least=self.downlink.least_size,
                known=partial(self.downlink.known_size, held=record.holding),
            ),
        )

    def _charge(self, record: DeviceRecord, status: Condition) -> float | None:
        """State of charge to reckon with; None on mains.

        A battery of unknown charge counts as half-way between the floor and full. It is not taken for full; and since
        only an answer tells more, the device must not be left out either.
        """
        if status.battery is None and record.profile.battery_j is not None:
            return self._unknown_charge
        return status.battery

    @property
    def _unknown_charge(self) -> float:
        return (1 + self.settings.selection.battery_floor) / 2

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

    def _dispatch(self, record: DeviceRecord, plan: Plan, request: Request) -> Dispatch:
        limits, model = request.budget, request.cost_model
        payload, index_map, holding_after = self.downlink.for_plan(plan, record.holding)
        work = model.works[plan.width]
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
        return most_evaluated(share, self.registry.columns.examples)


def plan_id(seed: int, round_number: int, node: int) -> int:
    """64 bits, unique to the device and round; not a secret."""
    digest = hashlib.sha256(f"{seed}/{round_number}/{node}".encode()).digest()
    return int.from_bytes(digest[:8], "little")


def _places(nodes: Nodes, rows: NDArray[np.intp], chosen: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Nodes and rows of those that are chosen."""
    return list(zip(nodes[chosen].tolist(), rows[chosen].tolist(), strict=True))
