"""Evaluation on devices: the same integers as in one place, within its share of joules, hostile until checked."""

import csv
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from tests.coordinator.conftest import NODES, PHONE, Blobs

from slimfleet.compression import BudgetExceeded, Examples
from slimfleet.compression.codec import decode_model
from slimfleet.compression.held_out import divided, evaluated, pooled
from slimfleet.compression.tensors import load_tensors
from slimfleet.compression.threads import torch_threads
from slimfleet.compression.types import Evaluated
from slimfleet.compression.wire import unseal
from slimfleet.coordinator.learning.best import Best, candidate, is_better
from slimfleet.coordinator.learning.device_evaluation import fairness_of
from slimfleet.coordinator.observing.rounds import RoundsCsv
from slimfleet.coordinator.reporting import record_of, report_html, summarise

WHOLE = {"planner": {"widths": [1.0]}}
SHARE = 0.25


class NoTestData(Blobs):
    evaluate = None


def evaluating(federate, energy_share=1.0, **changes):
    return federate(evaluation={"on_devices": SHARE, "energy_share": energy_share}, **(WHOLE | changes))


def held_out_of(federation):
    """All held-out examples of the devices, in one place."""
    parts = [divided(Blobs().load(i), SHARE, 5, i).held_out for i in range(len(NODES))]
    return Examples(torch.cat([p.inputs for p in parts]), torch.cat([p.targets for p in parts]))


def test_devices_together_count_what_one_place_counts(federate):
    federation = evaluating(federate)
    for _ in range(2):
        planned = federation.plan()
        assert len(planned.dispatches) == len(NODES)
        opened = unseal(planned.dispatches[0].payload)
        model = federation.coordinator.blueprint.shrunk({})
        load_tensors(model, decode_model(opened, planned.dispatches[0].index_map.schema).tensors)
        with torch_threads(1):
            in_one_place = evaluated(Blobs(), model, held_out_of(federation))
        answers = [federation.work(dispatch) for dispatch in planned.dispatches]
        assert pooled(answer.report.evaluated for answer in answers) == in_one_place
        row = federation.step().row
        # A change of what a device holds is not sent whole: the next round's model is compared in full.
        federation.coordinator.settings = replace(
            federation.coordinator.settings,
            codec=replace(federation.coordinator.settings.codec, downlink_history=0),
        )
        for record in federation.state.registry:
            record.holding = type(record.holding)()
        assert (row.evaluated_devices, row.evaluated_examples) == (len(NODES), in_one_place.examples)
        assert (row.device_accuracy, row.device_loss) == (in_one_place.accuracy, in_one_place.loss)


def test_the_weight_of_an_update_is_what_was_trained_on(federate):
    federation = evaluating(federate)
    for dispatch in federation.plan().dispatches:
        report = federation.work(dispatch).report
        total = len(Blobs().load(NODES.index(dispatch.node)))
        assert report.examples + report.evaluated.examples == total
        assert report.evaluated.examples == round(SHARE * total)


def test_what_is_held_out_does_not_reach_the_update(federate):
    class Scrambled(Blobs):
        """Other inputs where the devices hold out, the same ones where they train."""

        def load(self, partition):
            examples = super().load(partition)
            places = Examples(torch.arange(len(examples)), examples.targets)
            aside = divided(places, SHARE, 5, partition).held_out.inputs
            examples.inputs[aside] = 1e3
            return examples

    plain, scrambled = evaluating(federate, state="a"), evaluating(federate, state="b", trained=Scrambled())
    rows = plain.run(2), scrambled.run(2)
    assert plain.model_bytes() == scrambled.model_bytes()
    assert rows[0][-1].device_loss != rows[1][-1].device_loss


def test_without_the_setting_nothing_is_held_out(federate):
    federation = federate()
    dispatch = federation.plan().dispatches[0]
    report = federation.work(dispatch).report
    assert (dispatch.assignment.evaluation, report.evaluated) == (None, None)
    assert report.examples == len(Blobs().load(NODES.index(dispatch.node)))


def test_it_takes_no_more_than_its_share_of_the_joules(federate):
    limited, free = evaluating(federate, 0.005, state="a"), evaluating(federate, 1.0, state="b")
    limited.run(3), free.run(3)

    def share(federation):
        phases = summarise(record_of(federation.coordinator, "blobs", "local"))["energy_by_phase"]
        return phases["evaluate"]["energy_j"] / sum(phase["energy_j"] for phase in phases.values())

    assert 0 < share(limited) <= 0.005 < share(free)
    most = [max(row.evaluation_share for row in each.state.rows) for each in (limited, free)]
    assert 0 < most[0] <= 0.005 < most[1]  # of each single report, not of the run alone
    assert summarise(record_of(free.coordinator, "blobs", "local"))["evaluation_share"] == most[1]
    assert limited.state.totals.violations == {}


