"""A meter that a virtual device drives: it adds up what it is told."""

from __future__ import annotations

from slimfleet.client.meters.protocol import Reading


class SimulatedMeter:
    """Energy and time of a virtual device; its joules are called simulated wherever they go."""

    def __init__(self) -> None:
        self._open = False
        self._energy_j = self._seconds = 0.0
        self._samples = 0

    def start(self) -> None:
        """Begin a window at zero."""
        self._open = True
        self._energy_j = self._seconds = 0.0
        self._samples = 0

    def advance(self, compute_j: float, seconds: float) -> None:
        """Virtual time passed and took this much energy. Raises ValueError where either is negative or not a
        number."""
        if not (compute_j >= 0 and seconds >= 0):
            raise ValueError(f"a meter cannot go back: {compute_j} J in {seconds} s")
        self._energy_j += compute_j
        self._seconds += seconds
        self._samples += 1

    def transmit(self, radio_j: float, seconds: float = 0.0) -> None:
        """The radio took this much energy, and this much time where nothing else went on."""
        self.advance(radio_j, seconds)

    @property
    def energy_j(self) -> float:
        """What the window has come to so far; a virtual device may look at any time."""
        return self._energy_j

    def stop(self) -> Reading | None:
        """What was told since `start`; None when no window is open."""
        if not self._open:
            return None
        self._open = False
        return Reading(self._energy_j, self._seconds, "simulated", self._samples)
