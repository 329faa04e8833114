"""Sensors on canned trees and commands that change while they are sampled, against the integral of what they showed."""

import json
import random
from collections.abc import Callable, Iterator
from functools import partial
from math import cos, pi, sin
from pathlib import Path
from typing import Any

import pytest

from slimfleet.client.meters import SampledMeter, net_of_idle
from slimfleet.client.meters.command import asking
from slimfleet.client.meters.hwmon import find_rails
from slimfleet.client.meters.pmic import find_pmic
from slimfleet.client.meters.power_supply import find_gauges
from slimfleet.client.meters.rapl import find_domains
from slimfleet.client.meters.sampled import Sensor, trapezoid
from slimfleet.client.meters.termux import find_termux_battery

SECONDS = 10.0
IDLE_W = 2.0


def power_w(now: float) -> float:
    """A device that trains in steps of 1.5 s, with a jump after 4 s."""
    return 5.0 + 2.0 * sin(2 * pi * now / 1.5) + (3.0 if now >= 4.0 else 0.0)


def energy_j(now: float) -> float:
    return 5.0 * now + 3.0 / (2 * pi) * (1 - cos(2 * pi * now / 1.5)) + 3.0 * max(now - 4.0, 0.0)


class Replay:
    """Shows a sensor's values at 10 Hz with jitter; a look falls on the moment that is shown."""

    def __init__(self, show: Callable[[float], None]) -> None:
        self.now, self.show, self.rng = 0.0, show, random.Random(5)
        self.sample: Callable[[], None] = lambda: None
        show(0.0)

    def sampler(self, sample: Callable[[], None], interval_s: float) -> Callable[[], None]:
        self.sample, self.interval_s = sample, interval_s
        return lambda: None

    def meter(self, find: Callable[[], Any], rate_hz: float = 10.0) -> SampledMeter[Any]:
        return SampledMeter(find, rate_hz, clock=lambda: self.now, sampler=self.sampler)

    def run(self, seconds: float = SECONDS) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now = min(self.now + self.interval_s * self.rng.uniform(0.5, 1.5), end)
            self.show(self.now)
            self.sample()

    def reading(self, find: Callable[[], Any], rate_hz: float = 10.0) -> Any:
        meter = self.meter(find, rate_hz)
        meter.start()
        self.run()
        return meter.stop()


