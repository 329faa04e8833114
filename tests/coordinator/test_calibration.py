import json
from copy import deepcopy
from dataclasses import replace
from math import nan
from statistics import median

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from slimfleet.compression.types import Cost
from slimfleet.coordinator.learning.calibration import Calibration, Factor

PREDICTED = Cost(
    energy_j=10.0, radio_j=1.0, time_s=5.0, memory_bytes=100_000_000, uplink_bytes=4000, downlink_bytes=40_000
)


def spent(time: float = 1.0, energy: float = 1.0, memory: float = 1.0) -> Cost:
    return replace(
        PREDICTED, time_s=5.0 * time, energy_j=10.0 * energy, memory_bytes=round(100_000_000 * memory)
    )


def test_a_device_never_heard_of_is_nominal_with_room_for_error() -> None:
    correction = Calibration().correction("a", "phone")
    assert correction.time.value == correction.energy.value == 1.0
    assert correction.time.spread > 0.1
    assert correction.memory == Factor(1.0, 0.0)


def test_converges_to_the_true_factors_within_a_few_reports() -> None:
    rng = np.random.default_rng(0)
    calibration = Calibration()
    for _ in range(5):
        noise = np.exp(rng.normal(0, 0.1, 2))
        assert calibration.update("a", "phone", PREDICTED, spent(2.5 * noise[0], 0.6 * noise[1], 1.05))
        calibration.close_round()
    correction = calibration.correction("a", "phone")
    assert correction.time.value == pytest.approx(2.5, rel=0.1)
    assert correction.energy.value == pytest.approx(0.6, rel=0.1)
    assert correction.memory.value == pytest.approx(1.05, rel=0.01)


def test_the_spread_comes_to_be_that_of_the_noise() -> None:
    rng = np.random.default_rng(1)
    spreads = {}
    for sigma in (0.05, 0.3):
        calibration = Calibration()
        for factor in np.exp(rng.normal(0, sigma, 200)):
            calibration.update("a", "phone", PREDICTED, spent(factor))
        spreads[sigma] = calibration.correction("a", "phone").time.spread
    assert spreads[0.05] == pytest.approx(0.05, rel=0.5)
    assert spreads[0.3] == pytest.approx(0.3, rel=0.5)


def test_follows_a_device_that_slows_down() -> None:
    calibration = Calibration()
    for _ in range(30):
        calibration.update("a", "phone", PREDICTED, spent(1.0))
    for _ in range(60):
        calibration.update("a", "phone", PREDICTED, spent(2.0))
    assert 1.7 < calibration.correction("a", "phone").time.value <= 2.0


def class_of(*factors: float) -> Calibration:
    calibration = Calibration()
    for _ in range(3):
        for number, factor in enumerate(factors):
            calibration.update(str(number), "phone", PREDICTED, spent(factor))
        calibration.close_round()
    return calibration


def test_a_new_device_starts_from_its_class() -> None:
    calibration = class_of(1.8, 1.9, 2.0, 2.1, 2.2)
    assert calibration.correction("new", "phone").time.value == pytest.approx(2.0, rel=0.05)
    assert calibration.correction("new", "board").time.value == 1.0


def test_one_report_is_not_believed_whole() -> None:
    calibration = Calibration()
    calibration.update("a", "phone", PREDICTED, spent(2.0))
    assert calibration.correction("a", "phone").time.value == pytest.approx(2.0**0.8)


def test_a_class_stays_open_to_honest_spread() -> None:
    calibration = class_of(1.0, 1.0, 1.0, 1.0, 1.0)
    assert calibration.update("slow", "phone", PREDICTED, spent(3.0))


def test_a_report_far_from_its_class_is_rejected_and_changes_nothing() -> None:
    calibration = class_of(1.8, 1.9, 2.0, 2.1, 2.2)
    before = deepcopy(calibration)
    assert not calibration.update("liar", "phone", PREDICTED, spent(0.05))
    assert calibration.rejected == 1
    assert calibration == replace(before, rejected=1)
    assert calibration.update("other class", "board", PREDICTED, spent(0.05))


@pytest.mark.parametrize("time", [0.0, -1.0, nan, float("inf"), 1e9])
def test_what_is_no_measurement_is_rejected(time: float) -> None:
    calibration = Calibration()
    assert not calibration.update("a", "phone", PREDICTED, spent(time))
    assert calibration.correction("a", "phone") == Calibration().correction("a", "phone")


reports = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["phone", "board"]), st.floats(0.01, 100)),
    max_size=8,
    unique_by=lambda report: report[0],
)


@given(st.lists(reports, max_size=4), st.randoms())
def test_the_order_within_a_round_does_not_matter(rounds, random) -> None:  # type: ignore[no-untyped-def]
    one, other = Calibration(), Calibration()
    for of_round in rounds:
        shuffled = list(of_round)
        random.shuffle(shuffled)
        for calibration, order in ((one, of_round), (other, shuffled)):
            for device, device_class, factor in order:
                calibration.update(device, device_class, PREDICTED, spent(factor, factor**0.5))
            calibration.close_round()
    assert one == other


@given(reports)
def test_a_checkpoint_keeps_every_bit(of_round) -> None:  # type: ignore[no-untyped-def]
    calibration = Calibration()
    for device, device_class, factor in of_round:
        calibration.update(device, device_class, PREDICTED, spent(factor))
    calibration.close_round()
    kind = TypeAdapter(Calibration)
    restored = kind.validate_python(json.loads(json.dumps(kind.dump_python(calibration))))
    assert restored == calibration


def test_priors_are_the_medians_of_all_devices_known() -> None:
    """Kept as arrays that grow; those of a restored calibration are made from its devices."""
    calibration = Calibration()
    factors = {str(number): 0.5 + number / 30 for number in range(41)}
    for device, factor in factors.items():
        calibration.update(device, "phone", PREDICTED, spent(factor))
        if int(device) % 10 == 0:
            calibration.close_round()
    calibration.close_round()
    logs = [calibration.devices[device].tracks["time"].estimate for device in factors]
    centre = median(logs)
    prior = calibration.priors["phone"]["time"]
    assert (prior.centre, prior.devices) == (centre, 41)
    assert prior.deviation == 1.4826 * median(abs(each - centre) for each in logs)
    kind = TypeAdapter(Calibration)
    restored = kind.validate_python(kind.dump_python(calibration))
    restored.close_round()
    assert restored == calibration
