"""Ledger of a round on one device: seconds, joules and bytes as they are spent.

It is opened when a round starts and told of every transfer and step; the budget guard reads it before each step. What
it has been told last says which phase is under way. A real device keeps a `DeviceLedger`; a simulated one has its own
implementation, in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from slimfleet.client.governor.power import PowerGovernor
from slimfleet.client.meters import Meter, peak_memory_bytes, reset_peak_memory
from slimfleet.client.meters.memory import PROC
from slimfleet.client.phases import POWER_SPREAD, Span, Spans, computing, measured
from slimfleet.client.startup import Began
from slimfleet.compression import DeviceProfile
from slimfleet.compression.types import (
    EnergySource,
    Pause,
    PauseReason,
    PhaseCost,
    PhaseName,
    Phases,
    Startup,
)

NOTHING_YET = Startup(time_s=0.0, energy_j=0.0)
"""The start-up of a round that began when its ledger was opened."""

NO_PHASES = Phases.of({})

RADIO_SPREAD = 1.0
"""How far the energy of a transfer may be from its profile's, as a share: published figures for a byte over one kind of
radio differ by a factor of two and more (`profiles.csv`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What has been spent since the round began. `energy_j` includes `radio_j`."""

    energy_j: float
    radio_j: float
    time_s: float
    startup: Startup = NOTHING_YET
    """The part that went before the first step, transfers and evaluation left out."""
    phases: Phases = NO_PHASES
    """The same by phase, once the ledger is closed."""
    pauses: tuple[Pause, ...] = ()
    """How often and how long the device has paused, by reason."""
    gross_j: float | None = None
    """What the meter read, idle power included, once the ledger is closed; None without a reading."""

    def paused_s(self, reason: PauseReason) -> float:
        """Seconds paused for one reason."""
        return sum(pause.time_s for pause in self.pauses if pause.reason == reason)


class Ledger(Protocol):
    """The account of one round."""

    def download(self, size_bytes: int) -> None:
        """The encoded model of this size has been received, and its model built: the first step is next."""
        ...

    def evaluate(self, flops: float) -> None:
        """The received model has been evaluated on some examples, in this many operations; holds the mean power."""
        ...

    def train(self, flops: float) -> None:
        """One local step of this many floating-point operations has been done; holds the mean power."""
        ...

    def upload(self, size_bytes: int) -> None:
        """The encoded update of this size is about to be sent."""
        ...

    def pause(self, seconds: float, reason: PauseReason) -> None:
        """Rest between two pieces of work."""
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
    always the profile's estimate: the transfer happens outside this process. `clock`, which must be the meter's, and
    `sleep` are in seconds; `proc` is the proc file system. `began` is when the work on this round began: what it took
    until the ledger was opened no meter has read, so it is added. With it, time that other processes took from this one
    costs no energy. After each piece of work the governor says how long to pause.
    """

    def __init__(
        self,
        profile: DeviceProfile,
        governor: PowerGovernor,
        meter: Meter,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        proc: Path = PROC,
        began: Began | None = None,
    ) -> None:
        self._profile, self._governor = profile, governor
        self._before = self._startup = NOTHING_YET if began is None else began.startup(profile.train_w)
        self._cpu = clock if began is None else began.cpu
        self._meter, self._clock, self._sleep, self._proc = meter, clock, sleep, proc
        self._transfers: dict[PhaseName, tuple[float, float]] = {}
        self._spans, self._busy_s = Spans(), 0.0
        self._under_way: PhaseName = "startup"
        self._pauses: dict[PauseReason, Pause] = {}
        self._resting: PauseReason | None = None
        self._closed: tuple[Balance, EnergySource] | None = None
        self._began = self._resumed = clock()
        self._resumed_cpu = self._cpu()
        reset_peak_memory(proc)
        meter.start()

    def download(self, size_bytes: int) -> None:
        """Account for the received model at nominal rates, for waking the radio, and for work done since opening: with
        what went before it, that is the start-up. The pause that mean power may need is a part of it."""
        self._transfers["download"] = transfer(self._profile, down=size_bytes, burst=True)
        self._work("startup", then="train")
        self._hold_power()
        self._startup = Startup.cut(
            time_s=self._before.time_s + (self._clock() - self._began),
            energy_j=self._before.energy_j + self._profile.train_w * self._busy_s,
        )

    def evaluate(self, flops: float) -> None:
        """Account for evaluating by the clock, then pause so that mean power stays within the budget."""
        self._work("evaluate", then="train")
        self._hold_power()

    def train(self, flops: float) -> None:
        """Account for one step by the clock, then pause so that mean power stays within the budget."""
        self._work("train", then="train")
        self._hold_power()

    def upload(self, size_bytes: int) -> None:
        """Account for the update at nominal rates, and for encoding it, then pause as after a step."""
        self._work("encode", then="encode")
        self._hold_power(at_once=True)
        self._transfers["upload"] = transfer(self._profile, up=size_bytes)

    def pause(self, seconds: float, reason: PauseReason) -> None:
        """Sleep. Pauses for one reason without work between them count as one."""
        began_s = self._clock()
        self._sleep(seconds)
        self._resumed, self._resumed_cpu = self._clock(), self._cpu()
        self._spans.add(Span("idle", began_s, self._resumed, 0.0))
        before = self._pauses.get(reason, Pause(reason=reason, times=0, time_s=0.0))
        self._pauses[reason] = Pause(
            reason=reason,
            times=before.times + (self._resting != reason),
            time_s=before.time_s + self._resumed - began_s,
        )
        self._resting = reason

    def balance(self) -> Balance:
        """Elapsed time, and energy by the profile's power until the meter is read."""
        radio_s, radio_j = self._radio()
        energy_j = self._before.energy_j + self._profile.train_w * self._busy_s + radio_j
        time_s = self._before.time_s + (self._clock() - self._began) + radio_s
        return Balance(
            energy_j=energy_j,
            radio_j=radio_j,
            time_s=time_s,
            startup=self._startup,
            pauses=tuple(self._pauses.values()),
        )

    def peak_memory_bytes(self, predicted: int) -> int:
        """The largest resident set of this process since the ledger was opened."""
        return peak_memory_bytes(self._proc)

    def close(self) -> tuple[Balance, EnergySource]:
        """Read the meter; without a reading keep the estimate. The balance is the sum of the phases."""
        if self._closed is not None:
            return self._closed
        reading = self._meter.stop()
        self._work(self._under_way, then=self._under_way)
        train_w = self._profile.train_w
        if reading is None:
            source: EnergySource = "estimated"
            costs = computing(self._spans, train_w)
        else:
            source = reading.source
            costs = measured(self._spans, reading, self._profile.idle_w, train_w)
        phases = self._with_unmetered(costs)
        # A coarse meter may have read less than the profile's power says of the first seconds.
        startup_j = min(self._startup.energy_j, phases.energy_j - phases.radio_j)
        balance = Balance(
            energy_j=phases.energy_j,
            radio_j=phases.radio_j,
            time_s=phases.time_s,
            startup=replace(self._startup, energy_j=max(startup_j, 0.0)),
            phases=phases,
            pauses=tuple(self._pauses.values()),
            gross_j=None if reading is None else reading.energy_j,
        )
        self._closed = balance, source
        return self._closed

    def _hold_power(self, at_once: bool = False) -> None:
        """Pause where the governor says so."""
        elapsed_s = self._before.time_s + (self._clock() - self._began)
        pause_s = self._governor.pause_s(self._before.energy_j + self._computed_j(), elapsed_s, at_once)
        if pause_s > 0:
            self.pause(pause_s, "power")

    def _computed_j(self) -> float:
        """Energy above idle since the ledger was opened: as the meter has it so far, else by the profile's power."""
        gross_j = self._meter.so_far()
        if gross_j is None:
            return self._profile.train_w * self._busy_s
        return max(gross_j - self._profile.idle_w * (self._clock() - self._began), 0.0)

    def _work(self, phase: PhaseName, *, then: PhaseName) -> None:
        """Count the time since the device last resumed as one of `phase`, and what this process has worked in it as
        busy. The phase `then` is under way from now on."""
        now, cpu = self._clock(), self._cpu()
        busy_s = min(now - self._resumed, cpu - self._resumed_cpu)
        self._spans.add(Span(phase, self._resumed, now, busy_s))
        self._resumed, self._resumed_cpu, self._under_way = now, cpu, then
        self._busy_s += busy_s
        self._resting = None

    def _radio(self) -> tuple[float, float]:
        """Seconds and joules of the transfers so far."""
        seconds, joules = zip((0.0, 0.0), *self._transfers.values(), strict=True)
        return sum(seconds), sum(joules)

    def _with_unmetered(self, costs: dict[PhaseName, PhaseCost]) -> Phases:
        """The phases with what no meter reads: the time before the ledger was opened, and the transfers."""
        before, startup = self._before, costs["startup"]
        if before.time_s > 0:
            costs["startup"] = PhaseCost(
                time_s=startup.time_s + before.time_s,
                energy_j=startup.energy_j + before.energy_j,
                uncertainty_j=startup.uncertainty_j + POWER_SPREAD * before.energy_j,
            )
        for phase, (seconds, joules) in self._transfers.items():
            costs[phase] = PhaseCost(time_s=seconds, energy_j=joules, uncertainty_j=RADIO_SPREAD * joules)
        return Phases.of(costs)
