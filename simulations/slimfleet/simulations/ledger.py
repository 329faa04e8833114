"""Simulated ledger: a round on a virtual device by the cost model's formulae, under the round's true conditions."""

from __future__ import annotations

from slimfleet.client.ledger import Balance, transfer
from slimfleet.compression import DeviceProfile
from slimfleet.compression.types import EnergySource, Startup


class SimulatedLedger:
    """Virtual seconds and joules of a device whose true speed, power and rates `truth` holds for this round."""

    def __init__(self, truth: DeviceProfile, power_w: float | None, startup_s: float) -> None:
        self._truth = truth
        self._power_w = truth.train_w if power_w is None else min(power_w, truth.train_w)
        self._startup = Startup(time_s=startup_s)
        self._time_s = startup_s
        self._compute_j = self._radio_j = 0.0

    def download(self, size_bytes: int) -> None:
        """Receive at the true rate; the radio wakes once a round."""
        self._transfer(*transfer(self._truth, down=size_bytes, burst=True))

    def train(self, flops: float) -> None:
        """Compute at the true speed and power, pausing so that mean power holds: time is energy over that power."""
        joules = self._truth.train_w * flops / self._truth.train_flops_per_s
        seconds = joules / self._power_w
        self._compute_j += joules
        self._time_s += seconds

    def upload(self, size_bytes: int) -> None:
        """Send at the true rate."""
        self._transfer(*transfer(self._truth, up=size_bytes))

    def balance(self) -> Balance:
        """What has been spent so far, exactly."""
        energy_j = self._compute_j + self._radio_j
        return Balance(energy_j=energy_j, radio_j=self._radio_j, time_s=self._time_s, startup=self._startup)

    def peak_memory_bytes(self, predicted: int) -> int:
        """As predicted: the cost model is what a virtual device takes."""
        return predicted

    def close(self) -> tuple[Balance, EnergySource]:
        """The final balance; its joules are simulated."""
        return self.balance(), "simulated"

    def _transfer(self, seconds: float, joules: float) -> None:
        self._time_s += seconds
        self._radio_j += joules
