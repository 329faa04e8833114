"""Heat, over work small enough to check by head."""

from math import exp, log

import pytest

from slimfleet.simulations.heat import Case, heat_after


def test_a_cool_device_works_at_full_speed_until_it_is_hot() -> None:
    case = Case(heat_w=0.0, sustained_w=2.0, constant_s=100.0)
    hot_s = 100.0 * log(4.0 / 2.0)
    assert case.work(4.0 * hot_s, 4.0) == pytest.approx(hot_s)
    assert case.heat_w == pytest.approx(2.0)
    assert case.work(10.0, 4.0) == pytest.approx(5.0)
    assert case.heat_w == pytest.approx(2.0)


def test_many_steps_take_as_long_as_one() -> None:
    whole, steps = (Case(heat_w=0.5, sustained_w=2.0, constant_s=60.0) for _ in range(2))
    assert sum(steps.work(3.0, 4.0) for _ in range(200)) == pytest.approx(whole.work(600.0, 4.0))
    assert steps.heat_w == pytest.approx(whole.heat_w)


def test_it_recovers_at_rest() -> None:
    assert heat_after(2.0, 0.0, 100.0, 100.0) == pytest.approx(2.0 / exp(1))


def test_little_power_never_heats_it_too_far() -> None:
    assert Case(heat_w=0.0, sustained_w=2.0, constant_s=10.0).work(1e4, 2.0) == pytest.approx(5e3)
    assert Case(0.0).work(8.0, 4.0) == 2.0
