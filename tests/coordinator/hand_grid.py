"""Flower grids that a test holds in its hand: one that answers at once, and one whose answers take their time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from flwr.app import Error, Message, MessageType

from slimfleet.client.app import client_app
from slimfleet.client.device import Participant
from slimfleet.coordinator.transport.flower.messages import Reply
from slimfleet.simulations.grids.flower import context_of, give_id, identify_process


@dataclass
class HandGrid:
    """Flower's grid as far as a run uses it.

    `mute` nodes never do a round and `silent` ones never introduce themselves, or only after so many looks at the
    nodes; `late` ones connect after some looks; `killed` ones the link itself answers for. `asked` counts queries,
    `worked` is who was given work, and `waits` is called at every look for answers.
    """

    federation: object
    mute: set[int] = field(default_factory=set)
    late: dict[int, int] = field(default_factory=dict)
    silent: dict[int, float] = field(default_factory=dict)
    killed: dict[int, Error] = field(default_factory=dict)
    asked: Counter[int] = field(default_factory=Counter)
    worked: list[int] = field(default_factory=list)
    waits: Callable[[], None] = lambda: None
    looks: int = 0
    replies: dict[str, Message] = field(default_factory=dict)

    def __post_init__(self) -> None:
        identify_process()
        devices = self.federation.devices
        self._apps = {node: client_app(lambda _, device=device: device) for node, device in devices.items()}

    def get_node_ids(self) -> list[int]:
        self.looks += 1
        return [node for node in self._apps if self.looks > self.late.get(node, 0)]

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        ids = []
        for message in messages:
            ids.append(give_id(message))
            node, query = message.metadata.dst_node_id, message.metadata.message_type == MessageType.QUERY
            self.asked[node] += query
            self.worked += [] if query else [node]
            if node in self.killed and not query:
                reply = Message(self.killed[node], reply_to=message)
                reply.metadata.__dict__["_src_node_id"] = 1  # the link, not the node
                self.replies[ids[-1]] = reply
            elif node not in self.mute or query:
                self.replies[ids[-1]] = self._apps[node](message, context_of(node, {}))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        self.waits()
        wanted = [each for each in list(message_ids) if each in self.replies]
        ready = [each for each in wanted if not self._is_silent(self.replies[each])]
        return [self.replies.pop(each) for each in ready]

    def _is_silent(self, reply: Message) -> bool:
        query = reply.metadata.message_type == MessageType.QUERY
        return query and self.looks <= self.silent.get(reply.metadata.src_node_id, 0)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return self.pull_messages(self.push_messages(messages))


@dataclass
class Clock:
    """Time that passes where somebody sleeps; stands in for the module `time`."""

    now_s: float = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def monotonic(self) -> float:
        return self.now_s


@dataclass
class Fleet:
    """Devices by node."""

    devices: Mapping[int, Participant]


@dataclass
class TimedGrid(HandGrid):
    """A node answers a round as late as its device says that it worked, and an introduction `registers_s` after it was
    asked; a `mute` one does no round, and one that is in `silent` does not introduce itself."""

    clock: Clock = field(default_factory=Clock)
    registers_s: float = 0.5
    sent: list[Message] = field(default_factory=list)
    due_s: dict[str, float] = field(default_factory=dict)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        batch = list(messages)
        self.sent += batch
        ids = super().push_messages(batch)
        for id_ in self.replies.keys() & set(ids):
            self.due_s[id_] = self.clock.now_s + (Reply.of(self.replies[id_]).time_s or self.registers_s)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return super().pull_messages([i for i in message_ids if self.due_s.get(i, 0.0) <= self.clock.now_s])

    def rounds_sent(self) -> Counter[int]:
        """How often each node was given work."""
        return Counter(
            each.metadata.dst_node_id for each in self.sent if each.metadata.message_type == MessageType.TRAIN
        )
