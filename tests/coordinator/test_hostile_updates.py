"""Devices that send what passes every check, and aggregation that holds against them."""

from __future__ import annotations

import numpy as np
import pytest

from slimfleet.compression.codec import decode
from slimfleet.compression.wire import unseal
from slimfleet.coordinator.receiving.checks import norm
from slimfleet.simulations.faults import FAULTS, FaultyDevice
from slimfleet.simulations.in_process import InProcess

HOSTILE = 12


def spoil(federation, fault: str) -> None:
    """From now on one device of four has a fault."""
    device = federation.devices[HOSTILE]
    devices = {**federation.devices, HOSTILE: FaultyDevice(device, FAULTS[fault])}
    federation.harness = InProcess(federation.coordinator, devices)


@pytest.fixture
def hostile(federate):
    def make(fault: str, **changes):
        federation = federate(**changes)
        spoil(federation, fault)
        return federation

    return make


def update_of(federation) -> tuple[dict[str, np.ndarray], float]:
    """What the hostile device sends in its first round, and the norm of its weights."""
    [dispatch] = [each for each in federation.plan().dispatches if each.node == HOSTILE]
    payload, text = federation.answer(dispatch)
    schema = dispatch.index_map.schema
    update = decode(unseal(payload), schema).tensors
    assert federation.receive(dispatch, payload, text).verdict == "accepted"
    return update, norm(update, schema.weights)


@pytest.mark.parametrize(("fault", "factor"), [("scaled_back", -10.0), ("scaled_up", 100.0)])
def test_an_update_is_scaled_and_encoded_again(fault, factor, federate, hostile):
    plan = {"planner": {"nmse": [0.02]}, "server": {"max_update_norm": 1e9}}
    honest, _ = update_of(federate(state="twin", **plan))
    sent, _ = update_of(hostile(fault, **plan))
    for name in ("0.weight", "5.weight"):
        assert np.corrcoef(sent[name].ravel(), factor * honest[name].ravel())[0, 1] > 0.95
    assert (sent["1.running_var"] == honest["1.running_var"]).all()


def test_noise_is_fifteen_times_as_long_and_points_nowhere(federate, hostile):
    plan = {"planner": {"nmse": [0.02]}}
    honest, length = update_of(federate(state="twin", **plan))
    sent, noise = update_of(hostile("noise", **plan))
    assert noise == pytest.approx(15 * length, rel=0.1)
    assert abs(np.corrcoef(sent["0.weight"].ravel(), honest["0.weight"].ravel())[0, 1]) < 0.4


def accuracy_after(federation, rounds: int) -> float:
    return federation.run(rounds)[-1].accuracy


UNBOUNDED = {"fleet_bounds": False, "max_update_norm": 1e9}


@pytest.mark.parametrize("fault", ["scaled_back", "scaled_up"])
def test_one_of_four_ruins_a_plain_mean_and_neither_a_trimmed_mean_nor_a_median(fault, federate, hostile):
    learn = {"client": {"learning_rate": 0.1}, "planner": {"nmse": [0.02], "local_steps": [4]}}
    honest = accuracy_after(federate(state="honest", **learn), 4)
    plain = accuracy_after(hostile(fault, state="plain", server=UNBOUNDED, **learn), 4)
    trimmed, median = (
        accuracy_after(hostile(fault, state=kind, server={**UNBOUNDED, **how}, **learn), 4)
        for kind, how in (
            ("trimmed", {"aggregation": "trimmed", "trim": 0.25}),
            ("median", {"aggregation": "median"}),
        )
    )
    assert honest > 0.9
    assert plain < 0.7
    assert min(trimmed, median) > honest - 0.05


def test_clipping_to_a_quantile_bounds_what_one_device_moves(federate):
    learn = {"planner": {"nmse": [0.02], "local_steps": [4]}}
    moved = []
    for quantile in (1.0, 0.5):
        server = {**UNBOUNDED, "clip_quantile": quantile}
        federation = federate(state=f"clip-{quantile}", server=server, **learn)
        federation.run(1)  # in the first round no norm is known
        typical = np.median([record.norms.weights for record in federation.state.registry])
        spoil(federation, "scaled_up")
        before = federation.state.server.model()
        federation.run(1)
        after = federation.state.server.model()
        moved.append(norm({n: after[n] - before[n] for n in after}, federation.state.schema.weights))
    assert moved[1] <= typical < moved[0] / 3
