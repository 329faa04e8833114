"""Sampling of a sensor in the background, which ends by itself if it is never closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

Sampler = Callable[[Callable[[], None], float], Callable[[], None]]
"""`sampler(sample, interval_s)` begins to call `sample` and returns the function that ends it."""

LONGEST_WINDOW_S = 6 * 3600.0
"""A window that is never closed ends by itself."""


def open_window(
    look: Callable[[], T | None], interval_s: float, clock: Callable[[], float], sampler: Sampler
) -> Callable[[], list[tuple[float, T]] | None]:
    """Sample a sensor now and every `interval_s` seconds; return the function that closes the window.

    Closing takes a last sample and returns all of them with their times, or None if any had no value. Where the first
    has none, no more are taken: a device without the sensor pays for no thread.
    """
    looks: list[tuple[float, T]] = []
    blind = False

    def sample() -> None:
        nonlocal blind
        seen = look()
        if seen is None:
            blind = True
        else:
            looks.append((clock(), seen))

    sample()
    if blind:
        return lambda: None
    end = sampler(sample, interval_s)

    def close() -> list[tuple[float, T]] | None:
        end()
        sample()
        return None if blind else looks

    return close


def sample_in_thread(sample: Callable[[], None], interval_s: float) -> Callable[[], None]:
    """Call `sample` every `interval_s` seconds in a daemon thread; return what ends and joins it.

    The thread also ends when `sample` raises (the returned function raises the error again), when the
    process ends, and after six hours.
    """
    over = threading.Event()
    errors: list[Exception] = []

    def work() -> None:
        try:
            for _ in range(int(LONGEST_WINDOW_S / interval_s)):
                if over.wait(interval_s):
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
