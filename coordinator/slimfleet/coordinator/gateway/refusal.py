"""Refusals of a gateway: calls and connections that it does not serve, and how many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from threading import Lock

from slimfleet.compression import SlimfleetError
from slimfleet.coordinator.observing.events import Observer, TurnedAway
from slimfleet.coordinator.refusal_status import STATUS

__all__ = ["Refusals", "Refused"]


class Refused(SlimfleetError):
    """A call that is not served. `reason` is a key of `STATUS`; the message goes to the device."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason

    @property
    def status(self) -> str:
        """The status code."""
        return STATUS[self.reason]


class Refusals:
    """How often each reason has been given. Every thread may count."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = Lock()
        self._observers: tuple[Observer, ...] = ()

    def tell(self, observers: Iterable[Observer]) -> None:
        """Tell these of every refusal from now on, in the thread that counts it."""
        self._observers = tuple(observers)

    def count(self, reason: str) -> None:
        """Count one; a word that is none of `STATUS` counts as `error`."""
        word = reason if reason in STATUS else "error"
        with self._lock:
            self._counts[word] += 1
        for observer in self._observers:
            observer(TurnedAway(reason=word))

    def counts(self) -> dict[str, int]:
        """Reason -> how often, for those that were given."""
        with self._lock:
            return dict(self._counts)
