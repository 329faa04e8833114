"""Rounds over a real gateway: the devices of a federation as residents, beside and instead of those of a grid."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, fields, replace
from itertools import count

import pytest
from hand_grid import Fleet, HandGrid
from pydantic import TypeAdapter

from slimfleet.client.gateway.backoff import Backoff
from slimfleet.client.gateway.outbox import Outbox
from slimfleet.client.gateway.resident import Resident
from slimfleet.compression import Assignment, Condition, PolicyRefusal, messages
from slimfleet.compression.messages import text_of
from slimfleet.coordinator import WallEnvironment
from slimfleet.coordinator.pki.identity import node_of
from slimfleet.coordinator.registry import Registry
from slimfleet.coordinator.transport.driving import drive
from slimfleet.coordinator.transport.flower.run import FlowerLink
from slimfleet.coordinator.transport.link import Union

NAMES = ("pi-1", "pi-2", "pi-3", "pi-4")
SETTINGS = {
    "rounds": 2,
    "round_timeout_s": 60.0,
    "selection": {"per_round": 4, "policy": "uniform", "min_devices": 4},
}
TURN = threading.Lock()
"""Two devices of one process cannot draw random numbers at a time."""


@pytest.fixture
def fleet(federate):
    """A coordinator in wall-clock time, and its four devices by node."""
    made = iter(range(9))

    def make(**settings):
        federation = federate(state=f"devices-{next(made)}", **{**SETTINGS, **settings})
        federation.state.registry = Registry()
        federation.coordinator.environment = WallEnvironment()
        devices = dict(zip(map(node_of, NAMES), federation.devices.values(), strict=True))
        return federation, devices

    return make


class Here:
    """A device in this process."""

    def __init__(self, device, refuses: bool = False) -> None:
        self.device, self.refuses, self.rounds = device, refuses, 0

    def registration(self):
        return self.device.registration()

    def do_round(self, assignment, payload):
        self.rounds += 1
        if self.refuses:
            raise PolicyRefusal("battery_low", "by its own policy: it is nearly empty")
        with TURN:
            return self.device.do_round(assignment, payload)


@pytest.fixture
def residents(tmp_path):
    """Start devices as residents, until the test ends; `turn` replaces what one of them does over and over."""
    stop, threads = threading.Event(), []

    def start(hall, devices, port=None, transports=None):
        for name in NAMES:
            device = devices.get(node_of(name))
            if device is None:
                continue
            (tmp_path / name).mkdir(exist_ok=True)
            resident = Resident(
                hall.connection(name, port=port, transport=(transports or {}).get(name)),
                text_of(device.registration()),
                Outbox(tmp_path / name),
                lambda device=device: device,
                lambda: (Condition(battery=0.5), None),
                Backoff(random.Random(1), 0.01, 0.1),
                time.sleep,
            )

            def stay(resident=resident):
                while not stop.is_set():
                    resident.turn()

            threads.append(threading.Thread(target=stay, daemon=True))
            threads[-1].start()

    yield start
    stop.set()
    for thread in threads:
        thread.join(10)


def over_a_grid(fleet, **settings) -> bytes:
    federation, devices = fleet(**settings)
    drive(federation.coordinator, FlowerLink(HandGrid(Fleet(devices))), None)
    return federation.model_bytes()


def test_devices_at_a_gateway_train_the_model_that_they_train_over_a_grid(fleet, opened, residents):
    federation, devices = fleet()
    hall = opened()
    here = {node: Here(device) for node, device in devices.items()}
    residents(hall, here)
    drive(federation.coordinator, hall.gateway.link, None)
    assert [row.completed for row in federation.state.rows] == [4, 4]
    assert federation.model_bytes() == over_a_grid(fleet)


@pytest.mark.parametrize("transport", ["auto"])
def test_one_round_has_devices_over_grpc_and_over_https(fleet, opened, residents):
    federation, devices = fleet()
    hall = opened()
    here = {node: Here(device) for node, device in devices.items()}
    residents(hall, here, transports=dict(zip(NAMES, ("grpc", "https", "https", "auto"), strict=True)))
    drive(federation.coordinator, hall.gateway.link, None)
    assert [each.rounds for each in here.values()] == [2] * 4
    assert federation.model_bytes() == over_a_grid(fleet)


def test_one_round_has_devices_behind_a_grid_and_at_a_gateway(fleet, opened, residents):
    federation, devices = fleet()
    hall = opened()
    at_gateway = {node_of(name): Here(devices[node_of(name)]) for name in NAMES[:2]}
    residents(hall, at_gateway)
    elsewhere = {node: Here(device) for node, device in devices.items() if node not in at_gateway}
    both = Union([FlowerLink(HandGrid(Fleet(elsewhere))), hall.gateway.link])
    drive(federation.coordinator, both, None)
    assert [row.completed for row in federation.state.rows] == [4, 4]
    assert [each.rounds for each in (*at_gateway.values(), *elsewhere.values())] == [2] * 4
    assert federation.model_bytes() == over_a_grid(fleet)


def test_cuts_cost_no_device_its_work_and_the_model_nothing(fleet, opened, residents):
    federation, devices = fleet()
    hall = opened()
    relay = hall.relay(pause_s=0.02)  # so slow that the rounds last for several cuts
    here = {node: Here(device) for node, device in devices.items()}
    stop = threading.Event()

    def cut():
        for cuts in count():
            relay.allow("up", 3_000)
            while relay.cuts == cuts:
                if stop.wait(0.01):
                    return
            stop.wait(0.1)

    cutting = threading.Thread(target=cut, daemon=True)
    cutting.start()
    residents(hall, here, relay.port)
    drive(federation.coordinator, hall.gateway.link, None)
    stop.set()
    cutting.join(5)
    assert relay.cuts >= 3
    assert [row.completed for row in federation.state.rows] == [4, 4]
    assert [each.rounds for each in here.values()] == [2] * 4
    assert federation.model_bytes() == over_a_grid(fleet)


def test_a_device_that_refuses_is_counted_and_the_others_go_on(fleet, opened, residents):
    federation, devices = fleet(rounds=1)
    hall = opened()
    here = {node: Here(device, refuses=node == node_of("pi-3")) for node, device in devices.items()}
    residents(hall, here)
    drive(federation.coordinator, hall.gateway.link, None)
    assert federation.state.rows[0].completed == 3
    assert federation.state.totals.failed == {"battery_low": 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterAssignment(Assignment):
    """As a later version may have it."""

    warmup_steps: int = 0


def test_a_plan_of_a_later_version_is_refused_before_its_model_is_fetched(
    opened, big_work, tmp_path, monkeypatch
):
    monkeypatch.setitem(messages._ADAPTERS, LaterAssignment, TypeAdapter(LaterAssignment))
    hall, work = opened(), big_work()
    own = {field.name: getattr(work.assignment, field.name) for field in fields(work.assignment)}
    hall.gateway.link.send([replace(work, assignment=LaterAssignment(**own, warmup_steps=5))])
    relay = hall.relay()
    device = Resident(
        hall.connection(port=relay.port), "", Outbox(tmp_path), lambda: None,
        lambda: (Condition(), None), Backoff(random.Random(1)), time.sleep,
    )  # fmt: skip
    device.turn()
    (failed,) = (each.answer for each in hall.gateway.link.came())
    assert failed.reason == "message"
    assert "warmup_steps is not known here; it is made for a newer device: update this one" in failed.message
    assert relay.passed["down"] < len(work.payload) / 10


def test_a_killed_coordinator_is_taken_up_by_devices_that_stayed(fleet, opened, residents, tmp_path, pki):
    """The answers that had come are kept; devices at work bring theirs to the new gateway, without doing it again."""
    first, devices = fleet()
    hall = opened()
    here = {node: Here(device) for node, device in devices.items()}
    relay = hall.relay()
    residents(hall, here, relay.port)

    class Killed(Exception):
        pass

    came = []

    def dies(event):
        came.append(type(event).__name__)
        if came.count("Answer") == 6:
            raise Killed

    with pytest.raises(Killed):
        drive(first.coordinator, hall.gateway.link, tmp_path / "out", [dies])
    hall.gateway.__exit__(None, None, None)
    second, _ = fleet()
    again = opened()
    relay.turn_to(again.gateway.port)
    drive(second.coordinator, again.gateway.link, tmp_path / "out")
    assert [row.completed for row in second.state.rows] == [4, 4]
    assert [each.rounds for each in here.values()] == [2] * 4
    assert second.model_bytes() == over_a_grid(fleet)
