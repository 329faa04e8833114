"""FedScale's devices: quantiles that ship, and files of a user's own, which may hold anything."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from slimfleet.compression import BadInput
from slimfleet.simulations.fedscale import LIKE, read_capacities, read_traces, sessions
from slimfleet.simulations.population import build_fleet
from slimfleet.simulations.settings import FleetSettings
from slimfleet.simulations.world import VirtualWorld, node_of

HOUR_S = 3_600.0
TRACES = {
    7: {
        "duration": 1,
        "active": [0, 3 * HOUR_S],
        "inactive": [HOUR_S, 4 * HOUR_S],
        "finish_time": 10 * HOUR_S,
    },
    9: {
        "duration": 1,
        "active": [2 * HOUR_S],
        "inactive": [6 * HOUR_S],
        "finish_time": 8 * HOUR_S,
        "model": "x",
    },
}


def written(path: Path, content: Any) -> str:
    path.write_bytes(pickle.dumps(content))
    return str(path)


def fleet_of(**settings: Any) -> FleetSettings:
    return FleetSettings(devices=400, mix={"phone_mid_2019": 1.0}, **settings)


def test_quantiles_that_ship_come_out_again() -> None:
    fleet = build_fleet(fleet_of(capacity=LIKE), seed=3)
    devices = list(fleet)
    speeds = np.array([device.true_flops_per_s / device.profile.train_flops_per_s for device in devices])
    rates = np.array([device.true_uplink_bytes_per_s for device in devices]) * 8 / 1e3
    assert np.median(speeds) == pytest.approx(1.0, rel=0.2)
    assert np.quantile(1 / speeds, [0.1, 0.9]) == pytest.approx([20.9 / 40.4, 174.5 / 40.4], rel=0.2)
    assert np.quantile(rates, [0.25, 0.5, 0.75]) == pytest.approx([2482, 5388, 14311], rel=0.3)


def test_sessions_that_ship_are_online_for_their_share() -> None:
    draws = np.random.default_rng(0).random((3, 4_000))
    charger = sessions(draws)
    online = np.mean([charger.look(moment)[1].mean() for moment in np.linspace(0, 3e6, 40)])
    assert online == pytest.approx(0.17, abs=0.03)
    assert np.median(charger.on_s) == pytest.approx(342, rel=0.2)
    seconds = charger.until(5e8) - charger.until(0.0)
    assert np.median(seconds / 5e8) == pytest.approx(0.148, rel=0.1)


def test_traces_of_a_file_are_followed_over_and_over(tmp_path: Path) -> None:
    traces = read_traces(written(tmp_path / "client_behave_trace", TRACES), devices=3)
    hours = np.arange(0, 40) + 0.5
    on = np.array([traces.look(hour * HOUR_S)[1] for hour in hours])
    assert [h for h, known in zip(hours[:10], on[:10, 0], strict=True) if known] == [0.5, 3.5]
    assert (on[:, 2] == on[:, 0]).all()
    assert (on[:8, 1] == on[8:16, 1]).all()
    # Seconds on the charger are those of the sessions that have passed.
    plugged = np.array([traces.until(hour * HOUR_S) for hour in (0.0, *hours + 0.5)])
    assert np.diff(plugged, axis=0)[1:, 0] == pytest.approx(HOUR_S * on[1:, 0])
    assert traces.left_s(3.25 * HOUR_S).tolist() == [0.75 * HOUR_S, 2.75 * HOUR_S, 0.75 * HOUR_S]
    assert traces.at(1).left_s(0.0) == 0.0


def test_a_device_is_reached_in_its_sessions_and_lost_when_one_ends(tmp_path: Path) -> None:
    path = written(tmp_path / "client_behave_trace", TRACES)
    world = VirtualWorld(build_fleet(fleet_of(presence=path), seed=1))
    world.reach(0.5 * HOUR_S, more_may_come=False)
    nodes = np.array([node_of(0), node_of(1)], np.uint64)
    assert world.conditions(None, nodes, 1).reached.tolist() == [True, False]  # type: ignore[arg-type]
    assert world.moment(node_of(0), world.now_s()).stays_s == 0.5 * HOUR_S


def test_capacities_of_a_file_are_those_of_the_devices(tmp_path: Path) -> None:
    table = {
        1: {"computation": 50.0, "communication": 800.0},
        2: {"computation": np.float64(150.0), "communication": 8},
    }
    capacity = read_capacities(written(tmp_path / "client_device_capacity", table))
    assert capacity.of(0, 0.5, 0.5) == (2.0, 100_000.0)
    assert capacity.of(3, 0.1, 0.1) == (pytest.approx(100 / 150), 1_000.0)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this must not be printed",)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (Evil(), "print"),
        ({1: {"computation": Evil(), "communication": 1.0}}, "print"),
        ({1: {"computation": 1.0}}, "communication"),
        ([1, 2], "no table"),
        ({}, "no table"),
        ({1: {"computation": -1.0, "communication": 1.0}}, "not above 0"),
        ({1: {"computation": float("nan"), "communication": 1.0}}, "no number"),
        ({1: {"computation": "fast", "communication": 1.0}}, "no number"),
        ({1: {"computation": np.datetime64("2020-01-01"), "communication": 1.0}}, "kind"),
    ],
)
def test_a_file_that_is_something_else_is_refused_in_one_line(
    content: Any, word: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInput, match=word) as refused:
        read_capacities(written(tmp_path / "file", content))
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "change",
    [
        {"active": [5.0, 1.0], "inactive": [6.0, 2.0]},
        {"active": [5.0], "inactive": [4.0]},
        {"finish_time": 0},
        {"active": [-1.0]},
    ],
)
def test_a_trace_out_of_order_is_refused(change: Mapping[str, Any], tmp_path: Path) -> None:
    entry = {"active": [1.0], "inactive": [2.0], "finish_time": 9.0, **change}
    with pytest.raises(BadInput, match="sessions"):
        read_traces(written(tmp_path / "file", {1: entry}), devices=2)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        read_capacities(str(tmp_path / "none"))
