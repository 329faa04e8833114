import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfleet.simulations.battery import DAY_S, FULL_CHARGE_S, PLUGGED_S, Charger, VirtualBattery

NIGHT = VirtualBattery(
    capacity_j=7200.0, charger=Charger(79_200.0), charge_j=3600.0
)  # on the charger from 22:00 to 6:00


def test_unplugged_it_keeps_its_charge_and_plugged_it_fills() -> None:
    morning = VirtualBattery(capacity_j=7200.0, charger=Charger(79_200.0), charge_j=3600.0, at_s=25_000.0)
    assert morning.at(70_000.0).charge_j == 3600.0
    assert not morning.charging
    half_an_hour = morning.at(79_200.0 + 1800.0)
    assert half_an_hour.charging
    assert half_an_hour.charge_j == pytest.approx(3600.0 + 7200.0 * 1800 / FULL_CHARGE_S)
    assert morning.at(DAY_S).level == 1.0


def test_rounds_drain_it_to_nothing_and_no_further() -> None:
    assert NIGHT.drained(600.0).charge_j == 3000.0
    assert NIGHT.drained(1e9).charge_j == 0.0


@given(
    st.floats(0, DAY_S - 1),
    st.floats(0, 1),
    st.lists(st.floats(0, 3 * DAY_S), min_size=1, max_size=6).map(sorted),
)
def test_it_does_not_matter_how_often_one_looks(phase: float, level: float, moments: list[float]) -> None:
    battery = VirtualBattery(capacity_j=50_000.0, charger=Charger(phase), charge_j=level * 50_000.0)
    looked = battery
    for moment in moments:
        looked = looked.at(moment)
    assert looked.charge_j == pytest.approx(battery.at(moments[-1]).charge_j, abs=1e-6)
    assert looked.charging == ((moments[-1] - phase) % DAY_S < PLUGGED_S)
