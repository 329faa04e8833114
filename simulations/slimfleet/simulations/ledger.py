"""Simulated ledger: a round on a virtual device by the cost model's formulae, under the round's true conditions."""

from __future__ import annotations

from dataclasses import replace
from math import inf

from slimfleet.client.ledger import Balance, transfer
from slimfleet.compression import DeviceProfile, SlimfleetError
from slimfleet.compression.types import EnergySource, PauseReason, PhaseCost, PhaseName, Phases, Startup
from slimfleet.simulations.heat import Case


class DeviceLost(SlimfleetError):
    """A virtual device vanished in mid-round; nothing comes back from it."""


class SimulatedLedger:
    """Virtual seconds and joules of a device whose true speed, power and rates `truth` holds for this round."""

    def __init__(
        self,
        truth: DeviceProfile,
        power_w: float | None,
        startup_s: float,
        case: Case | None = None,
        stays_s: float = inf,
    ) -> None:
        """`case` is how hot the device is; it is gone `stays_s` after the begin."""
        self._truth, self._case, self._stays_s = truth, case or Case(0.0), stays_s
        self._power_w = truth.train_w if power_w is None else min(power_w, truth.train_w)
        self._startup = Startup(time_s=startup_s)
        self._time_s = startup_s
        self._compute_j = self._radio_j = 0.0
        self._phases: dict[PhaseName, tuple[float, float]] = {"startup": (startup_s, 0.0)}

    def download(self, size_bytes: int) -> None:
        """Receive at the true rate; the radio wakes once a round."""
        self._transfer("download", *transfer(self._truth, down=size_bytes, burst=True))

    def evaluate(self, flops: float) -> None:
        """Compute as in training."""
        self._compute("evaluate", flops)

    def train(self, flops: float) -> None:
        """Compute at the true speed and power, pausing so that mean power holds: time is energy over that power."""
        self._compute("train", flops)

    def upload(self, size_bytes: int) -> None:
        """Send at the true rate."""
        self._transfer("upload", *transfer(self._truth, up=size_bytes))

    def pause(self, seconds: float, reason: PauseReason) -> None:
        """Let virtual time pass."""
        self._pass(seconds)
        self._note("idle", seconds, 0.0)

    def balance(self) -> Balance:
        """What has been spent so far, exactly."""
        energy_j = self._compute_j + self._radio_j
        return Balance(energy_j=energy_j, radio_j=self._radio_j, time_s=self._time_s, startup=self._startup)

    def peak_memory_bytes(self, predicted: int) -> int:
        """As predicted: the cost model is what a virtual device takes."""
        return predicted

    def close(self) -> tuple[Balance, EnergySource]:
        """The final balance; its joules are simulated. Encoding is a part of the start-up, as the cost model has it."""
        costs = {
            phase: PhaseCost(time_s=seconds, energy_j=joules, source="simulated")
            for phase, (seconds, joules) in self._phases.items()
        }
        return replace(self.balance(), phases=Phases.of(costs)), "simulated"

    def _compute(self, phase: PhaseName, flops: float) -> None:
        joules = self._truth.train_w * flops / self._truth.train_flops_per_s
        seconds, busy_s = self._case.work(joules, self._power_w), joules / self._truth.train_w
        self._compute_j += joules
        self._pass(seconds)
        self._note(phase, busy_s, joules)
        self._note("idle", seconds - busy_s, 0.0)

    def _transfer(self, phase: PhaseName, seconds: float, joules: float) -> None:
        self._radio_j += joules
        self._pass(seconds)
        self._note(phase, seconds, joules)

    def _pass(self, seconds: float) -> None:
        """Let time pass. Raises DeviceLost where the device is gone by then."""
        self._time_s += seconds
        if self._time_s > self._stays_s:
            raise DeviceLost(f"it was taken off its charger after {self._stays_s:.3g} s of its round")

    def _note(self, phase: PhaseName, seconds: float, joules: float) -> None:
        before_s, before_j = self._phases.get(phase, (0.0, 0.0))
        self._phases[phase] = before_s + seconds, before_j + joules
