"""Flower's side of a simulation: the fleet as a ClientApp, and a grid in front of an engine.

All that slimfleet touches of Flower's internals is here.

Flower has no public way to run apps on a foreign engine: messages carry an id that only its own grids set, and
the process must know which task it runs. `tests/simulations/test_flower_contract.py` checks what is relied on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from flwr.app import ConfigRecord, Context, Error, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from slimfleet.client.app import client_app
from slimfleet.client.cohort.rounds import CohortRounds
from slimfleet.client.cohort.training import torch_device
from slimfleet.client.device import Participant
from slimfleet.compression import BadInput
from slimfleet.simulations.carried_states import CarriedStates
from slimfleet.simulations.fleet import BEGIN, Moment
from slimfleet.simulations.grids.cohort.worker import Worker
from slimfleet.simulations.settings import Scenario
from slimfleet.simulations.virtual_devices import DeviceLost, VirtualDevices

__all__ = [
    "APP_RAISED",
    "NODE_GONE",
    "NO_REPLY",
    "RUN_ID",
    "SERVER_NODE",
    "WORKER_CRASHED",
    "Engine",
    "EngineGrid",
    "answer",
    "context_of",
    "devices_of",
    "error_reply",
    "fleet_app",
    "give_id",
    "identify_process",
    "rebuilt",
]

RUN_ID = 1
SERVER_NODE = 1

_WAIT_S = 1.0
"""How long the grid waits for the first answer. An answer ends the wait."""

MOMENT = "moment"
"""The record of a message that says when, in virtual time, its device begins to work on it."""

NO_REPLY: int = ErrorCode.REPLY_MESSAGE_UNAVAILABLE
NODE_GONE: int = ErrorCode.NODE_UNAVAILABLE
WORKER_CRASHED: int = ErrorCode.CLIENT_APP_CRASHED
APP_RAISED: int = ErrorCode.CLIENT_APP_RAISED_EXCEPTION


def fleet_app(scenario: Scenario, state: Path | CarriedStates) -> ClientApp:
    """A ClientApp that answers for any device of the fleet, by the `partition-id` of its node's config, and for many at
    once where a message holds the work of a cohort.

    `state` is where devices keep what must outlast a round: a folder, or files that travel with their work.
    """
    devices = VirtualDevices(scenario, state)

    def device_of(context: Context) -> Participant:
        return devices.device(int(context.node_config["partition-id"]), lambda: _moment_in(context))

    app = client_app(device_of)
    rounds = CohortRounds(torch_device(scenario.run.device))
    worker = Worker(devices.blueprint, lambda node, moment: devices.device(node - 1, moment), rounds)

    @app.train("cohort")
    def cohort(message: Message, context: Context) -> Message:
        return worker.answer(message)

    return app


def _moment_in(context: Context) -> Moment:
    """When the work on a message begins; the begin of virtual time where the grid did not say."""
    known = context.node_config
    charge_j = known.get("charge-j")
    return Moment(
        float(known.get("now-s", 0.0)),
        None if charge_j is None else float(charge_j),
        float(known.get("stays-s", inf)),
        float(known.get("heat-w", 0.0)),
    )


def _record_of(moment: Moment) -> ConfigRecord:
    """A moment as entries of a node-config."""
    charge = {} if moment.charge_j is None else {"charge-j": moment.charge_j}
    return ConfigRecord({"now-s": moment.now_s, "stays-s": moment.stays_s, "heat-w": moment.heat_w, **charge})


def identify_process() -> None:
    """Tell Flower which task this process runs: without it no message can be made."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SERVER_NODE, 1


def give_id(message: Message) -> str:
    """Give a message the id that Flower's own grids give when they store it."""
    message_id = str(uuid4())
    message.metadata.__dict__["_message_id"] = message_id
    return message_id


def rebuilt(metadata: Metadata, content: RecordDict) -> Message:
    """A message from its parts, on the far side of a process boundary."""
    return Message(metadata=metadata, content=content)  # type: ignore[call-overload, no-any-return]


