"""What a process has spent before a round begins: measured from its start, charged, reported, held to budgets."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from slimfleet.client.governor import PowerGovernor
from slimfleet.client.ledger import DeviceLedger
from slimfleet.client.meters import NoMeter, Reading
from slimfleet.client.round import run_round
from slimfleet.client.startup import Began
from slimfleet.compression import Budget, BudgetExceeded
from slimfleet.compression.held_out import LocalData
from slimfleet.compression.types import LARGEST_STARTUP_J, LONGEST_STARTUP_S, Startup


class Machine:
    """A clock and a processor that move when told."""

    def __init__(self, waited=0.0, worked=0.0):
        self.now, self.used = waited, worked

    def began(self):
        return Began(0.0, 0.0, clock=lambda: self.now, cpu=lambda: self.used)

    def works(self, seconds, share=1.0):
        self.now += seconds
        self.used += share * seconds

    def sleep(self, seconds):
        self.now += seconds


def ledger_of(machine, phone, power_w=None, meter=None):
    return DeviceLedger(
        phone,
        PowerGovernor(power_w),
        meter or NoMeter(),
        lambda: machine.now,
        machine.sleep,
        began=machine.began(),
    )


def test_a_process_knows_when_it_started():
    """Asked in a process of its own, after work and after a rest; the process that started it knows both limits."""
    code = (
        "import time; from slimfleet.client.startup import Began; began = Began.of_process();"
        "time.sleep(0.5); now = began.startup(1.0); print(now.time_s, now.energy_j, time.process_time())"
    )
    before = time.monotonic()
    answer = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    lived = time.monotonic() - before
    time_s, energy_j, cpu_s = map(float, answer.split())
    tick = 1 / os.sysconf("SC_CLK_TCK")
    assert 0.5 <= time_s <= lived + 2 * tick
    assert 0 < energy_j <= cpu_s


def test_without_a_proc_file_system_the_processor_time_counts(tmp_path):
    worked = time.process_time()
    assert Began.of_process(tmp_path).startup(1.0).time_s >= worked


def test_a_commands_name_may_hold_anything(tmp_path):
    (tmp_path / "self").mkdir()
    fields = " ".join(["S", *["0"] * 18, str(7 * os.sysconf("SC_CLK_TCK")), "9"])
    (tmp_path / "self" / "stat").write_text(f"1 (a ) 1 2 (b) 3 {fields}".replace("3 S", "S"))
    assert Began.of_process(tmp_path).clock_s == 7.0


def test_figures_of_ones_own_stay_within_what_the_other_end_takes():
    """A device that was suspended for a night, or whose clock was set back, does not make its report unacceptable."""
    assert Startup.cut(1e9, 1e9) == Startup(time_s=LONGEST_STARTUP_S, energy_j=LARGEST_STARTUP_J)
    assert Startup.cut(-1.0, -1.0) == Startup(time_s=0.0, energy_j=0.0)


def test_a_round_is_charged_from_the_start_of_the_process(phone):
    machine = Machine(waited=5.0, worked=2.0)
    ledger = ledger_of(machine, phone)
    assert ledger.balance().energy_j == pytest.approx(4.0 * 2)
    assert ledger.balance().time_s == pytest.approx(5.0)
    machine.works(1.0)  # building the model
    ledger.download(0)
    machine.works(2.0)
    ledger.train(1e6)
    balance, _ = ledger.close()
    assert balance.startup.energy_j == pytest.approx(4.0 * 3)
    assert balance.startup.time_s == pytest.approx(6.0)
    assert balance.energy_j == pytest.approx(4.0 * 5 + 0.5)
    assert balance.time_s == pytest.approx(8.0)


def test_time_that_other_processes_took_costs_no_energy(phone):
    machine = Machine()
    ledger = ledger_of(machine, phone)
    machine.works(10.0, share=0.1)
    ledger.download(0)
    machine.works(20.0, share=0.25)
    ledger.train(1e6)
    balance, _ = ledger.close()
    assert balance.energy_j == pytest.approx(4.0 * 6 + 0.5)
    assert balance.time_s == pytest.approx(30.0)


def test_several_cores_draw_the_power_of_training_and_no_more(phone):
    machine = Machine(waited=1.0, worked=4.0)
    ledger = ledger_of(machine, phone)
    machine.works(1.0, share=4.0)
    ledger.download(0)
    assert ledger.balance().energy_j == pytest.approx(4.0 * 2 + 0.5)


def test_mean_power_holds_over_the_startup_too(phone):
    machine = Machine(waited=2.0, worked=2.0)
    ledger = ledger_of(machine, phone, power_w=1.0)
    ledger.download(0)
    machine.works(1.0)
    ledger.train(1e6)
    balance, _ = ledger.close()
    assert (balance.energy_j - balance.radio_j) / balance.time_s <= 1.0 + 1e-9


def test_what_no_meter_has_read_is_added_to_its_reading(phone):
    class Fixed(NoMeter):
        def stop(self):
            return Reading(10.0, 2.0, "measured", 9)

    machine = Machine(waited=3.0, worked=3.0)
    ledger = ledger_of(machine, replace(phone, idle_w=0.0), meter=Fixed())
    ledger.download(0)
    machine.works(2.0)
    balance, source = ledger.close()
    assert source == "measured"
    assert balance.energy_j - balance.radio_j == pytest.approx(10.0 + 4.0 * 3)


def test_the_startup_is_never_more_than_was_spent_in_all(phone):
    """A coarse meter may read nothing in the seconds of which the profile says that they cost something."""

    class Coarse(NoMeter):
        def stop(self):
            return Reading(0.0, 2.0, "measured", 9)

    machine = Machine()
    ledger = ledger_of(machine, phone, meter=Coarse())
    machine.works(2.0)
    ledger.download(0)
    balance, _ = ledger.close()
    assert balance.startup.energy_j <= balance.energy_j - balance.radio_j


def test_a_round_whose_budget_the_startup_ate_is_refused(workbench, task, send, phone, no_residual):
    machine = Machine(waited=3.0, worked=3.0)
    assignment, payload = send(budget=Budget(energy_j=12.0))
    received = workbench.open(payload)
    with pytest.raises(BudgetExceeded) as refusal:
        run_round(
            workbench,
            phone,
            LocalData(task.load(0)),
            assignment,
            received,
            no_residual,
            ledger_of(machine, phone),
        )
    assert refusal.value.constraint == "energy_j"


def test_a_report_says_what_went_before_the_first_step(workbench, task, send, phone, no_residual):
    machine = Machine(waited=3.0, worked=2.0)
    assignment, payload = send()
    received = workbench.open(payload)
    ledger = ledger_of(machine, phone)
    _, report, _ = run_round(
        workbench, phone, LocalData(task.load(0)), assignment, received, no_residual, ledger
    )
    assert report.startup == Startup(time_s=3.0, energy_j=8.0)
    assert report.spent.energy_j == pytest.approx(8.0 + report.spent.radio_j)
