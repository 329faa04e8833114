"""Phases of a round on a device with a meter: canned power, read at 10 Hz, against the power that was drawn."""

from functools import partial

import pytest

from slimfleet.client.governor import PowerGovernor
from slimfleet.client.ledger import DeviceLedger
from slimfleet.client.meters import ChargeCounterMeter, NoMeter, Reading, SampledMeter
from slimfleet.client.meters.power_supply import find_gauges
from slimfleet.client.phases import POWER_SPREAD
from slimfleet.client.round import run_round
from slimfleet.compression.held_out import LocalData
from slimfleet.compression.types import PHASES

IDLE_W = 0.3  # of the profile in conftest.py


class Replay:
    """A device whose battery gives the power that a trace says; its clock, its sysfs and its sampler are the replay."""

    def __init__(self, root, interval_s):
        self.folder = root / "BAT0"
        self.folder.mkdir()
        for file, value in (("type", "Battery"), ("status", "Discharging"), ("voltage_now", 4_000_000)):
            (self.folder / file).write_text(f"{value}\n")
        self.now, self.joules, self.interval_s, self.sample = 0.0, 0.0, interval_s, None
        self.ticks = 0
        self._show(0.0)

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.runs(seconds, IDLE_W)

    def sampler(self, sample, interval_s):
        self.sample = sample
        return lambda: None

    def runs(self, seconds, watts):
        """Draw so many watts for so long, while the meter samples."""
        until = self.now + seconds
        while (tick := (self.ticks + 1) * self.interval_s) <= until:
            self._moves(tick - self.now, watts)
            self.now, self.ticks = tick, self.ticks + 1
            self.sample()
        self._moves(until - self.now, watts)
        self.now = until

    def _moves(self, seconds, watts):
        self.joules += seconds * watts
        self._show(watts)

    def _show(self, watts):
        (self.folder / "power_now").write_text(f"{round(watts * 1e6)}\n")
        # In steps of 3.6 J, as a fuel gauge of 1 mWh counts.
        (self.folder / "energy_now").write_text(f"{round((1e6 - self.joules // 3.6 * 3.6) / 3600 * 1e6)}\n")


def round_of(replay, phone, meter, power_w=None):
    """A round of known phases; returns the ledger and what each phase truly drew above idle."""
    ledger = DeviceLedger(phone, PowerGovernor(power_w), meter, replay.clock, replay.sleep)
    replay.runs(8.03, 3.0)
    ledger.download(4_000)
    replay.runs(3.11, 5.0)
    ledger.evaluate(1e6)
    for _ in range(4):
        replay.runs(15.07, 6.0)
        ledger.train(1e6)
    replay.runs(6.4, 4.0)
    ledger.upload(5_000)
    seconds = {"startup": 8.03, "evaluate": 3.11, "train": 60.28, "encode": 6.4}
    watts = {"startup": 3.0, "evaluate": 5.0, "train": 6.0, "encode": 4.0}
    return ledger, {phase: seconds[phase] * (watts[phase] - IDLE_W) for phase in seconds}


@pytest.mark.parametrize("power_w", [None, 2.0])
def test_phases_of_a_replayed_trace_are_what_each_drew_and_sum_to_the_total(phone, tmp_path, power_w):
    replay = Replay(tmp_path, 0.1)
    meter = SampledMeter(partial(find_gauges, tmp_path), clock=replay.clock, sampler=replay.sampler)
    ledger, drawn = round_of(replay, phone, meter, power_w)
    balance, source = ledger.close()
    phases = dict(balance.phases)
    assert source == "measured"
    assert balance.phases.energy_j == pytest.approx(balance.energy_j, rel=1e-12)
    assert balance.phases.time_s == pytest.approx(balance.time_s, rel=1e-12)
    compute_j = replay.joules - IDLE_W * replay.now
    assert balance.energy_j - balance.radio_j == pytest.approx(compute_j, rel=0.01)
    for phase, joules in drawn.items():
        assert phases[phase].source == "measured"
        assert phases[phase].energy_j == pytest.approx(joules, rel=0.02, abs=phases[phase].uncertainty_j)
        assert phases[phase].uncertainty_j < 0.2 * joules
    assert phases["idle"].time_s == pytest.approx(0.0 if power_w is None else replay.now - 77.82)
    for phase in ("download", "upload"):
        assert (phases[phase].source, phases[phase].energy_j > 0) == ("estimated", True)


