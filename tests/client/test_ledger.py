from pathlib import Path

import pytest

from slimfleet.client.governor import PowerGovernor
from slimfleet.client.ledger import DeviceLedger, transfer
from slimfleet.client.meters import NoMeter, Reading


class Time:
    """A clock that moves only when told; sleeping moves it too."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept += seconds
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def test_transfers_go_by_the_nominal_rates(phone):
    assert transfer(phone, up=5_000) == pytest.approx((0.5, 0.05))
    assert transfer(phone, down=4_000, burst=True) == pytest.approx((0.2, 0.52))


def test_without_a_meter_energy_is_power_times_time_and_called_estimated(phone, time):
    ledger = DeviceLedger(phone, PowerGovernor(), NoMeter(), time.clock, time.sleep)
    time.now += 2.0  # building the model
    ledger.download(4_000)
    time.now += 3.0
    ledger.train(1e6)
    time.now += 1.0  # encoding
    ledger.upload(5_000)
    balance, source = ledger.close()
    assert source == "estimated"
    assert balance.radio_j == pytest.approx(0.57)
    assert balance.energy_j == pytest.approx(4.0 * 6 + 0.57)
    assert balance.time_s == pytest.approx(6.0 + 0.7)
    assert ledger.close() == (balance, source)


def test_building_the_model_is_no_part_of_the_first_step(phone, time):
    ledger = DeviceLedger(phone, PowerGovernor(), NoMeter(), time.clock, time.sleep)
    time.now += 50.0
    ledger.download(0)
    before = ledger.balance()
    time.now += 1.0
    ledger.train(1e6)
    assert ledger.balance().energy_j - before.energy_j == pytest.approx(4.0)


def test_pauses_hold_mean_power_and_cost_no_energy(phone, time):
    ledger = DeviceLedger(phone, PowerGovernor(1.0), NoMeter(), time.clock, time.sleep)
    ledger.download(0)
    for _ in range(3):
        time.now += 2.0
        ledger.train(1e6)
    balance = ledger.balance()
    assert time.slept == pytest.approx(3 * 6.0)
    compute_j = balance.energy_j - balance.radio_j
    assert compute_j == pytest.approx(24.0)
    assert compute_j / balance.time_s == pytest.approx(1.0)


def test_a_device_below_the_power_limit_never_pauses(phone, time):
    ledger = DeviceLedger(phone, PowerGovernor(4.0), NoMeter(), time.clock, time.sleep)
    time.now += 2.0
    ledger.train(1e6)
    assert time.slept == 0.0


def test_a_reading_is_charged_above_idle(phone, time):
    """The meter reads the whole device: 20 J in 10 s, of which 0.3 W are idle."""

    class Fixed(NoMeter):
        def stop(self):
            return Reading(20.0, 10.0, "measured", 100)

    ledger = DeviceLedger(phone, PowerGovernor(), Fixed(), time.clock, time.sleep)
    ledger.download(4_000)
    balance, source = ledger.close()
    assert source == "measured"
    assert balance.energy_j == pytest.approx(20.0 - 0.3 * 10 + balance.radio_j)


def test_memory_is_that_of_the_process(phone, time, tmp_path: Path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("VmHWM:\t  2000 kB\n")
    ledger = DeviceLedger(phone, PowerGovernor(), NoMeter(), time.clock, time.sleep, tmp_path)
    assert ledger.peak_memory_bytes(predicted=7) == 2_048_000
    assert (tmp_path / "self" / "clear_refs").read_text() == "5"
