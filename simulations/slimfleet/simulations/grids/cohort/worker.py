"""Worker: does the rounds of a cohort in one process, and adds up what its devices send."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from slimfleet.client.cohort.rounds import CohortRounds, Job
from slimfleet.client.device import Participant
from slimfleet.client.refusing import LONGEST_MESSAGE
from slimfleet.compression import BudgetExceeded, Cost, Payload, PayloadError, PolicyRefusal, Report
from slimfleet.compression.messages import as_received, text_of
from slimfleet.compression.pruning import IndexMap, unpack_channels
from slimfleet.compression.pruning.blueprint import Blueprint
from slimfleet.compression.wire import unseal
from slimfleet.coordinator import Dispatch
from slimfleet.coordinator.receiving.answer import Arrived
from slimfleet.coordinator.receiving.lot import Adder, Rules, verdicts_text
from slimfleet.simulations.fleet import Moment
from slimfleet.simulations.grids.cohort.orders import ANSWERED, GROUPS, Answered, Order
from slimfleet.simulations.virtual_devices import DeviceLost

__all__ = ["Worker"]

DeviceOf = Callable[[int, Callable[[], Moment]], Participant]
"""The device of a node, and when its work begins."""

NOTHING = Cost(energy_j=0.0, radio_j=0.0, time_s=1.0, memory_bytes=0, uplink_bytes=0, downlink_bytes=0)


@dataclass(frozen=True)
class Worker:
    """Answers messages that hold the work of many devices."""

    blueprint: Blueprint
    device_of: DeviceOf
    rounds: CohortRounds

    def answer(self, message: Message) -> Message:
        """Do the work of a message."""
        records = message.content
        text = records.config_records["cohort"]
        groups: tuple[tuple[Order, ...], ...] = GROUPS.validate_json(str(text["groups"]))
        payload = Payload(records.array_records["model"]["payload"].data)
        index_map = self._index_map(payload)
        adder = None
        if "rules" in text:
            adder = Adder(Rules.from_json(str(text["rules"])), index_map.moving.schema)
        return Message(self._done(groups, payload, index_map, adder), reply_to=message)

    def _done(
        self,
        groups: Sequence[Sequence[Order]],
        payload: Payload,
        index_map: IndexMap,
        adder: Adder | None,
    ) -> RecordDict:
        jobs = [[Job(self._device(order), order.assignment, payload) for order in group] for group in groups]
        answered: list[Answered] = []
        payloads: list[Payload] = []
        orders = [order for group in groups for order in group]
        came: list[tuple[Dispatch, Arrived]] = []
        for order, sent in zip(orders, self.rounds.together(jobs), strict=True):
            if isinstance(sent, Exception):
                answered.append(_failed(order, sent))
                continue
            try:
                said = _said(sent.report)
            except ValueError as error:
                answered.append(_failed(order, error))
                continue
            if adder is not None and adder.takes(sent.report):
                arrived = Arrived(sent.payload, said, sent.update)
                came.append((_dispatch(order, payload, index_map), arrived))
            else:
                answered.append(Answered(plan_id=order.assignment.plan_id, report=text_of(sent.report)))
                payloads.append(sent.payload)
        if adder is not None:
            adder.add(came)
        return _content(answered, payloads, adder)

    def _device(self, order: Order) -> Participant:
        return self.device_of(order.node, lambda: order.moment)

    def _index_map(self, payload: Payload) -> IndexMap:
        channels = unpack_channels(self.blueprint.groups, unseal(payload).header.side)
        return self.blueprint.index_map(channels)


def _said(report: Report) -> str | Report:
    """The report as the coordinator would read it; one that is not acceptable as the text that will be refused.

    Raises ValueError where it cannot be written.
    """
    try:
        return as_received(report)
    except PayloadError:
        return text_of(report)


def _dispatch(order: Order, payload: Payload, index_map: IndexMap) -> Dispatch:
    """The dispatch as far as an answer is judged by it."""
    return Dispatch(order.node, order.assignment, payload, index_map, order.limits, predicted=NOTHING)


def _failed(order: Order, error: Exception) -> Answered:
    """The answer of a device that refused, was lost, or whose code raised."""
    plan_id, message = order.assignment.plan_id, str(error)[:LONGEST_MESSAGE]
    if isinstance(error, BudgetExceeded):
        return Answered(plan_id=plan_id, refused=error.constraint, message=message, spent=error.spent)
    if isinstance(error, PolicyRefusal | PayloadError):
        return Answered(plan_id=plan_id, refused=error.reason, message=message, spent=error.spent)
    if isinstance(error, DeviceLost):
        return Answered(plan_id=plan_id, error="lost", message=message)
    raised = f"{type(error).__name__}: {error}"[:LONGEST_MESSAGE]
    return Answered(plan_id=plan_id, error="raised", message=raised)


def _content(answered: list[Answered], payloads: list[Payload], adder: Adder | None) -> RecordDict:
    content = RecordDict({"answered": ConfigRecord({"json": ANSWERED.dump_json(tuple(answered)).decode()})})
    content["updates"] = ArrayRecord({str(place): _bytes(each) for place, each in enumerate(payloads)})
    if adder is not None and (lot := adder.lot()).judged:
        total = lot.total
        content["lot"] = ConfigRecord(
            {"json": verdicts_text(lot), "weight": total.weight, "updates": total.updates}
        )
        content["sum"] = ArrayRecord({name: Array(array) for name, array in total.integers.items()})
    return content


def _bytes(payload: Payload) -> Array:
    return Array(dtype="uint8", shape=(len(payload),), stype="slimfleet.payload", data=payload)
