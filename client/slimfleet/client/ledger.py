"""Ledger of a round on one device: seconds, joules and bytes as they are spent.

It is opened when a round starts and told of every transfer and step; the budget guard reads it before each step. A real
device keeps a `DeviceLedger`; a simulated one has its own implementation, in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from slimfleet.client.meters import Meter, net_of_idle, peak_memory_bytes, reset_peak_memory
from slimfleet.client.meters.memory import PROC
from slimfleet.compression import DeviceProfile
from slimfleet.compression.types import EnergySource


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What has been spent since the round began. `energy_j` includes `radio_j`."""

    energy_j: float
    radio_j: float
    time_s: float


class Ledger(Protocol):
    """The account of one round."""

    def download(self, size_bytes: int) -> None:
        """The encoded model of this size has been received."""
        ...

    def train(self, flops: float) -> None:
        """One local step of this many floating-point operations has been done; holds the mean power."""
        ...

    def upload(self, size_bytes: int) -> None:
        """The encoded update of this size is about to be sent."""
        ...

    def balance(self) -> Balance:
        """What has been spent so far; an estimate where the meter is read only at the end."""
        ...

    def peak_memory_bytes(self, predicted: int) -> int:
        """Peak memory of the round so far: measured, or `predicted` where nothing real trains."""
        ...

    def close(self) -> tuple[Balance, EnergySource]:
        """End the round: the final balance, and the source of its joules. May be called again."""
        ...


def transfer(
    profile: DeviceProfile, *, down: int = 0, up: int = 0, burst: bool = False
) -> tuple[float, float]:
    """Seconds and joules that moving bytes takes at the profile's nominal rates."""
    seconds = down / profile.downlink_bytes_per_s + up / profile.uplink_bytes_per_s
    joules = down * profile.radio_j_per_byte_down + up * profile.radio_j_per_byte_up
    return seconds, joules + (profile.radio_j_per_burst if burst else 0.0)


class DeviceLedger:
    """The ledger of a real device: time from a clock, training energy from a meter, radio energy from the profile.

    Meters read the whole device; a round is charged its energy above idle, as `train_w` is defined. Without a reading
    the training energy is the profile's power times the time, and the source is `estimated`. Radio time and energy are
    always the profile's estimate: the transfer happens outside this process. `clock` and `sleep` are in seconds; `proc`
    is the proc file system.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        power_w: float | None,
        meter: Meter,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        proc: Path = PROC,
    ) -> None:
        self._profile, self._power_w = profile, power_w
        self._meter, self._clock, self._sleep, self._proc = meter, clock, sleep, proc
        self._transfer_s = self._radio_j = self._busy_s = 0.0
        self._began = self._resumed = clock()
        reset_peak_memory(proc)
        meter.start()

    def download(self, size_bytes: int) -> None:
        """Account for the received model at nominal rates, for waking the radio, and for work done since opening."""
        self._transfer(*transfer(self._profile, down=size_bytes, burst=True))
        self._work()

    def train(self, flops: float) -> None:
        """Account for one step by the clock, then pause so that mean power stays within the budget."""
        busy = self._work()
        if self._power_w is not None and self._profile.train_w > self._power_w:
            self._sleep(busy * (self._profile.train_w / self._power_w - 1.0))
            self._resumed = self._clock()

    def upload(self, size_bytes: int) -> None:
        """Account for the update at nominal rates, and for encoding it."""
        self._work()
        self._transfer(*transfer(self._profile, up=size_bytes))

    def balance(self) -> Balance:
        """Elapsed time, and energy by the profile's power until the meter is read."""
        return self._at(self._profile.train_w * self._busy_s)

    def peak_memory_bytes(self, predicted: int) -> int:
        """The largest resident set of this process since the ledger was opened."""
        return peak_memory_bytes(self._proc)

    def close(self) -> tuple[Balance, EnergySource]:
        """Read the meter; without a reading keep the estimate."""
        reading = self._meter.stop()
        if reading is None:
            return self.balance(), "estimated"
        return self._at(net_of_idle(reading, self._profile.idle_w).energy_j), reading.source

    def _work(self) -> float:
        """Count the time since the device last resumed as busy; returns it in seconds."""
        now = self._clock()
        busy, self._resumed = now - self._resumed, now
        self._busy_s += busy
        return busy

    def _transfer(self, seconds: float, joules: float) -> None:
        self._transfer_s += seconds
        self._radio_j += joules

    def _at(self, compute_j: float) -> Balance:
        return Balance(
            energy_j=compute_j + self._radio_j,
            radio_j=self._radio_j,
            time_s=self._clock() - self._began + self._transfer_s,
        )