def write(folder: Path, **files: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        # A file that is cut short and written again would have to reach the disk.
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_text(f"{value}\n")


def ina3221(root: Path, watts: dict[str, float], folder: str = "hwmon3") -> None:
    """Rails at 5 V. Channel 4 is the voltage over the first shunt, and the current of all, which are no rails."""
    write(root / folder, name="ina3221", in4_input=12, curr4_input=99_000)
    for channel, (label, power) in enumerate(watts.items(), start=1):
        values = {
            f"in{channel}_label": label,
            f"in{channel}_input": 5_000,
            f"curr{channel}_input": round(power / 5 * 1e3),
        }
        write(root / folder, **values)


def jetson(root: Path, now: float) -> None:
    ina3221(root, {"VDD_IN": power_w(now), "VDD_CPU_GPU_CV": 0.6 * power_w(now), "VDD_SOC": 1.0})


def jetson_without_input(root: Path, now: float) -> None:
    ina3221(root, {"VDD_GPU_SOC": 0.5 * power_w(now), "VDD_CPU_CV": 0.2 * power_w(now), "NC": 70.0})
    ina3221(root, {"VIN_SYS_5V0": 0.3 * power_w(now)}, "hwmon4")
    write(root / "hwmon0", name="thermal-fan", in1_input=5_000, curr1_input=9_000)


def ina219(root: Path, now: float) -> None:
    """The bus is in1, its power power1; in0 is the shunt."""
    write(
        root / "hwmon2", name="ina219", power1_input=round(power_w(now) * 1e6), in0_input=10, in1_input=5_000
    )


SIGNS = {"negative while it gives": -1, "positive while it gives": 1, "without a sign": 1}


def gauge(sign: int, root: Path, now: float) -> None:
    microampere = sign * round(power_w(now) / 4 * 1e6)
    write(root / "BAT0", type="Battery", status="Discharging", voltage_now=4_000_000, current_now=microampere)


def packages(root: Path, now: float) -> None:
    """Two packages whose counters wrap every 50 J, DRAM beside the first; the others are in these already."""
    domains = {
        "intel-rapl:0": ("package-0", 0.5, 37.0),
        "intel-rapl:0:0": ("core", 0.4, 0.0),
        "intel-rapl:0:1": ("dram", 0.1, 49.0),
        "intel-rapl:1": ("package-1", 0.4, 0.0),
        "intel-rapl:2": ("psys", 3.0, 0.0),
        "intel-rapl-mmio:0": ("package-0", 0.5, 0.0),
    }
    for folder, (name, share, offset) in domains.items():
        count = (offset + share * energy_j(now)) % 50.0
        write(root / folder, name=name, max_energy_range_uj=50_000_000, energy_uj=int(count * 1e6))


TREES = {
    "a jetson with an input rail": (jetson, find_rails),
    "a jetson whose rails are summed": (jetson_without_input, find_rails),
    "an INA219": (ina219, find_rails),
    "rapl": (packages, find_domains),
    **{f"a gauge {name}": (partial(gauge, sign), find_gauges) for name, sign in SIGNS.items()},
}


@pytest.mark.parametrize("kind", TREES)
def test_a_reading_is_within_5_percent_of_what_was_drawn(kind: str, tmp_path: Path) -> None:
    show, find = TREES[kind]
    reading = Replay(partial(show, tmp_path)).reading(partial(find, tmp_path))
    assert reading.energy_j == pytest.approx(energy_j(SECONDS), rel=0.05)
    assert abs(reading.energy_j - energy_j(SECONDS)) <= reading.uncertainty_j
    assert (reading.source, reading.duration_s) == ("measured", SECONDS)
    assert net_of_idle(reading, IDLE_W).energy_j == pytest.approx(energy_j(SECONDS) - 20.0, rel=0.05)


def test_what_is_read_is_named(tmp_path: Path) -> None:
    jetson(tmp_path / "a", 0.0)
    jetson_without_input(tmp_path / "b", 0.0)
    packages(tmp_path / "c", 0.0)
    assert find_rails(tmp_path / "a").name == "hwmon VDD_IN"
    assert find_rails(tmp_path / "b").name == "hwmon VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert find_domains(tmp_path / "c").name == "rapl package-0 + 0/dram + package-1"


@pytest.mark.parametrize("find", [find_rails, find_domains, find_gauges])
def test_no_tree_no_sensor(find: Callable[[Path], Any], tmp_path: Path) -> None:
    assert find(tmp_path) is None
    assert find(tmp_path / "absent") is None
    write(tmp_path / "hwmon0", name="coretemp", temp1_input=40_000)
    write(tmp_path / "intel-rapl:0", name="package-0")
    assert find(tmp_path) is None


def test_a_rail_without_a_value_for_a_moment_is_bridged(tmp_path: Path) -> None:
    def show(now: float) -> None:
        jetson_without_input(tmp_path, now)
        if int(now * 10) % 17 == 5:
            (tmp_path / "hwmon4" / "curr1_input").unlink()

    reading = Replay(show).reading(partial(find_rails, tmp_path))
    assert reading.energy_j == pytest.approx(energy_j(SECONDS), rel=0.05)
    assert 75 < reading.samples < 100


@pytest.mark.parametrize(("begins", "ends"), [(6.0, 99.0), (6.0, 7.5)])
def test_a_rail_that_vanishes_leaves_no_reading(tmp_path: Path, begins: float, ends: float) -> None:
    """The sum of the others would be too low; and over more than a second nobody knows what it drew."""

    def show(now: float) -> None:
        jetson_without_input(tmp_path, now)
        if begins <= now < ends:
            (tmp_path / "hwmon4" / "in1_input").unlink()

    assert Replay(show).reading(partial(find_rails, tmp_path)) is None


def test_a_counter_that_was_reset_leaves_no_reading(tmp_path: Path) -> None:
    def show(now: float) -> None:
        joules = 5_000.0 + energy_j(now) if now < 5 else energy_j(now)
        write(
            tmp_path / "intel-rapl:0",
            name="package-0",
            max_energy_range_uj=262_143_328_850,
            energy_uj=int(joules * 1e6),
        )

    assert Replay(show).reading(partial(find_domains, tmp_path)) is None


def test_a_current_that_turns_before_the_status_does_leaves_no_reading(tmp_path: Path) -> None:
    def show(now: float) -> None:
        gauge(-1 if now < 5 else 1, tmp_path, now)

    assert Replay(show).reading(partial(find_gauges, tmp_path)) is None


def test_a_battery_that_is_taken_out_leaves_no_reading(tmp_path: Path) -> None:
    def show(now: float) -> None:
        gauge(1, tmp_path, now)
        write(tmp_path / "BAT1", type="Battery", status="Discharging", power_now=10**6, present=int(now < 5))

    assert find_gauges(tmp_path) is None
    assert Replay(show).reading(partial(find_gauges, tmp_path)) is None


def pmic(now: float, indent: str = "") -> str:
    """Three rails and two voltages without a current; the rails have half, a third and a sixth of the power."""
    lines = [f"{indent}EXT5V_V volt(24)=5.08888000V", f"{indent}BATT_V volt(25)=0.00000000V"]
    for place, (rail, volts, share) in enumerate(
        [("VDD_CORE", 0.72, 1 / 2), ("3V7_WL_SW", 3.7, 1 / 3), ("DDR_VDD2", 1.1, 1 / 6)]
    ):
        lines.append(f"{indent}{rail}_A current({place})={share * power_w(now) / volts:.8f}A")
        lines.append(f"{indent}{rail}_V volt({place + 8})={volts:.8f}V")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("indent", ["", "     "])
def test_the_rails_of_a_pi_5_sum_to_what_was_drawn(indent: str) -> None:
    replay = Replay(lambda now: None)
    reading = replay.reading(partial(find_pmic, lambda: pmic(replay.now, indent)))
    assert reading.energy_j == pytest.approx(energy_j(SECONDS), rel=0.05)
    assert reading.sensor == "pmic, 3 rails"


def test_a_pi_5_without_a_rail_or_an_answer_has_no_value() -> None:
    answers: list[str | None] = [
        pmic(0.0),
        pmic(0.0),
        pmic(0.0).replace("DDR_VDD2_A", "DDR_VDD2_X"),
        None,
        "denied\n",
    ]
    sensor = find_pmic(lambda: answers.pop(0))
    assert sensor is not None
    assert sensor.look() == pytest.approx(power_w(0.0), rel=1e-6)
    assert [sensor.look() for _ in range(3)] == [None, None, None]
    assert find_pmic(lambda: None) is None
    assert find_pmic(lambda: "error=1 error_msg='Command not registered'") is None


def termux(now: float, ampere: float = 1e6, volt: float = 1e3, sign: int = -1, **changes: Any) -> str:
    """A phone at 4 V."""
    values = {
        "percentage": 87,
        "plugged": "UNPLUGGED",
        "status": "DISCHARGING",
        "current": round(sign * power_w(now) / 4 * ampere),
        "voltage": 4 * volt if volt == 1 else round(4 * volt),
    }
    return json.dumps(values | changes)


@pytest.mark.parametrize(("ampere", "unit"), [(1e6, "µA"), (1e3, "mA")])
@pytest.mark.parametrize("volt", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_phones_units_are_told_from_their_size(ampere: float, unit: str, volt: float, sign: int) -> None:
    replay = Replay(lambda now: None)
    find = partial(find_termux_battery, lambda: termux(replay.now, ampere, volt, sign))
    reading = replay.reading(find, rate_hz=4.0)
    assert reading.energy_j == pytest.approx(energy_j(SECONDS), rel=0.05)
    assert reading.sensor == f"termux battery, current taken for {unit}"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        "",
        "[]",
        "{",
        termux(0.0, status="CHARGING"),
        termux(0.0, status="FULL"),
        termux(0.0, voltage=None),
        termux(0.0, current="352"),
        termux(0.0, current=True),
        termux(0.0, current=0),
    ],
)
def test_a_phone_that_does_not_give_its_power_has_no_sensor(answer: str | None) -> None:
    assert find_termux_battery(lambda: answer) is None


