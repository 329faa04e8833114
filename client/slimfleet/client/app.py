"""A device as a Flower ClientApp: the same rounds under Flower's own engine, our simulation or a real SuperNode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from slimfleet.compression import Assignment, BudgetExceeded, Payload, PayloadError, Report
from slimfleet.compression.messages import Registration, parse, text_of


class Participant(Protocol):
    """What answers for a device: a `Device`, or something that stands in front of one."""

    def registration(self) -> Registration:
        """How it introduces itself."""
        ...

    def do_round(self, assignment: Assignment, payload: Payload) -> tuple[Payload, Report]:
        """Train and encode."""
        ...


def client_app(device_of: Callable[[Context], Participant]) -> ClientApp:
    """A ClientApp that answers for whichever device `device_of` finds for a Flower context.

    `query` answers with the device's registration, `train` with the encoded update and the report, or, when no step
    fits the budget or the model cannot be decoded, with the reason for refusing.
    """
    app = ClientApp()

    @app.query()
    def register(message: Message, context: Context) -> Message:
        text = ConfigRecord({"json": text_of(device_of(context).registration())})
        return Message(RecordDict({"registration": text}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = message.content
        try:
            assignment = parse(Assignment, str(content.config_records["assignment"]["json"]))
            received = content.array_records["model"]["payload"].data
            payload, report = device_of(context).do_round(assignment, Payload(received))
        except (BudgetExceeded, PayloadError) as refusal:
            reason = refusal.constraint if isinstance(refusal, BudgetExceeded) else refusal.reason
            text = ConfigRecord({"reason": reason, "message": str(refusal)})
            return Message(RecordDict({"refusal": text}), reply_to=message)
        array = Array(dtype="uint8", shape=(len(payload),), stype="slimfleet.payload", data=payload)
        answer = RecordDict({"update": ArrayRecord({"payload": array})})
        answer["report"] = ConfigRecord({"json": text_of(report)})
        return Message(answer, reply_to=message)

    return app
