"""The condition of a machine, from files that the test writes as the kernel would."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from slimfleet.client.condition import LOOK_S, looking, read_condition
from slimfleet.compression import Condition
from slimfleet.compression.types import UNKNOWN

Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write files below `sys/class/FOLDER`, or below `proc`; a value of None takes the file away."""

    def make(folder: str, **files: Any) -> None:
        place = tmp_path / ("proc" if folder == "proc" else f"sys/class/{folder}")
        place.mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (place / name).unlink() if value is None else (place / name).write_text(f"{value}\n")

    return make


BATTERY, USB = "power_supply/battery", "power_supply/usb"


def test_a_machine_that_shows_nothing_is_in_an_unknown_condition(tmp_path: Path) -> None:
    assert read_condition(tmp_path) == UNKNOWN
    assert read_condition(tmp_path, metered=True) == Condition(metered=True)


def test_a_phone_on_battery(tmp_path: Path, write: Write) -> None:
    write(BATTERY, type="Battery", capacity=74, status="Discharging", temp=312)
    write(USB, type="USB", online=0)
    write("thermal/thermal_zone0", temp=38_500)
    write("thermal/thermal_zone1", temp=30_000)
    write("proc", meminfo="MemTotal: 4000000 kB\nMemFree: 1 kB\nMemAvailable:    1834000 kB")
    found = read_condition(tmp_path, metered=False)
    assert found == Condition(
        battery=0.74, charging=False, metered=False, temperature_c=38.5, free_memory_bytes=1_834_000 * 1024
    )


def test_memory_that_this_process_holds_is_free_for_its_round(tmp_path: Path, write: Write) -> None:
    write("proc", meminfo="MemAvailable: 100 kB")
    (tmp_path / "proc" / "self").mkdir()
    (tmp_path / "proc" / "self" / "status").write_text("Name: x\nVmRSS: 90 kB\nRssAnon:\t 60 kB\n")
    assert read_condition(tmp_path).free_memory_bytes == 160 * 1024


def test_this_machine_has_memory() -> None:
    free = read_condition().free_memory_bytes
    assert free is None or free > 10**6


@pytest.mark.parametrize(
    ("status", "online", "charging"),
    [
        ("Charging", 1, True),
        ("Full", 1, True),
        ("Not charging", 1, True),  # held at a threshold, on external power
        ("Unknown", 1, True),
        ("Discharging", 1, False),  # the charger is too weak for the load
        ("Discharging", 0, False),
        ("Not charging", 0, False),
        ("Charging", None, True),
        ("Unknown", None, None),
        (None, None, None),
    ],
)
def test_charging_is_external_power_that_lasts(
    tmp_path: Path, write: Write, status: str | None, online: int | None, charging: bool | None
) -> None:
    write(BATTERY, type="Battery", **({} if status is None else {"status": status}))
    write(USB, type="USB", **({} if online is None else {"online": online}))
    assert read_condition(tmp_path).charging is charging


def test_a_machine_on_mains_without_a_battery_charges_and_has_no_charge(tmp_path: Path, write: Write) -> None:
    write("power_supply/AC", type="Mains", online=1)
    assert read_condition(tmp_path) == Condition(charging=True)


@pytest.mark.parametrize(
    ("files", "level"),
    [
        ({"capacity": 0}, 0.0),
        ({"capacity": 100}, 1.0),
        ({"capacity": 101}, None),
        ({"capacity": -1}, None),
        ({"capacity": "full"}, None),
        ({"energy_now": 3_000_000, "energy_full": 4_000_000}, 0.75),
        ({"charge_now": 1_000_000, "charge_full": 4_000_000}, 0.25),
        ({"charge_now": 1_000_000, "charge_full": 0}, None),
        ({"charge_now": 1_000_000}, None),
        ({}, None),
    ],
)
def test_the_charge_is_the_drivers_or_a_quotient(
    tmp_path: Path, write: Write, files: dict[str, Any], level: float | None
) -> None:
    write(BATTERY, type="Battery", **files)
    assert read_condition(tmp_path).battery == level


def test_the_lowest_of_several_batteries_counts_and_one_that_is_unknown_makes_all_unknown(
    tmp_path: Path, write: Write
) -> None:
    write("power_supply/BAT0", type="Battery", capacity=80)
    write("power_supply/BAT1", type="Battery", capacity=20)
    write("power_supply/mouse", type="Battery", capacity=1, scope="Device")
    write("power_supply/BAT2", type="Battery", present=0)
    assert read_condition(tmp_path).battery == 0.2
    write("power_supply/BAT1", capacity=None)
    assert read_condition(tmp_path).battery is None


def test_temperatures_of_broken_sensors_do_not_count(tmp_path: Path, write: Write) -> None:
    write("thermal/thermal_zone0", temp=-274_000)
    write("thermal/thermal_zone1", temp="")
    assert read_condition(tmp_path).temperature_c is None
    write("thermal/thermal_zone2", temp=41_000)
    write(BATTERY, type="Battery", temp=450)
    assert read_condition(tmp_path).temperature_c == 45.0


def test_sensors_are_looked_at_once_in_half_a_second() -> None:
    now, looks = [0.0], []

    def look() -> Condition:
        looks.append(now[0])
        return Condition(temperature_c=now[0])

    condition = looking(look, lambda: now[0])
    for step in range(20):
        now[0] = 0.125 * step
        assert 0 <= now[0] - (condition().temperature_c or 0.0) < LOOK_S
    assert looks == [0.0, 0.5, 1.0, 1.5, 2.0]
