"""Sampling of a sensor in the background, which ends by itself if it is never closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")

Sampler = Callable[[Callable[[], None], float], Callable[[], None]]
"""`sampler(sample, interval_s)` begins to call `sample` and returns the function that ends it."""

LONGEST_WINDOW_S = 6 * 3600.0
"""A window that is never closed ends by itself."""


class Window(Generic[T]):
    """Samples of a sensor from now on, one every `interval_s` seconds, each at the middle of the look that took it.

    A sample may have no value. Where the first has none, no more are taken: a device without the sensor pays for no
    thread.
    """

    def __init__(
        self,
        look: Callable[[], T | None],
        interval_s: float,
        clock: Callable[[], float],
        sampler: Sampler,
    ) -> None:
        self._look, self._clock = look, clock
        self.looks: list[tuple[float, T | None]] = []
        """(seconds, value) in order of time; None for a look that found no value."""
        self._sample()
        self._end = sampler(self._sample, interval_s) if self.looks[0][1] is not None else None

    def close(self) -> list[tuple[float, T | None]]:
        """Take a last sample, and return all of them."""
        if self._end is not None:
            self._end()
            self._sample()
        return self.looks

    def _sample(self) -> None:
        before_s = self._clock()
        value = self._look()
        self.looks.append(((before_s + self._clock()) / 2, value))


def bridged(looks: Iterable[tuple[float, T | None]], longest_s: float) -> list[tuple[float, T]] | None:
    """The samples that have a value. None where the first or the last has none, or where the two samples around a
    missing one are more than `longest_s` apart."""
    found: list[tuple[float, T]] = []
    missing = False
    for moment, value in looks:
        if value is None:
            missing = True
            continue
        if missing and (not found or moment - found[-1][0] > longest_s):
            return None
        found.append((moment, value))
        missing = False
    return None if missing else found


def sample_in_thread(sample: Callable[[], None], interval_s: float) -> Callable[[], None]:
    """Call `sample` every `interval_s` seconds in a daemon thread; return what ends and joins it.

    A call that is late does not delay the next ones; calls that fall into a longer one are left out. The thread also
    ends when `sample` raises (the returned function raises the error again), when the process ends, and after six
    hours.
    """
    over = threading.Event()
    errors: list[Exception] = []

    def work() -> None:
        due_s = time.monotonic()
        last_s = due_s + LONGEST_WINDOW_S
        try:
            while due_s < last_s:
                due_s = max(due_s + interval_s, time.monotonic())
                if over.wait(due_s - time.monotonic()):
                    return
                sample()
        except Exception as error:  # noqa: BLE001 - raised again by `end`
            errors.append(error)

    thread = threading.Thread(target=work, name="slimfleet-meter", daemon=True)
    thread.start()

    def end() -> None:
        over.set()
        thread.join()
        if errors:
            raise errors[0]

    return end
