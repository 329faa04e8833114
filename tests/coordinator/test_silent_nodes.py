"""Nodes that never register, and nodes that never end a round, among twenty: what they cost the others."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import inf

import pytest
from flwr.app import Message, MessageType
from hand_grid import Clock, Fleet, TimedGrid

from slimfleet.coordinator import Closed, WallEnvironment
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.transport.flower import run
from slimfleet.coordinator.transport.flower.messages import LONGEST_VALID_S, registration_request
from slimfleet.coordinator.transport.flower.patient import PAUSES_S, PatientGrid
from slimfleet.coordinator.transport.flower.run import FlowerLink
from slimfleet.coordinator.transport.registering import RAREST_S, REASK_S, Registrar
from slimfleet.simulations.grids.flower import identify_process
from slimfleet.simulations.ledger import SimulatedLedger

MUTE, HANGING = 118, 119
PACED = {"surplus": 3, "deadline": "predicted"}
NARROW = {"widths": [0.25], "local_steps": [1]}
TYPES = (MessageType.QUERY, MessageType.TRAIN)


@pytest.fixture
def fleet(federate, phone, monkeypatch):
    """Twenty devices of uneven speed in a wall-clock time that passes where the coordinator sleeps: a run of some
    rounds gives its grid, its coordinator's state, and when each round ended."""

    numbers = itertools.count()

    def make(*bad, count=20, per_round=10, everyone=False, observe=None, registers_s=0.5, **settings):
        tables = {"rounds": 1, "evaluate_every": 10, "round_timeout_s": 20.0, **settings}
        selection = {"per_round": per_round, "policy": "uniform"}
        federation = federate(state=f"devices-{next(numbers)}", selection=selection, planner=NARROW, **tables)
        clock, ends = Clock(1_000.0), []
        for name in ("post", "driving"):
            monkeypatch.setattr(sys.modules[f"slimfleet.coordinator.transport.{name}"], "time", clock)
        federation.state.registry = type(federation.state.registry)()
        federation.coordinator.environment = WallEnvironment(lambda: clock.now_s)
        some = federation.devices[11]
        devices = {}
        for number in range(20 - count, 20):
            profile = replace(phone, name=f"phone {number}", train_flops_per_s=1e6 * 1.05**number)
            devices[100 + number] = replace(
                some, number=number, share=number % 4, profile=profile,
                open_ledger=lambda a, profile=profile: SimulatedLedger(profile, a.budget.power_w, 0.5),
            )  # fmt: skip
        silent = {node: inf for node in bad if node == MUTE}
        grid = TimedGrid(Fleet(devices), clock=clock, mute=set(bad), silent=silent, registers_s=registers_s)

        def observed(event):
            if isinstance(event, Closed):
                ends.append(clock.now_s)
            if observe is not None:
                observe(grid, event)

        run(federation.coordinator, grid, None, [observed], everyone=everyone)
        return grid, federation.state, [1_000.0, *ends]

    return make


def test_one_mute_and_one_hanging_node_of_twenty_cost_a_tenth_of_the_time_at_most(fleet):
    """The same claim on a real SuperLink: `make bench-silent`. Where rounds wait for all, the two cost far more."""

    def took_s(*bad: int, pacing: Mapping[str, object], rounds: int) -> float:
        *_, ends = fleet(*bad, pacing=pacing, rounds=rounds)
        return ends[-1] - ends[0]

    paced, waiting = {"pacing": PACED, "rounds": 6}, {"pacing": {}, "rounds": 2}
    assert took_s(MUTE, HANGING, **paced) <= 1.1 * took_s(**paced)
    assert took_s(MUTE, HANGING, **waiting) > 1.1 * took_s(**waiting)


def test_a_hanging_node_costs_no_round_more_than_its_deadline_and_is_asked_less(fleet):
    grid, state, _ = fleet(
        HANGING, rounds=40, count=5, per_round=3, round_timeout_s=3.0, pacing={"deadline": "predicted"}
    )
    asked = grid.rounds_sent()
    assert 0 < asked[HANGING] < 0.7 * min(asked[node] for node in asked if node != HANGING)
    assert state.totals.failed["timeout"] > 1
    assert {node for node in asked if state.registry[node].failures} == {HANGING}
    assert "silent" in state.registry[HANGING].last_reason
    assert max(row.virtual_time_s for row in state.rows) < 3.0


@dataclass
class Link:
    """A SuperLink that keeps what is pushed, and has no answers and no nodes; it fails at first."""

    busy: int = 0
    """Calls that fail."""
    pushed: list[list[Message]] = field(default_factory=list)

    def push_messages(self, messages):
        self.pushed.append(list(messages))
        self._answer()
        return [f"{len(self.pushed)}/{number}" for number, _ in enumerate(self.pushed[-1])]

    def pull_messages(self, message_ids):
        assert isinstance(message_ids, list)
        self._answer()
        return []

    def get_node_ids(self):
        self._answer()
        return []

    def _answer(self):
        self.busy -= 1
        if self.busy >= 0:
            raise ConnectionError("database is locked")

    def questions(self) -> list[float]:
        """For how long each question is valid."""
        return [each.metadata.ttl for batch in self.pushed for each in batch]


