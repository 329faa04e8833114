import threading
import time
from functools import partial
from mmap import PAGESIZE, mmap

import pytest

from slimfleet.client.meters import (
    METERS,
    ChargeCounterMeter,
    NoMeter,
    Reading,
    SampledMeter,
    build_meter,
    net_of_idle,
    peak_memory_bytes,
    read_all,
    reset_peak_memory,
)
from slimfleet.client.meters.battery import read_batteries
from slimfleet.client.meters.power_supply import find_gauges
from slimfleet.client.meters.sampling import sample_in_thread
from slimfleet.compression.errors import BadInput


class Bench:
    """A device on a bench: its clock, its sysfs and its sampler move only by hand."""

    def __init__(self, root):
        self.root, self.now, self.sample, self.ended = root, 0.0, None, 0

    def clock(self):
        return self.now

    def sampler(self, sample, interval_s):
        self.sample = sample

        def end():
            self.ended += 1

        return end

    def set(self, name="BAT0", **files):
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        for file, value in files.items():
            (folder / file).write_text(f"{value}\n")

    def tick(self, seconds, **files):
        self.now += seconds
        self.set(**files)
        self.sample()

    def gauge(self):
        return SampledMeter(partial(find_gauges, self.root), clock=self.clock, sampler=self.sampler)

    def counter(self):
        return ChargeCounterMeter(self.root, clock=self.clock, sampler=self.sampler)


def given_w(root):
    return find_gauges(root).look()


def told(reading):
    """What of a reading is the same whatever the sensor."""
    return reading and (reading.energy_j, reading.duration_s, reading.source, reading.samples)


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path)
    bench.set(type="Battery", status="Discharging", voltage_now=4_000_000)
    return bench


def test_a_ramp_of_power_is_integrated_by_trapezoids(bench):
    bench.set(power_now=2_000_000)
    meter = bench.gauge()
    meter.start()
    for second in range(1, 11):
        bench.tick(1.0, power_now=(2 + second) * 1_000_000)
    assert told(meter.stop()) == (70.0, 10.0, "measured", 12)
    assert bench.ended == 1


@pytest.mark.parametrize("microampere", [500_000, -500_000])
def test_the_sign_of_the_current_does_not_matter(bench, microampere):
    bench.set(current_now=microampere)
    assert given_w(bench.root) == pytest.approx(2.0)


def test_power_of_several_batteries_adds_up_and_peripherals_are_left_out(bench):
    bench.set(power_now=1_500_000)
    bench.set("BAT1", type="Battery", status="Discharging", power_now=-500_000)
    bench.set("AC", type="Mains", online=0)
    bench.set("mouse", type="Battery", scope="Device", status="Discharging", power_now=9_000_000)
    assert given_w(bench.root) == pytest.approx(2.0)
    assert [battery.name for battery in read_batteries(bench.root)] == ["BAT0", "BAT1"]


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_no_reading_when_a_battery_stops_discharging_for_one_sample(bench, status):
    bench.set(power_now=2_000_000)
    meter = bench.gauge()
    meter.start()
    for sample in range(20):
        bench.tick(0.1, status=status if sample == 7 else "Discharging")
    assert meter.stop() is None


def test_no_reading_with_fewer_than_ten_samples(bench):
    bench.set(power_now=2_000_000)
    meter = bench.gauge()
    for ticks, expected in ((7, None), (8, (16.0, 8.0, "measured", 10))):
        meter.start()
        for _ in range(ticks):
            bench.tick(1.0)
        assert told(meter.stop()) == expected


@pytest.mark.parametrize("files", [{}, {"power_now": "n/a"}, {"current_now": ""}])
def test_no_reading_and_no_thread_without_a_number(bench, files):
    bench.set(**files)
    meter = bench.gauge()
    meter.start()
    assert bench.sample is None
    assert meter.stop() is None


def test_no_reading_without_a_battery_or_an_open_window(tmp_path):
    absent = tmp_path / "absent"
    for meter in (SampledMeter(partial(find_gauges, absent)), ChargeCounterMeter(absent)):
        assert meter.stop() is None
        meter.start()
        assert meter.stop() is None


def test_starting_again_throws_the_open_window_away(bench):
    bench.set(power_now=2_000_000)
    meter = bench.gauge()
    meter.start()
    bench.tick(100.0)
    meter.start()
    assert bench.ended == 1
    for _ in range(10):
        bench.tick(1.0)
    assert told(meter.stop()) == (20.0, 10.0, "measured", 12)
    assert meter.stop() is None


