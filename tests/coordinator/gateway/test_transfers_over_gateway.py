"""Models and updates over a real gateway: cut, resumed, replayed, and counted once."""

from __future__ import annotations

import hashlib

import pytest
from relay import Relay

from slimfleet.client.gateway.calling import Away, Declined
from slimfleet.compression.device_api import CHUNK_BYTES, PIECE_BYTES, Done, Plan, Refusal, ReportRequest
from slimfleet.coordinator.entries import Failed, Received

UPDATE = bytes(i * 7 % 253 for i in range(500_000))
SHA256 = hashlib.sha256(UPDATE).digest()


def plan_of(calls) -> Plan:
    answer = calls.check_in("", "")
    assert answer.WhichOneof("next") == "plan"
    return answer.plan


def done(plan: Plan) -> ReportRequest:
    return ReportRequest(plan_id=plan.plan_id, done=Done(report_json="{}", update_sha256=SHA256))


def test_a_download_goes_on_where_it_was_cut(opened, big_work):
    hall, dispatch = opened(), big_work()
    hall.gateway.link.send([dispatch])
    relay = hall.relay(pause_s=0.01)
    calls = hall.connection(port=relay.port)
    plan, there = plan_of(calls), bytearray()
    relay.allow("down", 200_000)
    with pytest.raises(Away):
        calls.download(plan, there)
    kept = len(there)
    assert 0 < kept < 200_000
    calls.download(plan, there)
    assert bytes(there) == dispatch.payload
    assert hashlib.sha256(there).digest() == plan.model_sha256
    # What had passed when the cut came but had not been read is sent again, and nothing else.
    assert relay.passed["down"] < 1.02 * (200_000 + len(dispatch.payload) - kept)


def test_an_upload_that_is_cut_three_times_counts_once_however_often_it_is_reported(opened, big_work):
    hall, dispatch = opened(), big_work()
    link = hall.gateway.link
    link.send([dispatch])
    relay = hall.relay(pause_s=0.01)
    calls = hall.connection(port=relay.port)
    plan, offsets = plan_of(calls), []
    while not offsets or offsets[-1] < len(UPDATE):
        if relay.cuts < 3:
            relay.allow("up", 150_000)
        try:
            offsets.append(calls.received(plan, SHA256))
            calls.upload(plan, SHA256, UPDATE, offsets[-1])
        except Away:
            continue
    assert relay.cuts == 3
    assert offsets == sorted(offsets)
    assert relay.passed["up"] < 1.7 * len(UPDATE)
    for _ in range(3):
        calls.report(done(plan))
    (came,) = link.came()
    assert came.answer == Received(plan_id=dispatch.plan_id, report="{}", payload=UPDATE)
    assert not link.is_waiting()
    # A replay from the first byte on: nothing is in flight under its number any more.
    with pytest.raises(Declined) as declined:
        calls.upload(plan, SHA256, UPDATE, 0)
    assert declined.value.status == "NOT_FOUND"
    calls.report(done(plan))
    assert link.came() == []


def test_a_cut_costs_no_more_than_a_piece(opened, big_work):
    """On a thin link a piece is a good part of a second, and one that is never whole would be sent for ever."""
    hall = opened()
    hall.gateway.link.send([big_work()])
    relay = Relay(hall.gateway.port, pause_s=0.1)  # a cut drops what nobody has read yet
    hall.stack.callback(relay.close)
    calls = hall.connection(port=relay.port)
    plan, there = plan_of(calls), 0
    for _ in range(3):
        assert calls.received(plan, SHA256) == there
        relay.allow("up", 50_000)
        with pytest.raises(Away):
            calls.upload(plan, SHA256, UPDATE, there)
        before, there = there, calls.received(plan, SHA256)
        assert there - before > 50_000 - 2 * PIECE_BYTES
    calls = hall.connection()
    calls.upload(plan, SHA256, UPDATE, there)
    calls.report(done(plan))
    assert hall.gateway.link.came()[0].answer.payload == UPDATE


def test_an_update_that_did_not_come_whole_is_not_taken(opened, big_work):
    hall = opened()
    hall.gateway.link.send([big_work()])
    calls = hall.connection()
    plan = plan_of(calls)
    calls.upload(plan, SHA256, UPDATE[:-1], 0)
    with pytest.raises(Declined) as declined:
        calls.report(done(plan))
    assert declined.value.status == "FAILED_PRECONDITION"
    assert hall.gateway.link.came() == []
    calls.upload(plan, SHA256, UPDATE, calls.received(plan, SHA256))
    calls.report(done(plan))
    assert len(hall.gateway.link.came()) == 1


def test_another_update_to_the_same_plan_begins_anew(opened, big_work):
    hall = opened()
    hall.gateway.link.send([big_work()])
    calls = hall.connection()
    plan = plan_of(calls)
    calls.upload(plan, b"other", bytes(100_000), 0)
    assert calls.received(plan, SHA256) == 0
    calls.upload(plan, SHA256, UPDATE, 0)
    calls.report(done(plan))
    assert hall.gateway.link.came()[0].answer.payload == UPDATE


@pytest.mark.parametrize(
    ("size", "offset", "reason"),
    [(CHUNK_BYTES + 1, 0, "size"), (100, 1, "offset"), (100, 500_000 - 99, "offset")],
)
def test_a_chunk_that_is_too_long_or_out_of_place_is_refused(opened, big_work, size, offset, reason):
    from slimfleet.client.gateway import connection

    hall = opened()
    hall.gateway.link.send([big_work()])
    calls = hall.connection()
    plan = plan_of(calls)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connection, "PIECE_BYTES", size)
        with pytest.raises(Declined):
            calls.upload(plan, SHA256, bytes(offset + size), offset)
    assert hall.refused() == {reason: 1}
    assert calls.received(plan, SHA256) == 0


def test_an_update_beyond_its_plan_is_refused_with_what_had_come_kept(opened, big_work):
    hall = opened()
    hall.gateway.link.send([big_work(size=100_000)])
    calls = hall.connection()
    plan = plan_of(calls)
    with pytest.raises(Declined, match="limit is 100000"):
        calls.upload(plan, SHA256, UPDATE, 0)
    assert hall.refused() == {"size": 1}
    assert 100_000 - PIECE_BYTES < calls.received(plan, SHA256) <= 100_000


def test_a_refusal_is_told_in_the_words_of_a_bounded_set(opened, big_work):
    hall = opened()
    calls = hall.connection()
    for reason in ("battery_low", "because\nno"):
        dispatch = big_work()
        hall.gateway.link.send([dispatch])
        plan = plan_of(calls)
        calls.report(ReportRequest(plan_id=plan.plan_id, refusal=Refusal(reason=reason, message="a\nb")))
        (came,) = hall.gateway.link.came()
        known = "battery_low" if reason == "battery_low" else "refused"
        assert came.answer == Failed(plan_id=dispatch.plan_id, reason=known, message="a b")


def test_work_that_was_given_up_is_not_awaited(opened, big_work):
    hall, dispatch = opened(), big_work()
    hall.gateway.link.send([dispatch])
    calls = hall.connection()
    plan = plan_of(calls)
    hall.gateway.link.forget([dispatch.plan_id])
    with pytest.raises(Declined) as declined:
        calls.download(plan, bytearray())
    assert declined.value.status == "NOT_FOUND"
    assert calls.check_in("", "").WhichOneof("next") == "wait"