def test_a_counter_in_steps_is_shared_out_within_its_uncertainty(phone, tmp_path):
    replay = Replay(tmp_path, 1.0)
    meter = ChargeCounterMeter(tmp_path, clock=replay.clock, sampler=replay.sampler)
    ledger, drawn = round_of(replay, phone, meter)
    balance, source = ledger.close()
    phases = dict(balance.phases)
    assert source == "measured"
    assert balance.phases.energy_j == pytest.approx(balance.energy_j, rel=1e-12)
    for phase, joules in drawn.items():
        assert abs(phases[phase].energy_j - joules) <= phases[phase].uncertainty_j + 3.6


def test_without_samples_the_profile_says_what_each_phase_took(phone, tmp_path):
    replay = Replay(tmp_path, 0.1)
    replay.sample = lambda: None
    ledger, _ = round_of(replay, phone, NoMeter(), power_w=2.0)
    balance, _ = ledger.close()
    train = balance.phases.train
    assert (train.source, train.energy_j) == ("estimated", pytest.approx(4.0 * 60.28))
    assert train.uncertainty_j == pytest.approx(POWER_SPREAD * train.energy_j)
    assert balance.phases.idle.energy_j == 0.0
    assert balance.phases.energy_j == pytest.approx(balance.energy_j, rel=1e-12)


def test_a_sum_without_a_trace_is_shared_out_by_the_profile(phone, tmp_path):
    class Sum(NoMeter):
        def stop(self):
            return Reading(400.0, 77.82, "measured", 100)

    replay = Replay(tmp_path, 0.1)
    replay.sample = lambda: None
    ledger, _ = round_of(replay, phone, Sum())
    balance, source = ledger.close()
    compute_j = 400.0 - IDLE_W * 77.82
    assert source == "measured"
    assert balance.energy_j - balance.radio_j == pytest.approx(compute_j)
    assert balance.phases.train.source == "estimated"
    assert balance.phases.train.energy_j == pytest.approx(compute_j * 60.28 / 77.82)


def test_a_phase_below_idle_power_gets_nothing_and_the_sum_holds(phone, tmp_path):
    replay = Replay(tmp_path, 0.1)
    meter = SampledMeter(partial(find_gauges, tmp_path), clock=replay.clock, sampler=replay.sampler)
    ledger = DeviceLedger(phone, PowerGovernor(), meter, replay.clock, replay.sleep)
    replay.runs(10.0, 0.1)  # waits for its disk
    ledger.download(0)
    replay.runs(10.0, 6.0)
    ledger.train(1e6)
    balance, _ = ledger.close()
    startup, train = balance.phases.startup, balance.phases.train
    assert startup.energy_j == 0.0
    assert train.energy_j == pytest.approx(0.1 * 10 + 6.0 * 10 - IDLE_W * 20, rel=0.01)
    assert train.uncertainty_j >= 2.0


def test_a_report_holds_the_phases_of_its_round(workbench, task, send, phone, no_residual, tmp_path):
    replay = Replay(tmp_path, 0.1)
    assignment, payload = send()
    ledger = DeviceLedger(phone, PowerGovernor(), NoMeter(), replay.clock, replay.sleep)
    replay.sample = lambda: None
    replay.runs(3.0, 3.0)
    _, report, _ = run_round(
        workbench, phone, LocalData(task.load(0)), assignment, workbench.open(payload), no_residual, ledger
    )
    assert report.phases.startup.time_s == pytest.approx(3.0)
    assert report.phases.energy_j == pytest.approx(report.spent.energy_j, rel=1e-12)
    assert report.phases.time_s == pytest.approx(report.spent.time_s, rel=1e-12)
    assert [name for name, _ in report.phases] == list(PHASES)