@pytest.fixture(autouse=True)
def _process():
    identify_process()


def asked_over(days: float, connected=lambda hour: [7]) -> tuple[Link, list[float]]:
    """A node that never answers, looked at every minute; the questions, and when they were put."""
    link, clock, moments = Link(), Clock(), []
    registrar = Registrar(Registry(), FlowerLink(link), clock.monotonic, lambda entry: None)
    while clock.now_s < days * 86_400:
        before = len(link.pushed)
        registrar.ask(connected(clock.now_s / 3_600))
        registrar.listen()
        moments += [clock.now_s] * (len(link.pushed) - before)
        clock.sleep(60.0)
    return link, moments


def test_a_mute_node_is_asked_ever_more_rarely_and_finds_one_question_when_it_wakes():
    link, moments = asked_over(days=1)
    assert moments[:4] == [0.0, REASK_S, 3 * REASK_S, 7 * REASK_S]
    waits = [later - earlier for earlier, later in itertools.pairwise(moments)]
    assert waits == sorted(waits)
    assert waits[-1] == RAREST_S
    # Each question ends where the next is put.
    assert link.questions()[:-1] == waits


def test_a_fleet_that_is_slow_to_introduce_itself_is_waited_for(fleet):
    """Twenty boards that start Python at once, or a busy SuperLink, may take minutes over it."""
    _, state, (began, ended) = fleet(rounds=1, count=4, round_timeout_s=300.0, registers_s=200.0)
    assert ended - began > 200.0
    assert state.rows[0].completed == 4


def test_a_node_that_comes_back_is_asked_at_once():
    _, moments = asked_over(days=0.5, connected=lambda hour: [] if 5.0 <= hour < 5.25 else [7])
    assert 5.25 * 3_600 in moments


def test_a_node_that_is_started_again_within_a_round_loses_that_round_alone(fleet):
    """As the same node, with a key of its own: nobody tells the coordinator that the work is lost."""

    def wakes(grid, event):
        if isinstance(event, Closed) and event.row.round == 2:
            grid.mute.clear()

    grid, state, _ = fleet(
        HANGING,
        rounds=8,
        count=4,
        per_round=4,
        round_timeout_s=2.0,
        pacing={"deadline": "predicted"},
        observe=wakes,
    )
    assert state.totals.failed["timeout"] == 1
    assert state.registry[HANGING].participations > 1
    assert sum(grid.rounds_sent().values()) == sum(row.selected for row in state.rows)


def test_work_expires_when_it_is_given_up_and_nothing_does_where_time_is_virtual(fleet):
    for everyone, valid_s in ((False, {9.0}), (True, {LONGEST_VALID_S})):
        grid, *_ = fleet(rounds=1, count=4, round_timeout_s=9.0, everyone=everyone)
        kinds = {
            kind: {m.metadata.ttl for m in grid.sent if m.metadata.message_type == kind} for kind in TYPES
        }
        assert kinds[MessageType.TRAIN] == valid_s
        assert kinds[MessageType.QUERY] == ({LONGEST_VALID_S} if everyone else {REASK_S})


def test_a_busy_link_is_asked_again_for_the_same(caplog):
    messages, pauses = [registration_request(node) for node in (7, 8)], []
    link = Link(busy=2)
    patient = PatientGrid(link, pauses.append)
    assert patient.push_messages(messages) == ["3/0", "3/1"]
    assert link.pushed == [messages] * 3
    assert pauses == list(PAUSES_S[:2])
    assert caplog.text.count("asked again") == 2
    for ask in (lambda each: each.pull_messages(iter(["3/0"])), lambda each: each.get_node_ids()):
        assert ask(PatientGrid(Link(busy=2), pauses.append)) == []


@pytest.mark.parametrize("ask", [lambda link: link.get_node_ids(), lambda link: link.pull_messages([])])
def test_a_link_that_stays_busy_ends_the_run(ask):
    with pytest.raises(ConnectionError):
        ask(PatientGrid(Link(busy=len(PAUSES_S) + 1), lambda pause_s: None))


def test_a_deadline_leaves_time_for_the_way_to_a_device_and_back(federate):
    """A SuperNode looks for work now and then, and starts a process for it; registrations show how long that takes."""
    near, far = (federate(pacing={"deadline": "predicted"}, state=name) for name in ("near", "far"))
    for record in far.state.registry:
        record.overhead_s = 40.0
    far.state.registry[11].overhead_s = 4_000.0  # of one that slept
    near_s, far_s = (each.plan().state.open_round.closes_s for each in (near, far))
    assert far_s - near_s == pytest.approx(1.5 * 40.0)
