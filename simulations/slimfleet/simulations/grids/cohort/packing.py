"""Packing of a cohort: devices whose plans share a shape become groups, and groups become a few messages.

Which devices are a group depends on the work alone, and what a device sends on its group alone: so the outcome does not
depend on how many messages there are, nor on who works on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import ceil
from typing import TypeVar

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from slimfleet.compression import Plan
from slimfleet.compression.messages import text_of
from slimfleet.coordinator import Coordinator, Dispatch
from slimfleet.coordinator.learning.covered_sum import PartialSum
from slimfleet.coordinator.receiving.lot import Lot, verdicts_in
from slimfleet.coordinator.transport.flower.messages import Reply, came_of, train_messages
from slimfleet.coordinator.transport.flower.packing import Parcel
from slimfleet.coordinator.transport.link import Came
from slimfleet.simulations.fleet import BEGIN, Moment
from slimfleet.simulations.grids.cohort.orders import ANSWERED, GROUPS, Answered, Order
from slimfleet.simulations.grids.flower import APP_RAISED, NODE_GONE, error_reply

__all__ = ["COHORT", "CohortPacking"]

COHORT = "train.cohort"
"""Type of a message that holds a cohort's work."""

PARCELS_A_WORKER = 2
"""Messages that a cohort makes for each worker, so that none idles while another works on its last."""

SMALL_BYTES = 65_536
"""With a smaller model a message costs more than an idle worker: there is one for each."""

EVENLY = 4
"""Where there are more groups than half of this, their number is made a multiple of it."""

T = TypeVar("T")
Moments = Callable[[Sequence[int]], Mapping[int, Moment]]
GroupSize = Callable[[Plan], int]
"""How many devices with a plan are trained at once, at most."""


class CohortPacking:
    """Packs the work of many devices into a few messages, for `Worker.answer`."""

    def __init__(
        self, coordinator: Coordinator, moments: Moments, group_size: GroupSize, workers: int
    ) -> None:
        """There are messages for so many `workers`."""
        self._coordinator, self._moments = coordinator, moments
        self._group_size, self._workers = group_size, workers

    def parcels(self, dispatches: Sequence[Dispatch]) -> list[Parcel]:
        """The work in messages of about the same number of devices, all of one payload each."""
        moments = self._moments([each.node for each in dispatches])
        rules = self._coordinator.rules()
        by_payload: dict[int, list[Dispatch]] = {}
        for each in dispatches:
            by_payload.setdefault(id(each.payload), []).append(each)
        parcels = []
        for alike in by_payload.values():
            model = train_messages((alike[0],))[0].content["model"]
            parcels_a_worker = 1 if len(alike[0].payload) < SMALL_BYTES else PARCELS_A_WORKER
            share = ceil(parcels_a_worker * self._workers * len(alike) / len(dispatches))
            groups = self._groups(alike)
            for some in _split(groups, min(share, len(groups))):
                work = tuple(tuple(_order(each, moments) for each in group) for group in some)
                nodes = [each.node for group in some for each in group]
                text = ConfigRecord(
                    {"groups": GROUPS.dump_json(work, exclude_defaults=True).decode(), "nodes": nodes}
                )
                if rules is not None:
                    text["rules"] = rules.to_json()
                content = RecordDict({"model": model, "cohort": text})
                message = Message(content, dst_node_id=some[0][0].node, message_type=COHORT)
                parcels.append(Parcel(message, [each for group in some for each in group]))
        return parcels

    def opened(self, parcel: Parcel, reply: Message) -> list[Came]:
        """The answers of devices, and the lot of those whose updates have been added up."""
        awaited = {each.plan_id: each for each in parcel.dispatches}
        if reply.has_error():
            return [came_of(each, each.plan_id, Reply.of(reply)) for each in parcel.dispatches]
        records = reply.content
        payloads = iter(records.array_records["updates"].values())
        answered: tuple[Answered, ...] = ANSWERED.validate_json(
            str(records.config_records["answered"]["json"])
        )
        came = []
        for each in answered:
            single = Reply.of(_message(parcel.message, each, payloads))
            if each.plan_id in awaited:
                came.append(came_of(awaited[each.plan_id], each.plan_id, single))
        if "lot" in records.config_records:
            lot = _lot(records)
            # A lot comes when the last of its devices is done.
            first = next((awaited[each.plan_id] for each in lot.judged if each.plan_id in awaited), None)
            if first is not None:
                came.append(Came(first, first.plan_id, lot.took_s, lot))
        return came

    def _groups(self, dispatches: Sequence[Dispatch]) -> list[Sequence[Dispatch]]:
        """Devices that train alike, those with the most examples first: the batches of neighbours have the same sizes,
        as far as any have."""
        registry, alike = self._coordinator.state.registry, dict[object, list[Dispatch]]()
        for each in dispatches:
            plan = each.assignment.plan
            alike.setdefault((plan.batch_size, plan.precision, each.assignment.training), []).append(each)

        def by_size(each: Dispatch) -> tuple[int, int]:
            plan = each.assignment.plan
            return min(registry[each.node].examples, plan.batch_size * plan.local_steps), plan.local_steps

        ordered = [sorted(same, key=by_size, reverse=True) for same in alike.values()]
        return [group for same in ordered for group in _split(same, self._parts(same))]

    def _parts(self, same: Sequence[Dispatch]) -> int:
        """The fewest groups that none is too large in; many are so many that two or four workers have as much to do."""
        fewest = ceil(len(same) / self._group_size(same[0].assignment.plan))
        return fewest if fewest <= EVENLY // 2 else min(ceil(fewest / EVENLY) * EVENLY, len(same))


def _split(items: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Items in order in so many parts, as even as they can be."""
    ends = [len(items) * part // parts for part in range(parts + 1)]
    return [items[begin:end] for begin, end in pairwise(ends)]


def _order(dispatch: Dispatch, moments: Mapping[int, Moment]) -> Order:
    return Order(
        node=dispatch.node,
        assignment=dispatch.assignment,
        limits=dispatch.limits,
        moment=moments.get(dispatch.node, BEGIN),
    )


def _message(sent: Message, answered: Answered, payloads: Iterator[Array]) -> Message:
    """A device's answer as the device would have sent it by itself."""
    if answered.error is not None:
        return error_reply(sent, NODE_GONE if answered.error == "lost" else APP_RAISED, answered.message)
    content = RecordDict()
    if answered.report is not None:
        content["update"] = ArrayRecord({"payload": next(payloads)})
        content["report"] = ConfigRecord({"json": answered.report})
    else:
        text = {"reason": answered.refused or "", "message": answered.message}
        if answered.spent is not None:
            text["spent"] = text_of(answered.spent)
        content["refusal"] = ConfigRecord({**text})
    return Message(content, reply_to=sent)


def _lot(records: RecordDict) -> Lot:
    text = records.config_records["lot"]
    integers = {name: array.numpy() for name, array in records.array_records["sum"].items()}
    total = PartialSum(integers, int(str(text["weight"])), int(str(text["updates"])))
    return Lot(verdicts_in(str(text["json"])), total)
