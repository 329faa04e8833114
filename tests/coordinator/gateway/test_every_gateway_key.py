"""Every key of `[gateway]` changes something."""

from __future__ import annotations

import socket
import sys
import threading
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path

import pytest
from relay import eventually

from slimfleet.client.gateway.calling import Busy, Keys
from slimfleet.client.gateway.connection import Connection
from slimfleet.client.gateway.transports import transport_to
from slimfleet.coordinator.gateway import GatewaySettings, read_served, serve
from slimfleet.coordinator.pki import PkiFolder
from slimfleet.coordinator.pki.identity import node_of

pytestmark = pytest.mark.parametrize("transport", ["https"])

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "own_task"
PLACES = {"host", "port", "pki", "out", "metrics_port"}
"""Keys that a served federation shows; the others, each in a function of its name."""


def test_no_key_is_left_out(transport):
    keys = {field.name for field in fields(GatewaySettings)}
    assert keys == PLACES | {
        name.removeprefix("test_key_") for name in globals() if name.startswith("test_key_")
    }


class Seen(Exception):
    """All that a test came for: the run need not go on."""


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.3", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in found]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.3 is no address of this machine")
def test_places(tmp_path, transport):
    port, metrics_port = free_ports(2)
    keys = PkiFolder(tmp_path / "the keys")
    keys.init("test", 1)
    keys.add_server(["127.0.0.3"], 1)
    keys.add_device("pi-1", 1)
    file = tmp_path / "federation.toml"
    file.write_text(
        f'task = {{name = "thermostat:Thermostat", import_from = ["{EXAMPLE}"]}}\n'
        f'gateway = {{host = "127.0.0.3", port = {port}, pki = "the keys", out = "here", '
        f"metrics_port = {metrics_port}, hold_s = 0}}"
    )

    def look(gateway):
        assert gateway.port == port
        calls = Connection(transport_to(f"127.0.0.3:{port}", Keys.of(keys.device("pi-1")), transport))
        assert calls.check_in("", "").WhichOneof("next") == "wait"
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=10) as page:
            assert b"slimfleet_gateway_refusals_total" in page.read()
        calls.close()
        raise Seen

    with pytest.raises(Seen):
        serve(read_served(file), listening=look)
    assert (tmp_path / "here").is_dir()
    assert {each.name for each in tmp_path.iterdir()} == {"the keys", "federation.toml", "here"}


def test_key_hold_s(opened, big_work):
    """Work comes after the check-in, which is answered by then or not."""
    work = big_work()

    def asked(hold_s: float) -> str:
        hall = opened(hold_s=hold_s)
        calls, answers = hall.connection(), []
        asking = threading.Thread(target=lambda: answers.append(calls.check_in("", "").WhichOneof("next")))
        asking.start()
        eventually(lambda: node_of("pi-1") in hall.gateway.link.nodes(), "it has asked")
        if hold_s == 0:
            asking.join(20)
        hall.gateway.link.send([work])
        asking.join(20)
        return answers[0]

    assert (asked(0.0), asked(60.0)) == ("wait", "plan")


def test_key_wait_s(opened):
    for wait_s in (3.0, 4.0):
        assert opened(wait_s=wait_s).connection().check_in("", "").wait.seconds == wait_s


def test_key_away_s(opened):
    for away_s, is_there in ((0.3, False), (60.0, True)):
        hall = opened(away_s=away_s, hold_s=0.0)
        hall.connection().check_in("", "")
        time.sleep(0.5)
        assert (node_of("pi-1") in hall.gateway.link.nodes()) == is_there


def test_key_idle_s(opened):
    for idle_s, is_closed in ((0.2, True), (60.0, False)):
        hall = opened(idle_s=idle_s)
        with socket.create_connection(("127.0.0.1", hall.gateway.port)) as silent:
            silent.settimeout(20.0 if is_closed else 0.6)
            if is_closed:
                assert silent.recv(1) == b""
            else:
                with pytest.raises(TimeoutError):
                    silent.recv(1)
        assert hall.refused() == ({"handshake": 1} if is_closed else {})


def of_three_connections(hall) -> int:
    """How many of three are turned away."""
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(socket.create_connection(("127.0.0.1", hall.gateway.port)))
        time.sleep(0.3)
        return hall.refused().get("connections", 0)


def test_key_connections(opened):
    assert [of_three_connections(opened(connections=most)) for most in (2, 3)] == [1, 0]


def test_key_connections_per_address(opened):
    assert [of_three_connections(opened(connections_per_address=most)) for most in (2, 3)] == [1, 0]


def test_key_calls_per_s(opened):
    for calls_per_s, is_refused in ((0.1, True), (1_000.0, False)):
        calls = opened(calls_per_s=calls_per_s, hold_s=0.0).connection()
        calls.check_in("", "")
        if is_refused:
            with pytest.raises(Busy):
                calls.check_in("", "")
        else:
            calls.check_in("", "")
