"""Flower messages: dispatches into messages, and messages into answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MessageType, RecordDict

from slimfleet.compression import Payload, PayloadError, Report
from slimfleet.compression.messages import Registration, Spent, parse, text_of
from slimfleet.coordinator.entries import Failed, Received
from slimfleet.coordinator.sending.dispatch import Dispatch
from slimfleet.coordinator.transport.link import Came
from slimfleet.coordinator.transport.refused import device_refusal, one_line, worked_s

TRANSPORT_ERRORS: Mapping[int, str] = {3: "timeout", 4: "timeout", 5: "dropout", 8: "worker"}
"""Flower's codes for a message that is no longer valid, a reply that never came, a node that is gone, a worker that
crashed; others count as `error`."""

LONGEST_VALID_S = 365 * 86_400.0
"""Validity of a message for which no shorter one is asked; Flower's own default is 12 hours."""

RAISED = re.compile(r"<class '(?:.*\.)?(?P<name>\w+)'>:<'(?P<text>.*)'>", re.DOTALL)

SILENT: Mapping[int, str] = {
    3: "no answer came in time",
    4: "no answer came in time",
    5: "the SuperNode is gone: it sends no more signs of life",
    8: "the process that did the round has crashed",
}
"""What Flower's errors mean, where they come without a text."""


def registration_request(node: int, valid_s: float | None = None) -> Message:
    """Asks a node to introduce itself. After `valid_s` of wall-clock time a link drops the message."""
    return Message(
        RecordDict({}), dst_node_id=node, message_type=MessageType.QUERY, ttl=_time_to_live(valid_s)
    )


def registration_in(reply: Message) -> Registration:
    """What a node says of itself. Raises PayloadError where that cannot be used."""
    if reply.has_error():
        raise PayloadError("message", _said(reply.error))
    if "refusal" in reply.content.config_records:
        said = reply.content.config_records["refusal"].get("message", "")
        raise PayloadError("message", plain(str(said)) or "it refuses, and does not say why")
    record = reply.content.config_records.get("registration", ConfigRecord())
    return parse(Registration, str(record.get("json", "")))


def train_messages(dispatches: tuple[Dispatch, ...], valid_s: float | None = None) -> list[Message]:
    """One message a dispatch. Devices of one payload share one record, so that a grid stores and sends it once.

    After `valid_s` of wall-clock time a link drops the message.
    """
    ttl = _time_to_live(valid_s)
    models: dict[int, ArrayRecord] = {}
    messages = []
    for dispatch in dispatches:
        model = models.setdefault(id(dispatch.payload), _record(dispatch.payload))
        text = ConfigRecord({"json": text_of(dispatch.assignment)})
        content = RecordDict({"model": model, "assignment": text})
        messages.append(Message(content, dst_node_id=dispatch.node, message_type=MessageType.TRAIN, ttl=ttl))
    return messages


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to one dispatch, of which what the device says is parsed once."""

    message: Message
    said: Report | Spent | None
    """None where it says nothing that can be understood."""

    @classmethod
    def of(cls, message: Message) -> Reply:
        """Raises nothing, whatever the device sent."""
        return cls(message, None if message.has_error() else _told(message.content))

    @property
    def time_s(self) -> float | None:
        """How long the device says that it worked; None where it does not, or no device can have."""
        return worked_s(self.said)


def entry_of(plan_id: int, reply: Reply) -> Received | Failed:
    """What the reply to one dispatch says: an answer, or that there is none and why."""
    message = reply.message
    if message.has_error():
        reason = TRANSPORT_ERRORS.get(message.error.code, "error")
        return Failed(plan_id=plan_id, reason=reason, message=_said(message.error))
    content = message.content
    try:
        if "refusal" in content.config_records:
            return _refused(plan_id, content.config_records["refusal"], reply.said)
        payload = content.array_records["update"]["payload"].data
        text = str(content.config_records["report"]["json"])
    except KeyError as missing:
        return Failed(plan_id=plan_id, reason="incomplete", message=f"the answer has no {missing}")
    parsed = reply.said if isinstance(reply.said, Report) else None
    return Received(plan_id=plan_id, report=text, payload=payload, parsed=parsed)


def came_of(dispatch: Dispatch, plan_id: int, reply: Reply) -> Came:
    """The reply to one dispatch as an answer to `plan_id`."""
    return Came(dispatch, plan_id, reply.time_s, entry_of(plan_id, reply))


def plain(text: str) -> str:
    """A foreign text in one line that prints, cut to `LONGEST_REASON`.

    What an app raises, Flower writes as `<class 'package.Error'>:<'text'>`: of that, the name and the text are left.
    """
    raised = RAISED.fullmatch(text)
    if raised is not None:
        text = f"{raised['name']}: {raised['text']}"
    return one_line(text)


def _time_to_live(valid_s: float | None) -> float:
    return LONGEST_VALID_S if valid_s is None else min(valid_s, LONGEST_VALID_S)


def _said(error: Error) -> str:
    return plain(error.reason or "") or SILENT.get(error.code, f"error {error.code}, without a word why")


def _told(content: RecordDict) -> Report | Spent | None:
    records = content.config_records
    try:
        if "refusal" in records:
            return parse(Spent, str(records["refusal"].get("spent", "")))
        return parse(Report, str(records.get("report", ConfigRecord()).get("json", "")))
    except PayloadError:
        return None


def _refused(plan_id: int, refusal: ConfigRecord, said: Report | Spent | None) -> Failed:
    spent = said if isinstance(said, Spent) else refusal.get("spent")
    told = str(spent) if spent is not None and not isinstance(spent, Spent) else spent
    return device_refusal(plan_id, str(refusal["reason"]), plain(str(refusal["message"])), told)


def _record(payload: Payload) -> ArrayRecord:
    array = Array(dtype="uint8", shape=(len(payload),), stype="slimfleet.payload", data=payload)
    return ArrayRecord({"payload": array})
