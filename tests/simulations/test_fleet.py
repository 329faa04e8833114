from collections import Counter
from dataclasses import fields, replace
from math import exp

import numpy as np
import pytest

from slimfleet.client.policy import Policy
from slimfleet.compression.errors import BadInput
from slimfleet.compression.profiles import load_profiles
from slimfleet.simulations.faults import assign_faults
from slimfleet.simulations.fleet import BEGIN
from slimfleet.simulations.population import build_fleet
from slimfleet.simulations.settings import DEFAULT_MIX, FleetSettings

SETTINGS = FleetSettings(devices=300)
FLEET = build_fleet(SETTINGS, seed=1)
ROWS = {row.name: row for row in load_profiles()}


def test_units_of_a_board_by_hand() -> None:
    pi = ROWS["pi_zero_2w"].profile
    assert pi.ram_bytes == 536_870_912
    assert pi.train_flops_per_s == 2.4e9
    assert pi.train_w == pytest.approx(2.1 - 0.6)  # measured at the plug, idle included
    assert pi.uplink_bytes_per_s == pi.downlink_bytes_per_s == 2_500_000
    assert pi.radio_j_per_byte_up == 5e-7
    assert pi.battery_j is None


def test_units_of_a_phone_by_hand() -> None:
    lte = ROWS["phone_lte_only"].profile
    assert lte.device_class == "phone-mid"
    assert lte.train_w == 4.5  # already above idle
    assert (lte.uplink_bytes_per_s, lte.downlink_bytes_per_s) == (750_000, 1_625_000)
    assert lte.radio_j_per_byte_up == pytest.approx(5.2e-6)
    assert lte.radio_j_per_byte_down == pytest.approx(1.2e-6, rel=0.01)
    assert lte.radio_j_per_burst == 12
    assert lte.battery_j == pytest.approx(55_440)


def test_every_row_has_provenance_and_a_range_around_its_speed() -> None:
    assert len(ROWS) == 13
    for row in ROWS.values():
        assert row.train_gflops_lo < row.train_gflops < row.train_gflops_hi
        assert row.train_w > row.idle_w
        assert all((row.compute_source, row.power_source, row.network_source, row.battery_source))


def test_same_seed_same_fleet_other_seed_another() -> None:
    assert list(build_fleet(SETTINGS, seed=1)) == list(FLEET)
    assert list(build_fleet(SETTINGS, seed=2)) != list(FLEET)
    assert [d.number for d in FLEET] == list(range(300))


CHANGED: dict[str, object] = {
    "devices": 299,
    "mix": {"pi_5": 1.0},
    "availability": 0.5,
    "dropout": 0.5,
    "speed_noise": 0.2,
    "power_noise": 0.2,
    "network_spread": 0.1,
    "network_noise": 0.1,
    "start_charge": (0.1, 0.2),
    "capacity": "fedscale-like",
    "presence": "fedscale-like",
    "heat_s": 60.0,
    "network_evening": 0.5,
    "faults": {"late": 0.5},
    "metered": {"phone-mid": 0.5},
    "temperature_c": {"phone-mid": (20.0, 45.0)},
    "free_memory": {"phone-mid": (0.1, 0.5)},
    "policy": Policy(battery_floor=0.5),
}


IN_THE_WORLD = {"dropout_phase"}
"""What only the account of a lost device shows: test_world.py."""


@pytest.mark.parametrize(
    "key", [field.name for field in fields(FleetSettings) if field.name not in IN_THE_WORLD]
)
def test_every_setting_reaches_the_fleet(key: str) -> None:
    """Two of them once reached nothing."""
    settings = replace(SETTINGS, **{key: CHANGED[key]})  # type: ignore[arg-type]
    assert behaviour(settings) != behaviour(SETTINGS)


def behaviour(settings: FleetSettings) -> tuple[object, ...]:
    """All that the rounds see of a fleet, but not its settings."""
    fleet = build_fleet(settings, seed=1)
    faults = assign_faults(settings.faults, settings.devices, seed=1)
    rounds = [
        [
            (
                now := device.conditions(number),
                device.condition(number, BEGIN),
                device.truth(now, BEGIN),
                repr(device.case(BEGIN)),
            )
            for number in range(3)
        ]
        for device in fleet
    ]
    return (repr(list(fleet)), rounds, [device.policy for device in fleet], faults)


