"""Flower messages: dispatches into messages, and answers out of whatever a message holds."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from slimfleet.compression import Payload, PayloadError
from slimfleet.compression.foreign_text import foreign_text
from slimfleet.compression.messages import Registration, parse, text_of
from slimfleet.compression.wire import REASONS
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.receiving.answer import Answer
from slimfleet.coordinator.sending.dispatch import Dispatch

TRANSPORT_ERRORS: Mapping[int, str] = {4: "timeout", 5: "dropout", 8: "worker"}
"""Flower's codes for a reply that never came, a node that is gone, a worker that crashed; others count as `error`."""

REFUSALS = REASONS | {"energy_j", "deadline_s", "memory_bytes", "uplink_bytes", "local_steps"}
"""Reasons a device may give for not doing a round; any other word is counted as `refused`."""


def registration_request(node: int) -> Message:
    """Asks a node to introduce itself."""
    return Message(RecordDict({}), dst_node_id=node, message_type=MessageType.QUERY)


def registration_in(reply: Message) -> Registration:
    """What a node says of itself. Raises PayloadError where that cannot be used."""
    if reply.has_error():
        raise PayloadError("message", foreign_text(reply.error.reason))
    record = reply.content.config_records.get("registration", ConfigRecord())
    return parse(Registration, str(record.get("json", "")))


def train_messages(dispatches: tuple[Dispatch, ...]) -> list[Message]:
    """One message a dispatch. Devices of one payload share one record, so that a grid stores and sends it once."""
    models: dict[int, ArrayRecord] = {}
    messages = []
    for dispatch in dispatches:
        model = models.setdefault(id(dispatch.payload), _record(dispatch.payload))
        text = ConfigRecord({"json": text_of(dispatch.assignment)})
        content = RecordDict({"model": model, "assignment": text})
        messages.append(Message(content, dst_node_id=dispatch.node, message_type=MessageType.TRAIN))
    return messages


def deliver(coordinator: Coordinator, plan_id: int, reply: Message) -> Answer:
    """Hand the answer to one dispatch to the coordinator, whatever the message holds."""
    if reply.has_error():
        reason = TRANSPORT_ERRORS.get(reply.error.code, "error")
        return coordinator.fail(plan_id, reason, foreign_text(reply.error.reason))
    content = reply.content
    try:
        if "refusal" in content.config_records:
            refusal = content.config_records["refusal"]
            reason, message = str(refusal["reason"]), foreign_text(refusal["message"])
            return coordinator.fail(plan_id, reason if reason in REFUSALS else "refused", message)
        payload = content.array_records["update"]["payload"].data
        report = str(content.config_records["report"]["json"])
    except KeyError as missing:
        return coordinator.fail(plan_id, "incomplete", f"the answer has no {missing}")
    return coordinator.receive(plan_id, payload, report)


def _record(payload: Payload) -> ArrayRecord:
    array = Array(dtype="uint8", shape=(len(payload),), stype="slimfleet.payload", data=payload)
    return ArrayRecord({"payload": array})
