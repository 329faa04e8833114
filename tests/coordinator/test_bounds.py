"""What one device may claim and move follows what the fleet does."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from slimfleet.compression import Examples, ModelSchema
from slimfleet.compression.codec import CodecSpec, decode, encode
from slimfleet.compression.wire import Envelope, unseal
from slimfleet.coordinator.learning.aggregate import shortened, tied, tied_tensors
from slimfleet.coordinator.planning.selection import credible_joules
from slimfleet.coordinator.receiving.bounds import fleet_bounds
from slimfleet.coordinator.receiving.checks import LARGEST_EXAMPLES, Norms, is_variance, norm
from slimfleet.coordinator.settings import ServerSettings
from slimfleet.simulations.in_process import InProcess
from slimfleet.simulations.scenario import load_scenario

TYPICAL = Norms(weights=2.0, statistics=0.5)


def bounds(claimed=(10,) * 200, recent=(TYPICAL,) * 20, per_round=20, model_norm=7.0, **server):
    return fleet_bounds(claimed, recent, per_round, model_norm, ServerSettings(**server))


def test_claimed_examples_count_up_to_a_multiple_of_the_fleets_median():
    fleet = bounds([*range(1, 20), 2**31])
    assert [fleet.weight(examples) for examples in (1, 10, 20, 21, 2**31)] == [1, 10, 20, 20, 20]


@pytest.mark.parametrize(
    ("devices", "per_round", "multiple"),
    [(1, 20, 2), (2, 20, 2), (200, 20, 2), (200, 50, 5), (10_000, 1_000, 10)],
)
def test_in_a_larger_round_one_device_may_weigh_more(devices, per_round, multiple):
    assert bounds([100] * devices, per_round=per_round).weight(10**9) == 100 * multiple


def test_the_share_of_one_device_can_be_set_and_never_falls_below_that_of_the_median_device():
    assert [bounds(largest_share=share).weight(10**9) for share in (0.0, 0.05, 0.1, 0.25)] == [10, 10, 20, 50]
    assert bounds(largest_share=0.25).weight(12) == 12


@pytest.mark.parametrize("aggregation", ["trimmed", "median"])
def test_where_devices_count_alike_more_examples_are_no_more_weight_and_no_shorter_update(aggregation):
    fleet = bounds([10] * 20, aggregation=aggregation)
    assert fleet.longest_at(fleet.weight(2**31)) == fleet.longest_at(1) == Norms(weights=8.0, statistics=2.0)


def test_updates_are_clipped_to_a_quantile_of_the_fleets_norms():
    norms = [Norms(weights=float(i), statistics=10.0 * i) for i in range(1, 11)]
    clipped = {q: bounds(recent=norms, clip_quantile=q).longest_at(10).weights for q in (0.1, 0.5, 0.55, 0.9)}
    assert clipped == {0.1: 1.0, 0.5: 5.0, 0.55: 6.0, 0.9: 9.0}
    # Whatever it weighs; the fleet's own bound is 4 medians, less where it weighs more.
    assert bounds(recent=norms, clip_quantile=0.9).longest_at(20) == Norms(weights=9.0, statistics=90.0)
    assert bounds(recent=norms, clip_quantile=1.0).longest_at(10).weights == 22.0
    alone = bounds(recent=norms, clip_quantile=0.5, fleet_bounds=False)
    assert alone.longest_at(2**20) == Norms(weights=5.0, statistics=50.0)
    assert bounds(recent=norms[:2], clip_quantile=0.5, fleet_bounds=False).longest_at(1).weights == float(
        "inf"
    )


def test_beside_one_other_device_a_claim_does_not_raise_its_own_bound():
    assert bounds([100, 2**31]).weight(2**31) == 200


def test_without_a_fleet_only_the_largest_number_bounds():
    assert bounds([]).weight(2**31) == LARGEST_EXAMPLES


def test_the_norm_bound_follows_the_fleet_within_the_one_that_is_set():
    assert bounds().largest == Norms(weights=40.0, statistics=10.0)
    assert bounds(recent=[Norms(weights=1e3, statistics=1e3)] * 9).largest.weights == 100.0
    one_liar = [TYPICAL] * 2 + [Norms(weights=1e9, statistics=1e9)]
    assert bounds(recent=one_liar).largest == bounds().largest


def test_what_most_devices_do_not_move_sets_no_bound():
    still = bounds(recent=[Norms(weights=2.0, statistics=0.0)] * 5)
    assert still.largest.statistics == still.longest.statistics == float("inf")


def test_a_heavy_update_may_be_less_long():
    assert bounds().longest_at(10) == bounds().longest_at(1) == Norms(weights=8.0, statistics=2.0)
    assert bounds().longest_at(20) == Norms(weights=4.0, statistics=1.0)


def test_in_a_fleets_first_round_no_update_counts_as_longer_than_the_model():
    first = bounds(recent=[])
    assert first.longest_at(10).weights == 7.0
    assert first.largest == Norms(weights=100.0, statistics=float("inf"))
    assert bounds([10, 10], recent=[]).longest_at(10).weights == float("inf")


def test_weights_and_statistics_are_shortened_apart():
    update = {"w": np.array([3.0, 4.0], np.float32), "b": np.array([6.0, 8.0], np.float32), "n": np.array(7)}
    schema = ModelSchema.of(update, ["w"])
    short = shortened(update, schema, Norms(weights=1.0, statistics=20.0))
    assert short["w"] == pytest.approx([0.6, 0.8])
    assert short["b"] is update["b"]
    assert short["n"] is update["n"]
    assert (
        norm(shortened(update, schema, Norms(weights=9.0, statistics=5.0)), schema.of_kind("buffer")) == 5.0
    )


def believed(claims: dict[int, tuple[str, float]]) -> dict[int, float]:
    """What is believed of the joules that devices claim: node -> class and joules."""
    _, classes = np.unique([name for name, _ in claims.values()], return_inverse=True)
    joules = np.array([claimed for _, claimed in claims.values()])
    return dict(zip(claims, credible_joules(classes, joules).tolist(), strict=True))


def test_claimed_joules_far_below_a_class_count_as_its_own():
    fleet = dict.fromkeys(range(20, 32), ("phone", 10.0)) | {8: ("phone", 12.0), 9: ("board", 0.5)}
    claims = fleet | {10: ("phone", 1e-9), 11: ("alone", 1e-9), 12: ("phone", 3.0)}
    credible = believed(claims)
    assert [credible[node] for node in (20, 8, 10, 12)] == [10.0, 12.0, 10.0, 3.0]
    # A device chooses its class itself: one of few devices is judged by the fleet.
    assert credible[11] == 10.0


def test_a_fleet_of_few_devices_is_believed():
    assert believed({1: ("a", 5.0), 2: ("b", 1e-9)}) == {1: 5.0, 2: 1e-9}
    assert believed({}) == {}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1.running_var", True),
        ("norm.moving_variance", True),
        ("norm.running_std", True),
        ("running_mean", False),
        ("layer.variant", False),
        ("running_var.weight", False),
    ],
)
def test_names_of_variances(name, expected):
    assert is_variance(name) is expected


class Tied(nn.Module):
    """An autoencoder whose two layers share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(16, 16, bias=False)
        self.back = nn.Linear(16, 16)
        self.back.weight = self.into.weight
        self.head = nn.Linear(16, 2)

    def forward(self, inputs):
        return self.head(self.back(self.into(inputs.flatten(1)).relu()))