def test_the_truth_lies_within_the_table_and_the_noise_within_its_bounds() -> None:
    for device in FLEET:
        row = ROWS[device.profile.name]
        assert row.train_gflops_lo * 1e9 <= device.true_flops_per_s <= row.train_gflops_hi * 1e9
        bound = exp(2 * SETTINGS.network_spread) * 1.000001
        assert 1 / bound <= device.true_uplink_bytes_per_s / row.profile.uplink_bytes_per_s <= bound
        for number in range(5):
            now = device.conditions(number)
            assert 1 / exp(0.2001) <= now.flops_per_s / device.true_flops_per_s <= exp(0.2001)
            assert (
                1 / exp(0.5001) <= now.downlink_bytes_per_s / device.true_downlink_bytes_per_s <= exp(0.5001)
            )


def test_the_truth_spreads_around_the_nominal_speed() -> None:
    phones = [d for d in FLEET if d.profile.name == "phone_mid_2019"]
    ratios = np.array([d.true_flops_per_s / d.profile.train_flops_per_s for d in phones])
    assert 0.8 < np.median(ratios) < 1.25
    assert ratios.std() > 0.2


def test_conditions_depend_on_seed_device_and_round_only() -> None:
    device = FLEET[7]
    later = device.conditions(40)
    device.conditions(3)
    assert device.conditions(40) == later == build_fleet(SETTINGS, seed=1)[7].conditions(40)
    assert device.conditions(41) != later
    assert len({d.conditions(0).flops_per_s / d.true_flops_per_s for d in FLEET}) == len(FLEET)


def test_a_fleet_without_noise_is_always_the_same() -> None:
    calm = FleetSettings(devices=5, speed_noise=0, network_noise=0, dropout=0, availability=1)
    for device in build_fleet(calm, seed=0):
        assert device.conditions(0) == device.conditions(9)
        assert device.conditions(0).available
        assert device.conditions(0).drops_out_at is None


def test_availability_and_dropout_come_at_their_rates() -> None:
    settings = replace(SETTINGS, availability=0.7, dropout=0.1)
    met = [d.conditions(r) for d in build_fleet(settings, seed=3) for r in range(20)]
    assert np.mean([c.available for c in met]) == pytest.approx(0.7, abs=0.03)
    moments = [c.drops_out_at for c in met if c.drops_out_at is not None]
    assert len(moments) / len(met) == pytest.approx(0.1, abs=0.02)
    assert 0 <= min(moments) < 0.1 < 0.9 < max(moments) < 1


def test_the_mix_is_kept() -> None:
    counted = Counter(d.profile.name for d in FLEET)
    assert counted == {name: 3 * share for name, share in DEFAULT_MIX.items()}
    uneven = build_fleet(FleetSettings(devices=4, mix={"pi_5": 2, "pi_4b": 1}), seed=0)
    assert Counter(d.profile.name for d in uneven) == {"pi_5": 3, "pi_4b": 1}


def test_applied_conditions_are_what_is_spent() -> None:
    device = FLEET[0]
    now = device.conditions(2)
    true = now.applied(device.profile)
    assert (true.train_flops_per_s, true.train_w) == (now.flops_per_s, device.true_train_w)
    assert true.radio_j_per_burst == device.profile.radio_j_per_burst


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"devices": 0}, "devices"),
        ({"mix": {"pi_9": 1.0}}, "pi_9"),
        ({"mix": {}}, "mix"),
        ({"mix": {"pi_5": -1.0}}, "mix.pi_5"),
        ({"availability": 1.5}, "availability"),
        ({"speed_noise": float("nan")}, "speed_noise"),
        ({"start_charge": (0.9, 0.1)}, "start_charge"),
    ],
)
def test_an_impossible_fleet_is_refused_by_name(change: dict[str, object], word: str) -> None:
    with pytest.raises(BadInput, match=word):
        build_fleet(replace(SETTINGS, **change), seed=0)  # type: ignore[arg-type]
