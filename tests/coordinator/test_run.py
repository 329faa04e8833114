"""Runs over a grid that a test holds in its hand: who is waited for, how long, and what observers are told."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import inf

import pytest
import torch
from flwr.app import ConfigRecord, Error, Message, RecordDict
from hand_grid import HandGrid
from prometheus_client import CollectorRegistry

from slimfleet.client.device import Device
from slimfleet.compression import BudgetExceeded, Cost, SlimfleetError
from slimfleet.compression.messages import Spent
from slimfleet.compression.types import Startup
from slimfleet.coordinator import Answer, Closed, Planned, Saved, WallEnvironment
from slimfleet.coordinator.checkpoint import checkpoints
from slimfleet.coordinator.observing.events import Waiting
from slimfleet.coordinator.observing.prometheus.exporter import FleetMetrics
from slimfleet.coordinator.transport import registering
from slimfleet.coordinator.transport.flower import deployed_server_app, run
from slimfleet.coordinator.transport.flower.run import FlowerLink
from slimfleet.simulations.grids.flower import context_of


@pytest.fixture
def unregistered(federate):
    """A federation in wall-clock time whose devices still have to introduce themselves."""

    def make(**tables):
        federation = federate(**tables)
        federation.state.registry = type(federation.state.registry)()
        federation.coordinator.environment = WallEnvironment()
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


def test_a_node_that_never_introduces_itself_holds_up_no_round(unregistered):
    """It is asked once, and the others work; how long a round may take has no part in it."""
    federation = unregistered(rounds=3, round_timeout_s=100_000.0)
    grid = HandGrid(federation, silent={12: inf})
    run(federation.coordinator, grid, None)
    assert [row.completed for row in federation.state.rows] == [3, 3, 3]
    assert grid.asked == dict.fromkeys(federation.devices, 1)


def test_a_node_that_is_asked_again_is_not_waited_for_again(unregistered):
    """Also where the round would like to have it: it had its time when it was asked first."""
    federation, now = unregistered(), [0.0]
    grid = HandGrid(federation, silent={12: inf})
    registrar = registering.Registrar(
        federation.state.registry, FlowerLink(grid), lambda: now[0], federation.take
    )
    registrar.ask([11, 12])
    registrar.listen()
    now[0] = 50.0
    assert registrar.awaits([11, 12])
    now[0] = 400.0
    registrar.ask([11, 12])
    assert grid.asked[12] == 2
    assert not registrar.awaits([11, 12])


def test_a_late_introduction_is_taken_when_it_comes(unregistered):
    federation = unregistered(rounds=4)
    grid = HandGrid(federation, silent={12: 4})
    run(federation.coordinator, grid, None)
    completed = [row.completed for row in federation.state.rows]
    assert completed == sorted(completed)
    assert (completed[0], completed[-1]) == (3, 4)
    assert grid.asked[12] == 1


def test_a_run_of_everyone_waits_for_every_node(unregistered):
    federation = unregistered(rounds=1)
    run(federation.coordinator, HandGrid(federation, silent={12: 5}), None, everyone=True)
    assert federation.state.rows[0].completed == 4


def test_a_node_that_stays_wrong_is_not_asked_before_every_round(unregistered, caplog):
    federation = unregistered(rounds=3)

    class Wrong(HandGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            replies = super().pull_messages(message_ids)
            for reply in replies:
                if reply.metadata.src_node_id == 12:
                    reason = (
                        "<class 'slimfleet.compression.errors.BadInput'>:<'the profile x.json\nis not JSON'>"
                    )
                    reply.__dict__["_error"] = Error(code=6, reason=reason)
                    reply.__dict__.pop("_content", None)
            return replies

    grid = Wrong(federation)
    run(federation.coordinator, grid, None)
    assert grid.asked[12] == 1
    assert caplog.text.count("could not register") == 1
    assert "could not register: BadInput: the profile x.json is not JSON" in caplog.text
    assert "<class" not in caplog.text


@pytest.mark.parametrize(("code", "reason"), [(4, "timeout"), (5, "dropout")])
@pytest.mark.parametrize("text", ["", "Error: it is gone"])
def test_a_device_that_the_link_gives_up_is_named(unregistered, caplog, code, reason, text):
    """The link answers under a number of its own, 1, and not always with a text."""
    caplog.set_level("INFO")
    federation = unregistered(rounds=1)
    named = replace(federation.devices[12], profile=replace(federation.devices[12].profile, name="attic"))
    federation.harness.devices[12] = named
    run(federation.coordinator, HandGrid(federation, killed={12: Error(code=code, reason=text)}), None)
    assert federation.state.totals.failed == {reason: 1}
    assert federation.state.totals.rejected == {}
    (line,) = [r.getMessage() for r in caplog.records if "failed" in r.getMessage()]
    begins = f"round 1: attic failed ({reason}): "
    assert line.startswith(begins)
    assert len(line) > len(begins) + 10


def test_waiting_is_told_once_per_change_and_counted(unregistered, caplog):
    caplog.set_level("INFO")
    federation, events = unregistered(rounds=1, selection={"min_devices": 4}), []
    metrics = CollectorRegistry()
    watch = FleetMetrics(metrics, "test")
    awaited = []

    def observe(event):
        events.append(event)
        watch(event)
        awaited.append(metrics.get_sample_value("slimfleet_clients_awaited", {"federation": "test"}))

    run(federation.coordinator, HandGrid(federation, late={13: 6, 14: 3}), None, [observe])
    waiting = [event for event in events if isinstance(event, Waiting)]
    assert [(event.ready, event.needed) for event in waiting] == [(2, 4), (3, 4)]
    assert awaited[:3] == [2, 1, 0]
    assert caplog.text.count("2 of 4 devices are ready") == caplog.text.count("3 of 4 devices are ready") == 1


def test_what_a_refused_round_cost_is_counted_and_learned(unregistered):
    """In wall-clock time nobody else knows it. A start-up that leaves no room for a step is planned with from then."""
    federation = unregistered(rounds=3, budget={"energy_j": 20.0})

    @dataclass(frozen=True)
    class Slow:
        device: Device

        def registration(self):
            return self.device.registration()

        def do_round(self, assignment, payload):
            refusal = BudgetExceeded("energy_j", "not one local step fits the budget")
            cost = Cost(
                energy_j=25.0, radio_j=0.5, time_s=9.0, memory_bytes=0, uplink_bytes=0, downlink_bytes=1
            )
            refusal.spent = Spent(cost=cost, startup=Startup(time_s=8.0, energy_j=24.0))
            raise refusal

    federation.harness.devices[12] = Slow(federation.devices[12])
    run(federation.coordinator, HandGrid(federation), None)
    first, second, _ = federation.state.rows
    assert (first.failed, second.failed) == (1, 0)
    assert first.energy_j - second.energy_j == pytest.approx(25.0, abs=5.0)
    assert federation.state.totals.failed == {"energy_j": 1}
    assert "energy_j" in federation.state.totals.skipped


def test_a_cost_that_no_device_can_have_is_not_counted(unregistered):
    federation = unregistered(rounds=1)

    class Liar(HandGrid):
        def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
            replies = super().pull_messages(message_ids)
            for reply in replies:
                node = reply.metadata.src_node_id
                if "update" in reply.content and node in (12, 13):
                    cost = {"energy_j": 1e300, "radio_j": 0.0, "time_s": 1.0}
                    cost |= {"memory_bytes": 0, "uplink_bytes": 0, "downlink_bytes": 0}
                    spent = {"cost": cost, "startup": {"time_s": 0.0, "energy_j": 0.0}}
                    text = json.dumps(spent) if node == 12 else "{"
                    said = {"reason": "energy_j", "message": "too much\x1b[31m\nround 9 of 9", "spent": text}
                    reply.content = RecordDict({"refusal": ConfigRecord(said)})
            return replies

    run(federation.coordinator, Liar(federation), None)
    row = federation.state.rows[0]
    assert (row.failed, row.completed) == (2, 2)
    assert row.energy_j < 1e3


def test_a_deployed_run_without_one_update_fails_in_a_sentence_and_publishes_no_model(
    unregistered, tmp_path, monkeypatch
):
    federation = unregistered(rounds=2)
    settings = tmp_path / "federation.toml"
    settings.write_text("rounds = 2\n[client]\nlearning_rate = 1e6\n")
    blobs = type(federation.coordinator.task)
    module = type(sys)("blobs_of_the_test")
    module.Blobs = lambda partitions, seed: blobs()
    monkeypatch.setitem(sys.modules, module.__name__, module)
    context = context_of(1, {})
    context.run_config = {
        "task.name": f"{module.__name__}:Blobs",
        "server.settings": str(settings),
        "server.out": str(tmp_path / "var" / "out"),
    }
    app = deployed_server_app(beside=tmp_path)
    with pytest.raises(SlimfleetError) as failed:
        app(grid=HandGrid(federation), context=context)
    text = str(failed.value)
    assert text.startswith("not one update was used in 2 rounds: ")
    assert "rejected (norm) " in text or "failed (nonfinite) " in text
    assert "; phone, node 11: " in text
    out = tmp_path / "var" / "out"
    assert text.endswith(f"; no model is published, the other results are in {out}")
    assert "\n" not in text
    assert (out / "rounds.csv").exists()
    assert "No update was used in 2 rounds" in (out / "report.html").read_text()
    assert json.loads((out / "summary.json").read_text())["participations"] == 0
    assert not (out / "model.safetensors").exists()


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


def test_a_coordinator_leaves_the_threads_of_torch_as_they_were(unregistered):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        federation = unregistered(rounds=1)
        run(federation.coordinator, HandGrid(federation), None)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