def answer(app: ClientApp, message: Message, context: Context) -> Message:
    """Run a client app on one message, at the moment that the grid wrote on it.

    What the app raises becomes an error reply, as in Flower's engine.
    BadInput is raised again: it is about the scenario's task or the disk, not about one device.
    """
    moment = message.content.config_records.get(MOMENT, ConfigRecord())
    context.node_config.update({key: value for key, value in moment.items() if isinstance(value, float)})
    try:
        return app(message, context)
    except BadInput:
        raise
    except DeviceLost as lost:
        return error_reply(message, NODE_GONE, str(lost))
    except Exception as error:  # noqa: BLE001 - whatever a device's code raises must not end the round
        return error_reply(message, APP_RAISED, f"{type(error).__name__}: {error}")


def error_reply(message: Message, code: int, reason: str) -> Message:
    """A reply that says why there is no answer."""
    return Message(Error(code=code, reason=reason[:500]), reply_to=message)


def context_of(node: int, node_config: Mapping[str, int | str | float | bool]) -> Context:
    """A fresh context of a node."""
    return Context(
        run_id=RUN_ID, node_id=node, node_config=dict(node_config), state=RecordDict(), run_config={}
    )


def devices_of(message: Message) -> list[int]:
    """The devices that a message gives work to, whose states it needs."""
    cohort = message.content.config_records.get("cohort")
    nodes = [message.metadata.dst_node_id] if cohort is None else cohort["nodes"]
    assert isinstance(nodes, list)
    return [int(node) - 1 for node in nodes]


class Engine(Protocol):
    """Something that does devices' work: in this process, or on Ray."""

    def submit(self, messages: Sequence[Message]) -> None:
        """Take work, behind what was submitted earlier."""
        ...

    def collect(self, timeout_s: float) -> list[Message]:
        """Answers that are ready, waiting for the first at most so long."""
        ...

    def close(self) -> None:
        """Let go of processes and memory."""
        ...


class EngineGrid(Grid):
    """Flower's view of an engine: a fixed set of nodes, messages out, answers in.

    `moments` tells when, in virtual time, the devices of some nodes begin to work on what they are sent now; those that
    it leaves out begin at the begin of virtual time.
    """

    def __init__(
        self,
        nodes: Sequence[int],
        engine: Engine,
        moments: Callable[[Sequence[int]], Mapping[int, Moment]] = lambda nodes: {},
    ) -> None:
        identify_process()
        self._moments = moments
        self._nodes = nodes
        self._engine = engine
        self._run = Run.create_empty(RUN_ID)
        self._answers: dict[str, Message] = {}

    @property
    def run(self) -> Run:
        """Flower's description of the run; empty here."""
        return self._run

    def set_run(self, run: Run) -> None:
        """Take another description."""
        self._run = run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Make a message the way older apps do."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Sequence[int]:
        """Every node of the fleet; the environment knows which of them a round can reach."""
        return self._nodes

    def get_nodes(self) -> list[NodeInfo]:
        """The same as Flower's records."""
        return [NodeInfo(node_id=node) for node in self._nodes]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Hand messages to the engine; the ids returned are what `pull_messages` takes."""
        batch = list(messages)
        moments = self._moments([message.metadata.dst_node_id for message in batch])
        for message in batch:
            message.content[MOMENT] = _record_of(moments.get(message.metadata.dst_node_id, BEGIN))
        ids = [give_id(message) for message in batch]
        self._engine.submit(batch)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Answers to these messages that have come; waits a moment for the first."""
        return self._pull(message_ids, _WAIT_S)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push, and wait for all answers or for `timeout` seconds."""
        waiting = set(self.push_messages(messages))
        until = time.monotonic() + (inf if timeout is None else timeout)
        answers: list[Message] = []
        while waiting and time.monotonic() < until:
            for reply in self._pull(waiting, min(_WAIT_S, max(until - time.monotonic(), 0.0))):
                waiting.discard(reply.metadata.reply_to_message_id)
                answers.append(reply)
        return answers

    def _pull(self, message_ids: Iterable[str], timeout_s: float) -> list[Message]:
        for reply in self._engine.collect(timeout_s):
            give_id(reply)
            self._answers[reply.metadata.reply_to_message_id] = reply
        return [self._answers.pop(i) for i in list(message_ids) if i in self._answers]