def test_a_phone_that_is_plugged_in_has_no_reading() -> None:
    replay = Replay(lambda now: None)
    status = lambda: "DISCHARGING" if replay.now < 5 else "CHARGING"  # noqa: E731
    assert replay.reading(partial(find_termux_battery, lambda: termux(replay.now, status=status()))) is None


def test_commands_that_are_absent_fail_or_hang_have_no_answer() -> None:
    assert asking(("slimfleet-no-such-command",))() is None
    assert asking(("sh", "-c", "echo said; exit 3"))() is None
    assert asking(("sleep", "20"), longest_s=0.05)() is None
    assert asking(("sh", "-c", "echo said"))() == "said\n"


def test_what_was_drawn_so_far_is_known_while_the_window_is_open(tmp_path: Path) -> None:
    replay = Replay(partial(ina219, tmp_path))
    meter = replay.meter(partial(find_rails, tmp_path))
    assert meter.so_far() is None
    meter.start()
    assert meter.so_far() is None  # one sample is no power
    for _ in range(5):
        replay.run(SECONDS / 5)
        assert meter.so_far() == pytest.approx(energy_j(replay.now), rel=0.05)
    replay.now += 0.07  # between two samples
    assert meter.so_far() == pytest.approx(energy_j(replay.now), rel=0.05)
    assert meter.stop() is not None
    assert meter.so_far() is None


def test_the_uncertainty_grows_with_changes_between_samples() -> None:
    def reading(values: Iterator[float]) -> Any:
        replay = Replay(lambda now: None)
        return replay.reading(lambda: Sensor("a sensor", partial(next, values), trapezoid, 0.01))

    steady = reading(iter([4.0] * 400))
    rng = random.Random(1)
    jumpy = reading(iter([rng.choice([1.0, 7.0]) for _ in range(400)]))
    assert steady.error == pytest.approx(0.01)
    assert 0.015 < jumpy.error < 0.1