def test_tensors_that_are_one_move_as_one():
    model = Tied()
    names = tied_tensors(model)
    assert names == [("into.weight", "back.weight")]
    mean = {
        name: np.full(tensor.shape, float(i)) for i, (name, tensor) in enumerate(model.state_dict().items())
    }
    moved = tied(mean, names)
    assert (moved["into.weight"] == moved["back.weight"]).all()
    assert moved["into.weight"][0, 0] == 0.5
    assert (moved["back.bias"] == mean["back.bias"]).all()
    assert tied(mean, tied_tensors(nn.Linear(2, 2))) == mean


@pytest.mark.parametrize("optimizer", ["fedavg", "fedadam"])
def test_tied_parameters_end_equal(optimizer, federate, task):
    class TiedBlobs(type(task)):
        def build_model(self):
            return Tied()

    federation = federate(trained=TiedBlobs(), server={"optimizer": optimizer, "averaging": 0.5})
    before = federation.coordinator.published()
    federation.run(3)
    after = federation.coordinator.published()
    assert after["into.weight"].tobytes() == after["back.weight"].tobytes() != before["into.weight"].tobytes()


class Hostile:
    """A device that sends the longest negated update that is accepted, and claims all the examples it can."""

    def __init__(self, device, federation: SimpleNamespace) -> None:
        self._device, self._federation = device, federation

    def registration(self):
        honest = self._device.registration()
        profile = replace(honest.profile, train_w=1e-6, radio_j_per_burst=0.0)
        return replace(honest, profile=profile, examples=2**31)

    def do_round(self, assignment, payload):
        honest, report = self._device.do_round(assignment, payload)
        state = self._federation.coordinator.state
        schema = state.in_flight[assignment.plan_id].index_map.schema
        update = decode(unseal(honest), schema).tensors
        factor = -0.99 * state.open_round.bounds.largest.weights / norm(update, schema.weights)
        update = {name: (values * factor).astype(values.dtype) for name, values in update.items()}
        for bits in (8, 6, 4, 3, 2):
            sent = encode(
                update,
                schema,
                CodecSpec(bits=bits),
                envelope=Envelope(base_version=assignment.round_number, plan_id=assignment.plan_id),
            ).payload
            if len(sent) <= assignment.uplink_limit(schema):
                break
        return sent, replace(report, examples=2**31, spent=replace(report.spent, uplink_bytes=len(sent)))


