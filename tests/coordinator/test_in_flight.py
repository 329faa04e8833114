"""Work in flight: what pacing asks of it at every answer does not grow with it, and replies are parsed once."""

from __future__ import annotations

from collections import Counter
from math import inf, log2
from types import SimpleNamespace

import pytest
from flwr.app import ArrayRecord, ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from slimfleet.compression import Report
from slimfleet.compression.messages import parse
from slimfleet.coordinator import pacing
from slimfleet.coordinator.receiving import answer
from slimfleet.coordinator.sending.work import InFlight
from slimfleet.coordinator.settings import CoordinatorSettings, PacingSettings
from slimfleet.coordinator.transport.flower import messages
from slimfleet.coordinator.transport.flower.messages import Reply, entry_of


def work(plan_id: int, sent_s: float = 0.0, version: int = 1) -> SimpleNamespace:
    return SimpleNamespace(plan_id=plan_id, sent_s=sent_s, version=version)


STEPS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 30), st.floats(0, 9), st.integers(1, 3)), min_size=1, max_size=60
)


@given(STEPS)
def test_it_knows_what_a_walk_over_it_would_find(steps):
    in_flight, plain = InFlight(), {}
    for is_put, plan_id, sent_s, version in steps:
        if is_put:
            in_flight.put([work(plan_id, sent_s, version)])
            plain[plan_id] = in_flight[plan_id]
        else:
            assert in_flight.pop(plan_id, None) is plain.pop(plan_id, None)
        assert in_flight == plain
        assert in_flight.first_sent_s() == min([inf, *(each.sent_s for each in plain.values())])
        assert in_flight.versions() == {each.version for each in plain.values()}
        for number in (1, 2, 3):
            assert in_flight.of_version(number) == sum(each.version == number for each in plain.values())


class Counted(float):
    """A moment that counts how often it is looked at."""

    looks = 0

    def _looked(self) -> None:
        Counted.looks += 1

    def __lt__(self, other):
        self._looked()
        return float(self) < other

    def __eq__(self, other):
        self._looked()
        return float(self) == other

    def __add__(self, other):
        self._looked()
        return float(self) + other

    __hash__ = float.__hash__


class Unwalked(InFlight):
    def __iter__(self):
        raise AssertionError("a walk over all work in flight")


@pytest.mark.parametrize("mode", ["synchronous", "asynchronous"])
def test_ten_thousand_devices_at_work_are_not_looked_through_at_every_answer(mode):
    settings, count = CoordinatorSettings(pacing=PacingSettings(mode=mode)), 10_000
    # Half are of an earlier round, late in a synchronous one, and stand before the others.
    in_flight = Unwalked(work(n, Counted(n % 97), version=1 + 2 * n // count) for n in range(count))
    opened = SimpleNamespace(number=2, closes_s=inf, mean=SimpleNamespace(updates=0))
    state, Counted.looks = SimpleNamespace(in_flight=in_flight, open_round=opened, next_round=2), 0
    for n in range(count):
        assert pacing.next_alarm_s(state, settings) <= 96 + settings.round_timeout_s
        is_awaited = len(in_flight) if mode == "asynchronous" else in_flight.of_version(2)
        assert pacing.is_due(state, settings, 0.0) == (not is_awaited)
        del in_flight[n * 7919 % count]
    assert pacing.next_alarm_s(state, settings) == inf
    assert count < Counted.looks <= 10 * count * log2(count)


def reply_to(federation, dispatch) -> SimpleNamespace:
    """What the device's app sends back, in as much of a message as is looked at."""
    payload, text = federation.answer(dispatch)
    update = ArrayRecord({"payload": messages._record(payload)["payload"]})
    content = RecordDict({"update": update, "report": ConfigRecord({"json": text})})
    return SimpleNamespace(content=content, has_error=lambda: False)


def test_a_report_is_parsed_once(federate, monkeypatch):
    federation, parsed = federate(), Counter()

    def counted(kind, text):
        parsed[kind] += 1
        return parse(kind, text)

    monkeypatch.setattr(messages, "parse", counted)
    monkeypatch.setattr(answer, "parse", counted)
    dispatches = federation.plan().dispatches
    for dispatch in dispatches:
        reply = Reply.of(reply_to(federation, dispatch))
        assert reply.time_s == reply.said.spent.time_s > 0
        (judged,) = federation.take(entry_of(dispatch.plan_id, reply))
        assert judged.verdict == "accepted"
    assert parsed == {Report: len(dispatches)}


@pytest.mark.parametrize("text", ["", "[]", '{"spent": 1}', "{" * 10_000, "x" * 10**6])
def test_a_report_that_cannot_be_understood_tells_no_time_and_is_rejected(federate, text):
    federation = federate()
    dispatch = federation.plan().dispatches[0]
    message = reply_to(federation, dispatch)
    message.content.config_records["report"]["json"] = text
    reply = Reply.of(message)
    assert (reply.said, reply.time_s) == (None, None)
    (judged,) = federation.take(entry_of(dispatch.plan_id, reply))
    assert (judged.verdict, judged.reason) == ("rejected", "message")
