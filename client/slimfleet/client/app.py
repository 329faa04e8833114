"""Client app: a device as a Flower ClientApp, under Flower's own engine, our simulation or a real SuperNode."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from slimfleet.client.deployed import deployed_device
from slimfleet.client.device import Device, Participant
from slimfleet.client.refusing import LONGEST_MESSAGE, REFUSALS, Refusal, reason_of, round_line
from slimfleet.client.startup import Began
from slimfleet.compression import Assignment, BadInput, Payload
from slimfleet.compression.edge.app_config import log_to_stderr, task_reference
from slimfleet.compression.messages import parse, text_of

log = logging.getLogger("slimfleet")


def client_app(
    device_of: Callable[[Context], Participant],
    tell: Callable[[str], None] = log.debug,
    refused: tuple[type[Refusal], ...] = REFUSALS,
) -> ClientApp:
    """A ClientApp that answers for the device that `device_of` finds for a Flower context.

    `query` answers with the device's registration; `train` with the encoded update and the report. Either answers with
    the reason for refusing where an error of the kinds `refused` is raised: no step fits the budget, the device's own
    policy forbids it, the model cannot be decoded, or the input is wrong. Other errors are raised. `tell` is told of
    every answer, in one line.
    """
    app = ClientApp()

    @app.query()
    def register(message: Message, context: Context) -> Message:
        try:
            registration = device_of(context).registration()
        except refused as refusal:
            tell(f"cannot register: {refusal}")
            return _refused(message, refusal)
        tell(f"registers as {registration.profile.name} with {registration.examples} examples")
        text = ConfigRecord({"json": text_of(registration)})
        return Message(RecordDict({"registration": text}), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        content = message.content
        what = "a round"
        try:
            assignment = parse(Assignment, str(content.config_records["assignment"]["json"]))
            what = f"round {assignment.round_number}"
            received = content.array_records["model"]["payload"].data
            payload, report = device_of(context).do_round(assignment, Payload(received))
        except refused as refusal:
            tell(f"{what} is refused ({reason_of(refusal)}): {refusal}")
            return _refused(message, refusal)
        tell(f"{what}: {round_line(assignment, payload, report)}")
        array = Array(dtype="uint8", shape=(len(payload),), stype="slimfleet.payload", data=payload)
        answer = RecordDict({"update": ArrayRecord({"payload": array})})
        answer["report"] = ConfigRecord({"json": text_of(report)})
        return Message(answer, reply_to=message)

    return app


def deployed_client_app() -> ClientApp:
    """The ClientApp of a SuperNode: its device comes from the node-config, its task from the table `task` of the
    run-config, and its state from disk, since every message may meet a new process.

    The first message is charged with the start of the process, which was started for it. Where something in the configs
    is wrong, the answer says so, here and in the log of the server.
    """
    log_to_stderr("slimfleet: %(message)s")
    began = [Began.of_process()]

    def device_of(context: Context) -> Device:
        name, arguments = task_reference(context.run_config)
        moment = began.pop() if began else Began.now()
        return deployed_device(context.node_config, name, arguments, lambda: moment)

    return client_app(device_of, log.info, refused=(BadInput, *REFUSALS))


def _refused(message: Message, refusal: Refusal) -> Message:
    text = {"reason": reason_of(refusal), "message": str(refusal)[:LONGEST_MESSAGE]}
    if refusal.spent is not None:
        text["spent"] = text_of(refusal.spent)
    return Message(RecordDict({"refusal": ConfigRecord({**text})}), reply_to=message)