def test_a_device_that_says_it_evaluated_for_more_than_its_limit_is_counted(federate):
    federation = evaluating(federate, 0.05)
    for excess in (1.0, 1.5):
        dispatch = federation.plan().dispatches[0]
        payload, text = federation.answer(dispatch)
        report = json.loads(text)
        phases, limit_j = report["phases"], dispatch.assignment.evaluation.energy_j
        phases["train"]["energy_j"] += phases["evaluate"]["energy_j"] - excess * limit_j
        phases["evaluate"]["energy_j"] = excess * limit_j
        answer = federation.receive(dispatch, payload, json.dumps(report))
        assert (answer.verdict, answer.broken) == ("accepted", ("evaluation_j",) if excess > 1 else ())
        row = federation.step().row
        assert row.violations == (excess > 1)
        assert row.evaluation_share == pytest.approx(excess * limit_j / report["spent"]["energy_j"])
    assert federation.state.totals.violations == {"evaluation_j": 1}
    assert federation.state.registry[dispatch.node].violations == 1


def test_rows_and_summary_tell_classes_of_devices_apart(federate, tmp_path):
    slow = replace(PHONE, device_class="pi")
    federation = evaluating(
        federate, profiles={NODES[0]: slow, NODES[1]: slow}, observers=[RoundsCsv(tmp_path)]
    )
    answers = [federation.work(dispatch) for dispatch in federation.plan().dispatches]
    federation.step()
    found = {}
    for name, nodes in (("phone-mid", NODES[2:]), ("pi", NODES[:2])):
        parts = [a.report.evaluated for a in answers if a.dispatch.node in nodes]
        found[name] = sum(p.correct for p in parts) / sum(p.examples for p in parts)
    with (tmp_path / "rounds.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    assert json.loads(row["accuracy_by_device_class"]) == found
    record = record_of(federation.coordinator, "blobs", "local")
    classes = summarise(record)["device_evaluation"]["by_device_class"]
    assert {name: each["accuracy"] for name, each in classes.items()} == found
    for name, nodes in (("phone-mid", NODES[2:]), ("pi", NODES[:2])):
        own = fairness_of([a.report.evaluated for a in answers if a.dispatch.node in nodes])
        assert classes[name]["fairness"] == asdict(own)
    assert "worst tenth" in report_html(record, None, "")


def test_it_is_charged_to_the_budget(federate):
    slow = dict.fromkeys(NODES, replace(PHONE, train_flops_per_s=2e5, uplink_bytes_per_s=1e6))
    federation = evaluating(federate, profiles=slow)
    dispatch = federation.plan().dispatches[0]
    device = federation.devices[dispatch.node]
    _, free = device.do_round(dispatch.assignment, dispatch.payload)
    assert free.phases.evaluate.energy_j > 0
    assert free.phases.energy_j == pytest.approx(free.spent.energy_j)

    def steps(energy_j, evaluation):
        budget = replace(dispatch.assignment.budget, energy_j=energy_j)
        try:
            _, report = device.do_round(
                replace(dispatch.assignment, budget=budget, evaluation=evaluation), dispatch.payload
            )
        except BudgetExceeded:
            return 0
        assert report.spent.energy_j <= energy_j
        return report.steps

    limits = [free.spent.energy_j * share for share in np.arange(1.2, 1.64, 0.03)]
    with_it = [steps(limit, dispatch.assignment.evaluation) for limit in limits]
    without = [steps(limit, None) for limit in limits]
    assert all(one <= other for one, other in zip(with_it, without, strict=True))
    assert sum(with_it) < sum(without)


def test_only_the_whole_model_is_evaluated_and_only_when_it_is_due(federate):
    narrow = evaluating(federate, planner={"widths": [0.5]}, state="a")
    assert narrow.run()[0].evaluated_devices == 0
    seldom = evaluating(federate, evaluate_every=2, state="b")
    assert [row.evaluated_devices for row in seldom.run(3)] == [0, 4, 0]


def wrong(**changes):
    def change(report):
        report["evaluated"] |= changes

    return change


@pytest.mark.parametrize(
    "change",
    [
        wrong(examples=10**5),
        wrong(correct=7, by_class=[[6, 7], [0, 0]]),
        wrong(correct=4),
        wrong(by_class=[[1, 2], [5, 0]]),
        wrong(by_class=[[60, 0], [0, 0]]),
        wrong(by_class=[[1, 0]] * 257),
        wrong(correct=-1),
        wrong(loss_sum=2**60),
        wrong(score_sum=2**40),
        wrong(examples=0),
        wrong(examples=1.5),
        wrong(more=1),
    ],
)
def test_counts_that_cannot_be_are_refused(federate, change):
    federation = evaluating(federate)
    dispatch = federation.plan().dispatches[0]
    payload, text = federation.answer(dispatch)
    report = json.loads(text)
    report["evaluated"] |= {"examples": 6, "correct": 3, "by_class": [[3, 1], [3, 2]]}
    change(report)
    answer = federation.receive(dispatch, payload, json.dumps(report))
    assert (answer.verdict, answer.reason) == ("rejected", "message")
    assert federation.step().row.evaluated_devices == 0


def test_an_evaluation_that_nobody_asked_for_is_refused(federate):
    federation = federate()
    dispatch = federation.plan().dispatches[0]
    payload, text = federation.answer(dispatch)
    report = json.loads(text) | {"evaluated": {"examples": 1, "loss_sum": 0}}
    answer = federation.receive(dispatch, payload, json.dumps(report))
    assert "asked were 0" in answer.message


def test_one_device_that_claims_many_examples_is_asked_for_few(federate):
    federation = evaluating(federate)
    federation.state.registry[NODES[0]].examples = 10**6
    asked = [dispatch.assignment.evaluation.examples for dispatch in federation.plan().dispatches]
    assert max(asked) <= 10 * SHARE * 48


def test_fairness_gives_every_device_one_vote():
    parts = [Evaluated(examples=n, loss_sum=0, correct=c) for n, c in ((100, 100), (1, 0), (2, 1), (4, 4))]
    fair = fairness_of(parts)
    assert (fair.mean, fair.worst_decile) == (0.625, 0.0)
    assert fair.spread == pytest.approx(0.41457809879442503)
    assert fairness_of([Evaluated(examples=1, loss_sum=0)]) is None


def test_a_task_without_test_data_is_judged_by_its_devices(federate):
    federation = evaluating(federate, trained=NoTestData())
    rows = federation.run(3)
    assert [row.accuracy for row in rows] == [row.device_accuracy for row in rows]
    record = record_of(federation.coordinator, "blobs", "local")
    summary = summarise(record)
    assert summary["accuracy_from"] == "devices"
    assert summary["device_evaluation"]["by_device_class"].keys() == {"phone-mid"}
    assert sum(c["examples"] for c in summary["device_evaluation"]["by_class"].values()) > 0
    page = report_html(record, None, "")
    assert "by what devices hold out" in page
    assert "What devices made of the model" in page


def test_where_nobody_evaluates_nothing_is_known_and_nothing_breaks(federate):
    federation = federate(trained=NoTestData())
    assert [row.accuracy for row in federation.run(2)] == [None, None]
    record = record_of(federation.coordinator, "blobs", "local")
    summary = summarise(record)
    assert (summary["accuracy"], summary["best"], summary["device_evaluation"]) == (None, None, None)
    assert report_html(record, None, "")


def test_the_best_model_outlives_the_process_and_a_worse_round(federate, tmp_path):
    whole, killed = federate(state="whole"), federate(state="killed")
    whole.run(2)
    best = whole.state.best
    assert best is not None
    assert best.judged_by == "server"
    # From here on every model is worse.
    for federation in (whole, killed):
        if federation is killed:
            killed.run(2)
        spoilt = federation.coordinator.task

        class Worse(Blobs):
            def evaluate(self, model):
                return replace(super().evaluate(model), accuracy=0.0, loss=9.0)

        assert spoilt is not None
        federation.coordinator.task = Worse()
    kept = {name: array.tobytes() for name, array in whole.state.best_model.items()}
    whole.run(3)
    assert (whole.state.best, whole.state.best.round) == (best, best.round)
    killed.run(1)
    killed.save(tmp_path / "checkpoint")
    resumed = federate(state="killed")
    resumed.restore(tmp_path / "checkpoint")
    resumed.coordinator.task = whole.coordinator.task
    resumed.run(2)
    assert resumed.state.best == best
    assert {name: array.tobytes() for name, array in resumed.state.best_model.items()} == kept
    assert resumed.model_bytes() != b"".join(kept.values())


def test_the_model_that_devices_judge_is_the_one_before(federate):
    federation = evaluating(federate)
    models = []
    for _ in range(3):
        models.append(federation.coordinator.state.server.model())
        federation.round()
    best = federation.state.best
    assert best.judged_by == "devices"
    for name, array in models[best.round].items():
        assert array.tobytes() == federation.state.best_model[name].tobytes()


def test_the_trailing_mean_decides_and_a_loss_where_there_is_no_accuracy(federate):
    row = federate().run()[0]
    rows = [replace(row, round=i + 1, accuracy=a, loss=1.0) for i, a in enumerate((0.5, 0.5, 0.9))]
    assert candidate(rows).accuracy == pytest.approx(1.9 / 3)
    assert candidate([*rows, replace(row, round=4, accuracy=None, loss=None)]) is None
    old = Best(round=1, accuracy=None, loss=2.0, judged_by="server")
    assert is_better(replace(old, loss=1.9), old)
    assert not is_better(replace(old, loss=2.0), old)
    assert not is_better(replace(old, accuracy=0.5), replace(old, accuracy=0.5))
    assert is_better(replace(old, accuracy=0.5, loss=1.0), replace(old, accuracy=0.5))
    devices = replace(old, loss=3.0, judged_by="devices")
    assert is_better(devices, old)
    assert not is_better(old, devices)
