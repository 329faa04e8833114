"""Runs over a grid that a test holds in its hand: who is waited for, how long, and what observers are told."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from flwr.app import ConfigRecord, Message, MessageType, RecordDict

from slimfleet.client.app import client_app
from slimfleet.compression import SlimfleetError
from slimfleet.coordinator import Answer, Closed, Planned, Saved
from slimfleet.coordinator.checkpoint import checkpoints
from slimfleet.coordinator.transport.flower import run
from slimfleet.simulations.grids.flower import context_of, give_id, identify_process


@dataclass
class HandGrid:
    """Flower's grid as far as a run uses it. `mute` nodes never answer, `late` ones connect after some looks."""

    federation: object
    mute: set[int] = field(default_factory=set)
    late: dict[int, int] = field(default_factory=dict)
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
            node = message.metadata.dst_node_id
            if node not in self.mute or message.metadata.message_type == MessageType.QUERY:
                self.replies[ids[-1]] = self._apps[node](message, context_of(node, {}))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        return [self.replies.pop(each) for each in list(message_ids) if each in self.replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        return self.pull_messages(self.push_messages(messages))


@pytest.fixture
def unregistered(federate):
    """A federation whose devices still have to introduce themselves."""

    def make(**tables):
        federation = federate(**tables)
        federation.state.registry = type(federation.state.registry)()
        return federation

    return make


def test_observers_are_told_of_every_event_in_its_order(unregistered, tmp_path):
    federation, events = unregistered(rounds=2), []
    run(federation.coordinator, HandGrid(federation), tmp_path, [events.append])
    kinds = [type(event) for event in events]
    assert kinds == 2 * [Planned, *4 * [Answer], Closed, Saved]
    assert [event.row.completed for event in events if isinstance(event, Closed)] == [4, 4]
    assert len(checkpoints(tmp_path / "checkpoint")) == 2


def test_a_run_takes_its_checkpoint_up(unregistered, tmp_path):
    whole, first, second = (unregistered(rounds=3, state=name) for name in ("whole", "broken", "broken"))
    run(whole.coordinator, HandGrid(whole), None)

    def breaks(event):
        if isinstance(event, Saved) and event.folder.name == "round-000002":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(first.coordinator, HandGrid(first), tmp_path / "out", [breaks])
    run(second.coordinator, HandGrid(second), tmp_path / "out")
    assert second.state_bytes() == whole.state_bytes()
    assert len(second.state.rows) == 3


def test_a_mute_node_is_waited_for_until_the_rounds_time_is_up(unregistered):
    federation = unregistered(rounds=1, round_timeout_s=0.3)
    began = time.monotonic()
    run(federation.coordinator, HandGrid(federation, mute={12}), None)
    assert time.monotonic() - began >= 0.3
    assert federation.state.totals.failed == {"timeout": 1}
    assert federation.state.rows[0].completed == 3


def test_a_round_waits_for_enough_devices_and_no_longer_than_it_may(unregistered):
    late = dict.fromkeys((13, 14), 3)
    waits = unregistered(rounds=1, selection={"min_devices": 4})
    run(waits.coordinator, HandGrid(waits, late=late), None)
    assert waits.state.rows[0].selected == 4
    does_not = unregistered(rounds=1, selection={"min_devices": 2}, state="other")
    run(does_not.coordinator, HandGrid(does_not, late=late), None)
    assert does_not.state.rows[0].selected == 2
    gives_up = unregistered(rounds=1, round_timeout_s=0.2, selection={"min_devices": 5}, state="third")
    run(gives_up.coordinator, HandGrid(gives_up), None)
    assert gives_up.state.rows[0].selected == 4


def test_answers_of_strangers_and_unreadable_ones_harm_no_device(unregistered):
    class Odd(HandGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            replies = super().pull_messages(message_ids)
            for reply in replies:
                if reply.metadata.src_node_id == 11 and "update" in reply.content:
                    del reply.content["report"]
                if reply.metadata.src_node_id == 12 and "update" in reply.content:
                    reply.metadata.__dict__["_src_node_id"] = 99
                if reply.metadata.src_node_id == 13 and "update" in reply.content:
                    odd = RecordDict(
                        {"refusal": ConfigRecord({"reason": "astrology", "message": "the stars"})}
                    )
                    reply.content = odd
            return replies

    federation = unregistered(rounds=1, round_timeout_s=2.0)
    run(federation.coordinator, Odd(federation), None)
    totals = federation.state.totals
    assert totals.rejected == {"replay": 1}
    assert totals.failed == {"incomplete": 1, "refused": 1, "timeout": 1}
    assert federation.state.rows[0].completed == 1


def test_a_run_without_any_device_says_what_the_last_one_said(unregistered):
    federation = unregistered(rounds=1)

    class Broken(HandGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            replies = super().pull_messages(message_ids)
            for reply in replies:
                reply.content = RecordDict({})
            return replies

    with pytest.raises(
        SlimfleetError, match=r"none of 4 devices could register; the last one said: .*Registration"
    ):
        run(federation.coordinator, Broken(federation), None)
