"""A TCP relay on loopback that a test can cut: to let so many bytes through, and then no more."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from math import inf


class Relay:
    """Passes connections on to a port. After `allow` more bytes towards it, or back, all connections are cut.

    `pause_s` is what a piece takes, as on a thin link: both ends have read what passed before a cut.
    """

    def __init__(self, to_port: int, pause_s: float = 0.0) -> None:
        self._to, self._pause_s = to_port, pause_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._left = {"up": inf, "down": inf}
        self.passed = {"up": 0, "down": 0}
        self.cuts = 0
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def allow(self, direction: str, count: float) -> None:
        with self._lock:
            self._left[direction] = count

    def turn_to(self, port: int) -> None:
        """Pass new connections on to another port."""
        self._to = port

    def close(self) -> None:
        # A blocked accept() ends with its socket only where that is shut down first.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                near.close()
                continue
            with self._lock:
                self._open += [near, far]
            for source, target, direction in ((near, far, "up"), (far, near, "down")):
                threading.Thread(target=self._pass, args=(source, target, direction), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(16_384):
                with self._lock:
                    left = self._left[direction]
                    data = data[: int(min(len(data), left))]
                    self._left[direction] = left - len(data)
                    self.passed[direction] += len(data)
                target.sendall(data)
                time.sleep(self._pause_s)
                if self._left[direction] <= 0:
                    self._left[direction] = inf
                    self.cuts += 1
                    self._cut()
                    return
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _cut(self) -> None:
        with self._lock:
            cut, self._open = self._open, []
        for each in cut:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def eventually(holds: Callable[[], bool], what: str, patience_s: float = 30.0) -> None:
    until = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < until, what
        time.sleep(0.02)
