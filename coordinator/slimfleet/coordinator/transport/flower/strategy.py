"""The one Flower Strategy of slimfleet: carries messages between a grid and the coordinator, and decides nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from slimfleet.compression import PayloadError, SlimfleetError
from slimfleet.compression.messages import Registration, parse, text_of
from slimfleet.compression.wire import REASONS
from slimfleet.coordinator.coordinator import Coordinator
from slimfleet.coordinator.learning.outcome import RoundRow
from slimfleet.coordinator.receiving.open_round import OpenRound
from slimfleet.coordinator.sending.dispatch import Dispatch

log = logging.getLogger(__name__)

POLL_S = 0.05
"""Pause between two looks for answers, where none had come."""

TRANSPORT_ERRORS: Mapping[int, str] = {4: "timeout", 5: "dropout", 8: "worker"}
"""Flower's codes for a reply that never came, a node that is gone, a worker that crashed; others count as `error`."""

REFUSALS = REASONS | {"energy_j", "deadline_s", "memory_bytes", "uplink_bytes", "local_steps"}
"""Reasons a device may give for not doing a round; any other word is counted as `refused`."""


class BudgetStrategy(Strategy):
    """Runs a coordinator's rounds over a Flower grid, taking every answer as it comes."""

    def __init__(
        self, coordinator: Coordinator, after_round: Callable[[RoundRow], None] | None = None
    ) -> None:
        self.coordinator = coordinator
        self._after_round = after_round
        self._opened: OpenRound | None = None
        self._models: dict[int, ArrayRecord] = {}

    def start(  # type: ignore[override]
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int | None = None,
        **_: object,
    ) -> Result:
        """Run the rounds that are left. The coordinator holds the model, so `initial_arrays` is not looked at."""
        self.summary()
        last = self.coordinator.settings.rounds if num_rounds is None else num_rounds
        result = Result()
        while self.coordinator.next_round <= last:
            number = self.coordinator.next_round
            messages = self.configure_train(number, ArrayRecord(), ConfigRecord(), grid)
            arrays, metrics = self.aggregate_train(number, self._answers(grid, list(messages)))
            if arrays is not None:
                result.arrays = arrays
            if metrics is not None:
                result.train_metrics_clientapp[number] = metrics
        return result

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Register devices that are new, open the round, and pack each device's work."""
        nodes = self._reachable(grid)
        self._register(grid, nodes)
        self._opened = self.coordinator.open_round(nodes)
        self._models = {}
        return [self._message(dispatch) for dispatch in self._opened.dispatches]

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Hand every answer to the open round, then close it."""
        opened = self._opened
        assert opened is not None, "configure_train opens the round"
        for reply in replies:
            _deliver(opened, reply)
        row = self.coordinator.close_round(opened)
        self._opened = None
        if self._after_round is not None:
            self._after_round(row)
        published = {name: Array(value) for name, value in self.coordinator.published().items()}
        accuracy = {} if row.accuracy is None else {"accuracy": row.accuracy}
        metrics = {"completed": row.completed, "energy_j": row.energy_j, "uplink_bytes": row.uplink_bytes}
        return ArrayRecord(published), MetricRecord({**metrics, **accuracy})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """The coordinator evaluates on held-out data of its own; devices are not troubled."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing was asked."""
        return None

    def summary(self) -> None:
        """Say what is about to run."""
        settings = self.coordinator.settings
        log.info(
            "task %s, rounds %d to %d, %d devices a round, planner %s, selection %s",
            self.coordinator.task.name,
            self.coordinator.next_round,
            settings.rounds,
            settings.selection.per_round,
            settings.planner,
            settings.selection.policy,
        )

    def _reachable(self, grid: Grid) -> list[int]:
        """The grid's nodes, once there are enough of them or the round's time is up."""
        settings = self.coordinator.settings
        until = time.monotonic() + settings.round_timeout_s
        nodes = list(grid.get_node_ids())
        while len(nodes) < settings.selection.min_devices and time.monotonic() < until:
            time.sleep(POLL_S)
            nodes = list(grid.get_node_ids())
        return nodes

    def _register(self, grid: Grid, nodes: list[int]) -> None:
        asked = [
            Message(RecordDict({}), dst_node_id=node, message_type=MessageType.QUERY)
            for node in self.coordinator.registry.missing(nodes)
        ]
        if not asked:
            return
        problem = "nothing"
        for reply in grid.send_and_receive(asked, timeout=self.coordinator.settings.round_timeout_s):
            node = reply.metadata.src_node_id
            try:
                registration = _registration(reply)
            except PayloadError as error:
                problem = str(error)
                log.warning("node %d could not register: %s", node, error)
            else:
                self.coordinator.register(node, registration.profile, registration.examples)
        if not len(self.coordinator.registry):
            raise SlimfleetError(f"none of {len(asked)} devices could register; the last one said: {problem}")

    def _message(self, dispatch: Dispatch) -> Message:
        # Devices of one width share one record, so that a grid stores and sends its bytes once.
        key = id(dispatch.payload)
        if key not in self._models:
            payload = dispatch.payload
            array = Array(dtype="uint8", shape=(len(payload),), stype="slimfleet.payload", data=payload)
            self._models[key] = ArrayRecord({"payload": array})
        text = ConfigRecord({"json": text_of(dispatch.assignment)})
        content = RecordDict({"model": self._models[key], "assignment": text})
        return Message(content, dst_node_id=dispatch.node, message_type=MessageType.TRAIN)

    def _answers(self, grid: Grid, messages: list[Message]) -> Iterator[Message]:
        """Push the messages and yield answers as they come, until all are in or the time is up."""
        if not messages:
            return
        waiting = set(grid.push_messages(messages))
        until = time.monotonic() + self.coordinator.settings.round_timeout_s
        while waiting and time.monotonic() < until:
            some = False
            for reply in grid.pull_messages(waiting):
                some = True
                waiting.discard(reply.metadata.reply_to_message_id)
                yield reply
            if not some:
                time.sleep(POLL_S)


def _registration(reply: Message) -> Registration:
    if reply.has_error():
        raise PayloadError("message", str(reply.error.reason)[:500])
    record = reply.content.config_records.get("registration", ConfigRecord())
    return parse(Registration, str(record.get("json", "")))


def _deliver(opened: OpenRound, reply: Message) -> None:
    """Read one answer, whatever it holds."""
    node = reply.metadata.src_node_id
    if reply.has_error():
        opened.fail(node, TRANSPORT_ERRORS.get(reply.error.code, "error"), str(reply.error.reason)[:500])
        return
    content = reply.content
    try:
        if "refusal" in content.config_records:
            refusal = content.config_records["refusal"]
            reason = str(refusal["reason"])
            opened.fail(node, reason if reason in REFUSALS else "refused", str(refusal["message"])[:500])
            return
        payload = content.array_records["update"]["payload"].data
        report = str(content.config_records["report"]["json"])
    except KeyError as missing:
        opened.fail(node, "incomplete", f"the answer has no {missing}")
        return
    opened.receive(node, payload, report)
