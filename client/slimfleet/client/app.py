"""Client app: a device as a Flower ClientApp, under Flower's own engine, our simulation or a real SuperNode."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from slimfleet.client.deployed import deployed_device
from slimfleet.client.device import Device, Participant
from slimfleet.compression import Assignment, BudgetExceeded, Payload, PayloadError
from slimfleet.compression.edge.app_config import task_reference
from slimfleet.compression.messages import parse, text_of


def client_app(device_of: Callable[[Context], Participant]) -> ClientApp:
    """A ClientApp that answers for the device that `device_of` finds for a Flower context.

    `query` answers with the device's registration; `train` with the encoded update and the report, or with the reason
    for refusing where no step fits the budget or the model cannot be decoded.
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


def deployed_client_app() -> ClientApp:
    """The ClientApp of a SuperNode: its device comes from the node-config, its task from the table `task` of the
    run-config, and its state from disk, since every message may meet a new process.

    The app raises BadInput where something in them is wrong; it reaches the log of the server too.
    """

    def device_of(context: Context) -> Device:
        name, arguments = task_reference(context.run_config)
        return deployed_device(context.node_config, name, arguments)

    return client_app(device_of)