@pytest.mark.slow
def test_one_hostile_device_in_200_does_not_cost_the_run_its_accuracy():
    """It is selected in 8 of 20 rounds, the first among them."""
    federation = SimpleNamespace()
    honest = InProcess.of(load_scenario("digits"))
    federation.coordinator = honest.coordinator
    harness = InProcess(honest.coordinator, {**honest.devices, 23: Hostile(honest.devices[23], federation)})
    claimed = harness.devices[23].registration()
    honest.coordinator.state.registry.register(23, claimed.profile, claimed.examples)
    closed = [harness.round() for _ in range(20)]
    hostile = [a for each in closed for a in each.answers if a.dispatch is not None and a.dispatch.node == 23]
    assert [answer.verdict for answer in hostile].count("accepted") >= 3
    assert closed[-1].row.trailing_accuracy > 0.93


def spoiled(federation, name: str, spoil):
    """A round in which the first device adds to one tensor of its update; that answer, and the round as it closed."""
    first, *others = federation.plan().dispatches
    payload, text = federation.answer(first)
    schema, report = first.index_map.schema, json.loads(text)
    update = decode(unseal(payload), schema).tensors
    update[name] = spoil(update[name])
    envelope = Envelope(base_version=first.assignment.round_number, plan_id=first.plan_id)
    payload = encode(update, schema, CodecSpec(bits=8), envelope=envelope).payload
    report["spent"]["uplink_bytes"] = len(payload)
    answer = federation.receive(first, payload, json.dumps(report))
    for dispatch in others:
        federation.work(dispatch)
    return answer, federation.step()


@pytest.mark.parametrize("less", [2.0, 20.0, 1e20])
def test_a_variance_stays_a_variance(less, federate):
    federation = federate()
    answer, closed = spoiled(federation, "1.running_var", lambda values: values - np.float32(less))
    assert (answer.verdict, answer.reason) == ("rejected", "norm")
    assert (federation.state.server.model()["1.running_var"] > 0).all()
    assert np.isfinite(closed.row.loss)
    assert closed.row.alarm == ""


@pytest.mark.parametrize("name", ["1.running_mean", "1.running_var"])
def test_statistics_move_no_further_than_the_fleets(name, federate):
    federation, twin = federate(), federate(state="twin")
    federation.run(2)
    twin.run(2)
    answer, closed = spoiled(federation, name, lambda values: values + np.float32(1e6))
    assert (answer.verdict, answer.reason) == ("rejected", "norm")
    assert "running statistics" in answer.message
    assert closed.row.loss == pytest.approx(twin.round().row.loss, abs=0.2)


def test_in_the_first_round_statistics_move_no_further_than_a_typical_update_moves_them(federate):
    federation, twin = federate(), federate(state="twin")
    before, honest = federation.state.server.model(), twin.round()
    spoiled(federation, "1.running_mean", lambda values: values + np.float32(1e6))
    moved = np.linalg.norm(federation.state.server.model()["1.running_mean"] - before["1.running_mean"])
    assert moved < 4 * max(answer.norms.statistics for answer in honest.answers)


def test_statistics_of_data_on_a_large_scale_do_not_count_in_the_norm_of_an_update(federate):
    federation = federate()
    answer, _ = spoiled(federation, "1.running_var", lambda values: values + np.float32(60_000))
    assert answer.verdict == "accepted"
    assert answer.norms.weights < 100 < answer.norms.statistics


def test_a_batch_norm_on_raw_pixels_is_trained(federate, task):
    class RawBlobs(type(task)):
        def build_model(self):
            return nn.Sequential(nn.BatchNorm2d(1), *super().build_model())

        def load(self, partition):
            examples = super().load(partition)
            return Examples(255 * (examples.inputs + 3), examples.targets)

    federation = federate(trained=RawBlobs(), client={"learning_rate": 0.1})
    rows = federation.run(6)
    assert [row.rejected for row in rows] == [0] * 6
    assert rows[-1].accuracy > 0.8
    assert federation.state.server.model()["0.running_mean"] == pytest.approx(765, rel=0.1)


def test_an_evaluation_that_is_not_a_number_is_an_alarm(federate, caplog):
    federation = federate()
    server = federation.state.server
    broken = {
        name: np.full_like(array, np.nan) for name, array in server.state().items() if "5.weight" in name
    }
    server.restore(server.state() | broken)
    federation.coordinator.plan(0.0, 0)
    row = federation.step().row
    assert row.alarm.startswith("the evaluation is not finite (loss nan, accuracy ")
    assert row.alarm in caplog.text
