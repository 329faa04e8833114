"""Which transport a device takes, where the network lets no gRPC through, or stops doing so."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from slimfleet.client.gateway import transports
from slimfleet.client.gateway.calling import Away, Busy
from slimfleet.client.gateway.over_https import OverHttps
from slimfleet.coordinator.gateway.hello import protocols_in

pytestmark = pytest.mark.parametrize("transport", ["auto"])


class Firewall:
    """Passes connections on to a port, but those whose greeting names a protocol that it `blocks`."""

    def __init__(self, to_port: int) -> None:
        self._to, self.blocks, self.passed = to_port, "h2", []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                threading.Thread(target=self._judge, args=(near,), daemon=True).start()

    def _judge(self, near: socket.socket) -> None:
        with near:
            hello = b""
            while (names := protocols_in(hello)) is None:
                hello += near.recv(4_096)
            if self.blocks in names:
                return
            self.passed.append(names)
            with socket.create_connection(("127.0.0.1", self._to)) as far:
                far.sendall(hello)
                back = threading.Thread(target=_pass, args=(far, near), daemon=True)
                back.start()
                _pass(near, far)
                back.join()


def _pass(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
    for each in (source, target):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def firewall(opened):
    hall = opened()
    with contextlib.closing(Firewall(hall.gateway.port)) as made:
        yield hall, made


def tries(calls) -> int:
    """How often a device calls until it is served."""
    for number in range(1, 10):
        try:
            assert calls.check_in("", "").WhichOneof("next") == "wait"
        except Away:
            continue
        return number
    raise AssertionError("it is never served")


def test_a_device_goes_over_to_what_gets_through_and_stays_with_it(firewall):
    hall, between = firewall
    calls = hall.connection(port=between.port)
    assert [tries(calls) for _ in range(3)] == [2, 1, 1]
    assert between.passed == [["http/1.1"]]  # one connection for all
    between.blocks = "http/1.1"
    calls.close()
    assert [tries(calls) for _ in range(3)] == [2, 1, 1]
    assert between.passed[1:] == [["h2"]]


def test_where_nothing_is_blocked_it_is_grpc(firewall):
    hall, between = firewall
    between.blocks = ""
    assert tries(hall.connection(port=between.port)) == 1
    assert "h2" in between.passed[0]


def test_to_be_refused_for_calling_too_often_is_no_reason_to_go_over(opened):
    hall = opened(calls_per_s=0.1)
    calls = hall.connection()
    calls.check_in("", "")
    before = calls._transport._transport
    for _ in range(3):
        with pytest.raises(Busy):
            calls.check_in("", "")
    assert calls._transport._transport is before


def test_where_grpc_is_not_installed_it_is_https(opened, monkeypatch):
    monkeypatch.setattr(transports, "find_spec", {"ssl": True}.get)
    calls = opened().connection()
    assert isinstance(calls._transport, OverHttps)
    assert calls.check_in("", "").WhichOneof("next") == "wait"
