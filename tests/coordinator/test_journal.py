"""A journal between checkpoints: what has happened since the last step outlives the coordinator."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from math import inf

import pytest
from hand_grid import HandGrid

from slimfleet.compression.errors import DiskError
from slimfleet.coordinator import Answer, Planned, Saved, WallEnvironment
from slimfleet.coordinator.checkpoint import checkpoints
from slimfleet.coordinator.entries import Failed, Received, packed, unpacked
from slimfleet.coordinator.environment import Instant
from slimfleet.coordinator.journal import MAGIC, START, Journal, records
from slimfleet.coordinator.keeping import JOURNAL, Keeper
from slimfleet.coordinator.transport.flower import run

NOW = Instant(now_s=3.0, at=5.0)
ASYNCHRONOUS = {"mode": "asynchronous", "buffer": 3, "concurrency": 4}


class Killed(Exception):
    pass


def bare(answers):
    """Answers without what index maps compare by, which is their identity."""
    return [(each.dispatch.plan_id, replace(each, dispatch=None)) for each in answers]


def killed_after(answers, events=None):
    """An observer that stops a run dead when so many answers have come."""
    left = [answers]

    def observe(event):
        if events is not None:
            events.append(event)
        left[0] -= isinstance(event, Answer)
        if isinstance(event, Answer) and left[0] == 0:
            raise Killed

    return observe


@pytest.fixture
def three(tmp_path):
    """A journal of three records, and where each ends."""
    path = tmp_path / JOURNAL
    journal = Journal(path, durable=True)
    for number in range(3):
        journal.add(f"record {number}", bytes([number]) * 10)
    return path, [each.end for each in records(path)]


def texts(path):
    return [each.text for each in records(path)]


def test_records_come_back_in_order(three):
    path, ends = three
    assert texts(path) == ["record 0", "record 1", "record 2"]
    assert [each.body for each in records(path)] == [bytes([n]) * 10 for n in range(3)]
    assert ends[-1] == path.stat().st_size


def test_any_torn_tail_leaves_the_records_before_it(three):
    path, ends = three
    content = path.read_bytes()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        assert len(texts(path)) == sum(end <= size for end in ends)


def test_any_flipped_bit_ends_the_journal_there(three):
    path, ends = three
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert len(texts(path)) == (0 if at < len(MAGIC) else sum(end <= at for end in ends))


def test_records_that_change_places_are_not_taken(three):
    path, (first, second, third) = three
    content = path.read_bytes()
    path.write_bytes(content[:first] + content[second:third] + content[first:second])
    assert texts(path) == ["record 0"]


def test_a_journal_goes_on_behind_a_record_and_forgets_the_others(three):
    path, _ = three
    first = next(records(path))
    Journal(path, durable=False, after=first).add("another")
    assert texts(path) == ["record 0", "another"]


def test_no_file_is_an_empty_journal_and_one_that_vanishes_is_an_error(tmp_path):
    assert texts(tmp_path / "nothing") == []
    journal = Journal(tmp_path / JOURNAL, durable=False)
    (tmp_path / JOURNAL).unlink()
    with pytest.raises(DiskError, match=r"journal\.bin: No such file"):
        journal.add("more")


def test_an_answer_that_is_refused_for_its_length_leaves_only_that(federate):
    """Whatever a device sends, the journal holds no more of it than it was allowed."""
    federations = federate(state="one"), federate(state="other")
    answers = []
    for federation, again in zip(federations, (False, True), strict=True):
        first, second, third, _ = federation.plan().dispatches
        _, report = federation.answer(first)
        for dispatch, payload, text in ((first, bytes(10**6), report), (second, b"x", "y" * 10**6)):
            entry = Received(plan_id=dispatch.plan_id, report=text, payload=payload)
            kept, body = packed(entry, NOW, federation.state)
            assert len(kept) + len(body) < 20_000
            answers += federation.take(unpacked(kept, body)[0] if again else entry)
        unasked = Received(plan_id=1, report="", payload=bytes(10**6))
        assert packed(unasked, NOW, federation.state)[1] == b""
        assert third.plan_id in federation.state.in_flight
    assert bare(answers[:2]) == bare(answers[2:])
    assert [each.received_bytes for each in answers[:2]] == [10**6, 1]


def test_moments_come_back_exactly(federate):
    federation = federate()
    entry, then = (
        Failed(plan_id=2**64 - 1, reason="dropout", message="\ud800"),
        Instant(now_s=0.1 + 0.2, at=1e-9),
    )
    assert unpacked(*packed(entry, then, federation.state)) == (entry, then)


@dataclass
class Clock:
    """A wall clock that a test sets."""

    now: float = 1_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def deployed(federate, clock, **tables):
    """A federation in wall-clock time whose devices still have to introduce themselves."""
    federation = federate(rounds=3, **tables)
    federation.state.registry = type(federation.state.registry)()
    federation.coordinator.environment = WallEnvironment(clock)
    return federation


@pytest.mark.parametrize("pacing", [{}, ASYNCHRONOUS], ids=["synchronous", "asynchronous"])
@pytest.mark.parametrize("answers", [2, 5])
def test_devices_that_have_answered_are_not_asked_again(federate, tmp_path, pacing, answers, caplog):
    """A coordinator in wall-clock time dies in mid-round, or with a half-full buffer, and an hour later goes on."""
    caplog.set_level(logging.INFO)
    clock, told = Clock(), []
    dead, next_ = (deployed(federate, clock, pacing=pacing) for _ in range(2))
    with pytest.raises(Killed):
        run(dead.coordinator, HandGrid(dead), tmp_path, [killed_after(answers, told)])
    opened, then = dead.state.open_round, dict(dead.state.in_flight)
    clock.now += 3_600.0
    grid, again = HandGrid(next_), []

    def look(event):
        if not again:
            again.append({k: replace(v, handed_out_at=inf) for k, v in next_.state.in_flight.items()})
            now = next_.state.open_round
            assert bare(now.answers) == bare(opened.answers)
            assert now.mean.updates == opened.mean.updates
            assert all((now.mean.mean()[name] == v).all() for name, v in opened.mean.mean().items())
            assert now.skipped == opened.skipped
            assert now.selected == opened.selected
            assert now.opened_s == pytest.approx(opened.opened_s + 3_600.0, abs=0.1)
        told.append(event)

    run(next_.coordinator, grid, tmp_path, [look])
    assert again[0].keys() == then.keys()
    for plan_id, dispatch in again[0].items():
        assert dispatch.payload == then[plan_id].payload
        assert dispatch.assignment == then[plan_id].assignment
        assert dispatch.sent_s == pytest.approx(then[plan_id].sent_s + 3_600.0, abs=0.1)
    assert sum(grid.asked.values()) == 0, "their registrations are kept too"
    assert grid.worked[: len(then)] == [each.node for each in then.values()]
    ends = [each.dispatch.plan_id for each in told if isinstance(each, Answer)]
    assert len(ends) == len(set(ends)), "no part of a round comes to two ends"
    assert sum(next_.state.totals.outcomes.values()) == sum(row.selected for row in next_.state.rows)
    goes_on = f"goes on: {len(opened.answers)} answers were kept, {len(then)} devices are sent"
    assert goes_on in caplog.text


def kept(federation, folder):
    keeper = Keeper(federation.coordinator, folder / "checkpoint")
    keeper.begin()
    return keeper


def test_a_silent_device_that_was_given_up_stays_so_and_a_round_keeps_its_age(federate, tmp_path):
    clock = Clock()
    dead, next_ = (deployed(federate, clock, round_timeout_s=10.0) for _ in range(2))
    mute = HandGrid(dead, mute={12, 13}, waits=lambda: setattr(clock, "now", clock.now + 6.0))
    with pytest.raises(Killed):
        run(dead.coordinator, mute, tmp_path, [killed_after(3)])
    assert dead.state.open_round.answers[-1].reason == "timeout"
    clock.now += 3_600.0
    kept(next_, tmp_path)
    assert bare(next_.state.open_round.answers) == bare(dead.state.open_round.answers)
    assert next_.state.in_flight.keys() == dead.state.in_flight.keys()


def test_killed_again_and_again_it_comes_to_the_same_bytes(federate, tmp_path):
    """Also where it is killed as soon as it has come back, and where its journal is torn."""
    clock = Clock()
    whole = deployed(federate, clock, state="whole")
    run(whole.coordinator, HandGrid(whole), None)
    for _ in range(11):
        federation = deployed(federate, clock)
        clock.now += 100.0
        with pytest.raises(Killed):
            run(federation.coordinator, HandGrid(federation), tmp_path, [killed_after(1)])
        if federation.state.next_round == 2:
            kept(deployed(federate, clock), tmp_path)
            with (checkpoints(tmp_path / "checkpoint")[-1] / JOURNAL).open("ab") as file:
                file.write(b"torn")
    last = deployed(federate, clock)
    run(last.coordinator, HandGrid(last), tmp_path)
    assert last.state_bytes() == whole.state_bytes()
    assert last.state.totals.outcomes == {"done": 12}


def test_a_torn_journal_costs_its_last_answer_and_one_line(federate, tmp_path, caplog):
    clock = Clock()
    dead, next_ = (deployed(federate, clock) for _ in range(2))
    with pytest.raises(Killed):
        run(dead.coordinator, HandGrid(dead), tmp_path, [killed_after(3)])
    path = checkpoints(tmp_path / "checkpoint")[-1] / JOURNAL
    os.truncate(path, path.stat().st_size - 1)
    kept(next_, tmp_path)
    assert len(next_.state.open_round.answers) == 2
    assert len(next_.state.in_flight) == 2
    (line,) = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert f"{JOURNAL}: the last" in line
    assert "bytes are left out" in line


@pytest.mark.parametrize(("bits", "said"), [(8, "is not the one that it was sent"), (32, "no versions")])
def test_a_model_that_is_not_the_one_that_was_sent_ends_the_journal(federate, tmp_path, caplog, bits, said):
    """Another encoder, or another setting of it: what devices hold cannot be told from the journal."""
    clock = Clock()
    dead, next_ = deployed(federate, clock), deployed(federate, clock, codec={"downlink_bits": bits})
    with pytest.raises(Killed):
        run(dead.coordinator, HandGrid(dead), tmp_path, [killed_after(2)])
    kept(next_, tmp_path)
    assert next_.state.in_flight == {}
    assert said in caplog.text
    assert len(next_.state.registry) == 4


def test_a_damaged_checkpoint_costs_no_answer_of_its_round(federate, tmp_path):
    """The journal of the one before leads to where it was."""
    clock = Clock()
    whole, dead, last = (deployed(federate, clock, state=name) for name in ("whole", "devices", "devices"))
    run(whole.coordinator, HandGrid(whole), None)
    with pytest.raises(Killed):
        run(dead.coordinator, HandGrid(dead), tmp_path, [killed_after(9)])
    (checkpoints(tmp_path / "checkpoint")[-1] / "state.json").write_text("{")
    grid = HandGrid(last)
    run(last.coordinator, grid, tmp_path)
    assert sorted(grid.worked) == sorted(last.devices), "only the third round is asked for again"
    assert last.state_bytes() == whole.state_bytes()


def test_an_entry_of_a_deployment_is_on_the_disk_before_it_takes_effect(tmp_path, monkeypatch):
    flushed = []
    monkeypatch.setattr(os, "fsync", lambda handle: flushed.append(os.fstat(handle).st_size))
    durable, quick = (Journal(tmp_path / str(kind), kind) for kind in (True, False))
    flushed.clear()
    durable.add("entry")
    assert flushed == [(tmp_path / "True").stat().st_size]
    quick.add("entry")
    assert len(flushed) == 1


def test_each_step_begins_the_journal_anew(federate, tmp_path):
    federation, sizes = deployed(federate, Clock()), []

    def look(event):
        newest = checkpoints(tmp_path / "checkpoint")[-1] / JOURNAL
        if isinstance(event, Planned):
            sizes.append(next(iter(records(newest))).end > START.end)
        if isinstance(event, Saved):
            assert newest.read_bytes() == MAGIC

    run(federation.coordinator, HandGrid(federation), tmp_path, [look])
    assert sizes == [True] * 3
