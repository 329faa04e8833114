"""Power governor: holds the mean power of a round, by pauses, and by fewer threads where pauses are long."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["PowerGovernor"]

SHORTEST_PAUSE_S = 1.0
"""Shorter ones are put off: a meter that samples ten times a second could not tell them from the work around them."""

LONG_PAUSES = 3
"""After so many pauses in a row that are longer than the work before them, half of the threads are given up."""


class PowerGovernor:
    """Tells how long to pause so that the mean power since a round began is at most `power_w`, above idle.

    It closes the loop over the whole round: what an earlier pause was too short, or a wait for the disk already saved,
    the next pause makes good. A device that would pause more than it works draws less at a time on fewer of its
    `threads`: its pauses get shorter, and so do the bursts that heat it. Threads are never added again in a round.
    `set_threads` is told their new number. Without `power_w` there are no pauses.
    """

    def __init__(
        self,
        power_w: float | None = None,
        threads: int = 1,
        set_threads: Callable[[int], object] = lambda count: None,
    ) -> None:
        self._power_w, self._threads, self._set_threads = power_w, threads, set_threads
        self._resumed_s, self._long = 0.0, 0

    def pause_s(self, spent_j: float, elapsed_s: float, at_once: bool = False) -> float:
        """Seconds to pause now, at least 0, where a round has taken `spent_j` above idle in `elapsed_s`. What is due is
        put off while it is short, unless it is to be made good `at_once`."""
        if self._power_w is None:
            return 0.0
        pause_s = max(spent_j / self._power_w - elapsed_s, 0.0)
        if pause_s < SHORTEST_PAUSE_S and not at_once:
            return 0.0
        self._long = self._long + 1 if pause_s > elapsed_s - self._resumed_s else 0
        self._resumed_s = elapsed_s + pause_s
        if self._long >= LONG_PAUSES and self._threads > 1:
            self._threads, self._long = self._threads // 2, 0
            self._set_threads(self._threads)
        return pause_s