def test_the_fall_of_an_energy_counter_is_read(bench):
    bench.set(energy_now=50_000_000)
    meter = bench.counter()
    meter.start()
    for step in range(1, 21):
        bench.tick(30.0, energy_now=50_000_000 - 1000 * (step // 2))
    reading = meter.stop()
    assert reading is not None
    assert reading.energy_j == pytest.approx(10 * 1000e-6 * 3600)
    assert (reading.duration_s, reading.source, reading.samples) == (600.0, "measured", 10)


def test_the_fall_of_a_charge_counter_is_multiplied_by_the_voltage(bench):
    bench.set(charge_now=3_000_000)
    meter = bench.counter()
    meter.start()
    for step in range(1, 13):
        bench.tick(30.0, charge_now=3_000_000 - 1000 * step, voltage_now=4_000_000)
    reading = meter.stop()
    assert reading is not None
    assert reading.energy_j == pytest.approx(12 * 1000e-6 * 3600 * 4.0)


def test_a_counter_of_too_few_steps_or_one_that_rises_gives_no_reading(bench):
    for counter in (
        lambda t: 50_000_000 - 1000 * (t // 10),
        lambda t: 50_000_000 - 1000 * t * (1 if t < 50 else -1),
    ):
        bench.set(energy_now=50_000_000)
        meter = bench.counter()
        meter.start()
        for t in range(60):
            bench.tick(1.0, energy_now=counter(t))
        assert meter.stop() is None


def test_real_time_and_a_real_thread(bench):
    bench.set(power_now=3_000_000)
    meter = SampledMeter(partial(find_gauges, bench.root), rate_hz=200.0)
    meter.start()
    time.sleep(0.3)
    reading = meter.stop()
    assert reading is not None
    assert reading.energy_j == pytest.approx(3.0 * reading.duration_s)
    assert reading.duration_s >= 0.3
    assert not _meter_threads()


def test_a_sampling_thread_that_fails_ends_and_says_so():
    def broken():
        raise RuntimeError("sensor on fire")

    end = sample_in_thread(broken, 0.001)
    deadline = time.monotonic() + 10
    while _meter_threads() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not _meter_threads()
    with pytest.raises(RuntimeError, match="on fire"):
        end()


def test_idle_power_can_be_taken_off():
    reading = Reading(50.0, 10.0, "measured", 100)
    assert net_of_idle(reading, 2.0) == Reading(30.0, 10.0, "measured", 100)
    assert net_of_idle(reading, 9.0).energy_j == 0.0


def test_mean_power_is_that_over_the_window():
    assert Reading(70.0, 10.0, "measured", 100).mean_w == 7.0
    assert Reading(0.0, 0.0, "measured", 0).mean_w is None


def test_all_meters_are_read_over_one_window():
    slept = []
    assert read_all(2.5, slept.append).keys() == METERS.keys() - {"none"}
    assert slept == [2.5]


def test_meters_are_found_by_name():
    assert isinstance(build_meter("none"), NoMeter)
    assert build_meter("none").stop() is None
    assert set(METERS) == {"none", "hwmon", "pmic", "power-supply", "charge-counter", "termux", "rapl"}
    with pytest.raises(BadInput, match=r"'watt-o-meter'; there are none, hwmon, pmic, power-supply"):
        build_meter("watt-o-meter")


def test_peak_memory_is_read_from_proc(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("Name:\tx\nVmPeak:\t  900 kB\nVmHWM:\t  250 kB\n")
    assert peak_memory_bytes(tmp_path) == 250 * 1024


@pytest.mark.parametrize("status", [None, "Name:\tx\n"])
def test_peak_memory_falls_back_to_getrusage(tmp_path, status):
    if status is not None:
        (tmp_path / "self").mkdir()
        (tmp_path / "self" / "status").write_text(status)
    assert peak_memory_bytes(tmp_path) > 5_000_000
    assert not reset_peak_memory(tmp_path / "absent")


def test_peak_memory_of_this_process_follows_what_it_holds():
    if not reset_peak_memory():
        pytest.skip("this kernel cannot reset the peak: /proc/self/clear_refs is not writable")
    # A system short of memory takes pages away meanwhile: then it is looked at again.
    assert any(_peak_follows_a_block() for _ in range(5))


def _peak_follows_a_block():
    reset_peak_memory()
    before = peak_memory_bytes()
    # Not from malloc, which may have as much that was freed before.
    block = mmap(-1, 60_000_000)
    block[::PAGESIZE] = bytes(len(range(0, len(block), PAGESIZE)))
    during = peak_memory_bytes()
    block.close()
    after = peak_memory_bytes()
    reset_peak_memory()
    rise = before + 50_000_000
    return min(during, after) > rise > peak_memory_bytes()


def _meter_threads():
    return [thread for thread in threading.enumerate() if thread.name == "slimfleet-meter"]
