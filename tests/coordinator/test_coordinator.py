from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from slimfleet.compression import Condition, Plan, Report
from slimfleet.compression.codec import encode
from slimfleet.compression.codec.spec import PLAIN
from slimfleet.compression.messages import text_of
from slimfleet.compression.wire import Envelope
from slimfleet.coordinator import WallEnvironment
from slimfleet.coordinator.observing.prometheus.exporter import FleetMetrics
from slimfleet.coordinator.planning.assigning import MEMORY_SHARE, plan_id

COUNTER = "1.num_batches_tracked"


def test_a_federation_learns(federate):
    federation = federate(client={"learning_rate": 0.1})
    rows = federation.run(6)
    assert rows[-1].accuracy > 0.9 > rows[0].accuracy or rows[-1].loss < rows[0].loss / 2
    assert [row.round for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row.completed == 4 and row.violations == 0 for row in rows)


def test_the_order_of_arrival_changes_nothing(federate):
    federations = [federate(state=name) for name in ("forwards", "backwards")]
    for _ in range(2):
        for federation, step in zip(federations, (1, -1), strict=True):
            answers = [(dispatch, *federation.answer(dispatch)) for dispatch in federation.plan().dispatches]
            for answer in answers[::step]:
                federation.receive(*answer)
            federation.step()
    one, two = federations
    assert one.state_bytes() == two.state_bytes()
    assert one.state.calibration == two.state.calibration
    rows = [[replace(row, wall_time_s=0) for row in f.state.rows] for f in federations]
    assert rows[0] == rows[1]


def test_batch_norm_statistics_are_aggregated_and_counters_stay_whole(federate):
    federation = federate()
    before = federation.state.server.model()
    closed = federation.round()
    after = federation.state.server.model()
    assert not np.allclose(after["1.running_mean"], before["1.running_mean"], atol=1e-4)
    reports = [answer.report for answer in closed.answers]
    steps = sum(r.steps * r.examples for r in reports) / sum(r.examples for r in reports)
    assert after[COUNTER].dtype == np.int64
    assert after[COUNTER] == round(steps) > 0


def test_bfloat16_devices_train_in_a_round(federate, phone):
    half = replace(phone, bfloat16=True)
    federation = federate(profiles={11: half})
    planned = federation.plan()
    precisions = {d.node: d.assignment.plan.precision for d in planned.dispatches}
    assert precisions == {11: "bfloat16", 12: "float32", 13: "float32", 14: "float32"}
    assert {federation.work(dispatch).verdict for dispatch in planned.dispatches} == {"accepted"}


def widths(federation):
    planned = federation.plan()
    return [d.assignment.plan.width for d in planned.dispatches], planned.skipped


def lite_memory(federation, width):
    """What the planner needs for one example batch of 8 at this width, margins included."""
    cost_model = federation.coordinator.cost_model
    plan = Plan(width=width, local_steps=1, batch_size=8, nmse=0.1)
    phone = federation.state.registry[11].profile
    return 1.15 * cost_model.predict(phone, plan, cost_model.works[width], 1, 1).memory_bytes


def test_plans_follow_memory_and_where_nothing_fits_the_constraint_is_named(federate):
    """The runtime's own 44 MB dwarf this small model, so what is tightened is the memory beyond them."""
    free = federate()
    base, full = 1.15 * 44_000_000, lite_memory(free, 1.0)
    chosen = [widths(free)[0]]
    for share in (0.8, 0.55, 0.3):
        narrower, skipped = widths(federate(budget={"memory_bytes": int(base + share * (full - base))}))
        assert skipped == {}
        chosen.append(narrower)
    assert chosen == [[1.0] * 4, [0.75] * 4, [0.5] * 4, [0.25] * 4]
    none, skipped = widths(federate(budget={"memory_bytes": int(base)}))
    assert none == []
    assert {skip.constraint for skip in skipped.values()} == {"memory_bytes"}
    assert "memory_bytes: the smallest plan needs" in skipped[11].reason


def test_a_class_has_its_own_budget_and_a_device_its_own_memory(federate, phone):
    small = replace(phone, ram_bytes=int(44_000_000 / MEMORY_SHARE))
    board = replace(phone, device_class="board")
    federation = federate(profiles={11: small, 12: board}, budget={"class": {"board": {"energy_j": 1e-9}}})
    planned = federation.plan()
    assert {n: s.constraint for n, s in planned.skipped.items()} == {11: "memory_bytes", 12: "energy_j"}
    assert {d.node for d in planned.dispatches} == {13, 14}
    assert federation.state.registry[11].last_reason.startswith("memory_bytes")


@pytest.mark.parametrize("budget", [{"energy_j": 0.9}, {"deadline_s": 0.9}, {"uplink_bytes": 130}])
def test_a_tight_budget_is_kept_by_the_spent_cost(federate, budget):
    federation = federate(budget=budget)
    rows = federation.run(3)
    assert sum(row.violations for row in rows) == 0
    assert federation.state.totals.violations == {}


def test_a_battery_has_only_what_is_above_its_floor_for_the_rounds_that_are_left(federate, phone):
    federation = federate(profiles={11: replace(phone, battery_j=100.0)}, selection={"battery_floor": 0.2})
    federation.world.statuses[11] = Condition(battery=0.5)
    planned = federation.plan()
    limits = {d.node: d.limits.energy_j for d in planned.dispatches}
    # 30 J over six rounds, in each of which twenty of four devices are asked: 30 turns.
    assert limits == {11: pytest.approx(30 / 30), 12: None, 13: None, 14: None}
    federation.step()
    federation.world.statuses[11] = Condition(battery=0.5, charging=True)
    assert all(d.limits.energy_j is None for d in federation.plan().dispatches)


def test_a_device_below_the_battery_floor_is_skipped_for_it_unless_it_charges(federate):
    federation = federate(selection={"battery_floor": 0.2})
    low, charging, at_the_floor = (
        Condition(battery=0.19),
        Condition(battery=0.1, charging=True),
        Condition(battery=0.2),
    )
    federation.world.statuses |= {11: low, 12: charging, 13: at_the_floor}
    planned = federation.plan()
    assert {d.node for d in planned.dispatches} == {12, 13, 14}
    assert planned.skipped[11].reason == "battery: charged to 19%, the floor is 20%"
    row = federation.step().row
    assert row.skipped == 1
    assert federation.state.totals.skipped == {"battery": 1}
    assert federation.state.registry[11].skips == 1


def test_who_is_out_of_reach_or_unknown_is_not_asked(federate):
    federation = federate()
    federation.world.statuses[12] = None
    planned = federation.coordinator.plan(0.0, 20, [11, 12, 99])
    assert [d.node for d in planned.dispatches] == [11]


def test_no_more_devices_than_asked_for(federate):
    federation = federate(selection={"per_round": 2})
    assert len(federation.plan().dispatches) == 2


def test_plan_ids_are_unique_and_fixed():
    ids = {plan_id(seed, number, node) for seed in range(3) for number in range(30) for node in range(30)}
    assert len(ids) == 3 * 30 * 30
    assert all(0 <= value < 2**64 for value in ids)
    assert plan_id(1, 2, 3) == plan_id(1, 2, 3)


def test_a_deployment_lives_in_wall_clock_time(federate):
    """A round lasts from its opening to its closing, however long the answers take."""
    federation, now = federate(), [1000.0]
    federation.coordinator.environment = WallEnvironment(lambda: now[0])
    planned = federation.plan()
    for dispatch in planned.dispatches:
        now[0] += 7.0
        federation.work(dispatch)
    assert federation.step().row.virtual_time_s == 28.0


def test_the_error_of_predicted_sizes_is_reported_and_shrinks_as_payloads_come(federate):
    """The first round has only the formula to correct; then what was learned is held against what comes."""
    federation = federate()
    rows = federation.run(5)
    assert [row.size_error for row in rows][-1] == federation.coordinator.cost_model.sizes.error
    assert all(0 < row.size_error < 1 for row in rows)
    assert federate(state="plain", planner={"policy": "fixed"}).run()[0].size_error == 0


def test_evaluation_can_be_rarer_but_never_misses_the_last_round(federate):
    rows = federate(evaluate_every=4).run(6)
    assert [row.accuracy is not None for row in rows] == [False, False, False, True, False, True]
    assert rows[0].trailing_accuracy is None
    assert rows[5].trailing_accuracy == pytest.approx((rows[3].accuracy + rows[5].accuracy) / 2)


def test_a_round_shows_in_the_metrics(federate, phone, tmp_path):
    registry = CollectorRegistry()
    board = replace(phone, device_class="board", ram_bytes=1)
    federation = federate(profiles={14: board}, observers=[FleetMetrics(registry, "test")], rounds=1)
    federation.world.statuses[13] = None

    def value(name, **labels):
        return registry.get_sample_value(f"slimfleet_{name}", {"federation": "test", **labels})

    planned = federation.plan()
    assert value("run_active") == 1
    assert value("round_current") == 1
    assert value("clients", device_class="phone-mid", state="busy") == 2
    assert value("clients", device_class="phone-mid", state="offline") == 1
    assert value("clients", device_class="board", state="ineligible") == 1
    assert value("clients_skipped_total", device_class="board", constraint="memory_bytes") == 1

    good, bad = planned.dispatches
    report = federation.work(good).report
    payload, text = federation.answer(bad)
    federation.receive(bad, payload, text.replace('"examples"', '"exmples"'))
    row = federation.step().row
    federation.save(tmp_path / "checkpoint")

    spent, mid = report.spent, {"device_class": "phone-mid"}
    assert value("rounds_total", outcome="completed") == 1
    assert value("client_tasks_total", outcome="ok", **mid) == 1
    assert value("client_tasks_total", outcome="rejected", **mid) == 1
    assert value("updates_rejected_total", reason="message") == 1
    radio = value("client_energy_joules_total", component="radio", source="simulated", **mid)
    assert radio == pytest.approx(spent.radio_j)
    assert value("client_task_duration_seconds_sum", **mid) == pytest.approx(spent.time_s)
    assert value("update_bytes_total", direction="uplink", stage="wire", **mid) == row.uplink_bytes
    assert value("update_bytes_total", direction="downlink", stage="wire", **mid) == row.downlink_bytes
    assert value("model_accuracy_ratio", split="validation") == row.accuracy
    assert value("model_loss", split="train") == report.loss
    assert value("run_energy_joules") == row.energy_j
    assert value("update_size_error_ratio") == row.size_error
    for phase in ("select", "train", "aggregate", "evaluate", "checkpoint"):
        assert value("round_phase_duration_seconds_count", phase=phase) == 1
    files = (tmp_path / "checkpoint" / "round-000001").iterdir()
    assert value("checkpoint_bytes") == sum(file.stat().st_size for file in files)
    assert value("run_active") == 0


def test_broken_budgets_and_empty_rounds_show_in_the_metrics(federate):
    registry = CollectorRegistry()
    metrics = FleetMetrics(registry, "test")
    federation = federate(observers=[metrics], planner={"policy": "fixed"}, budget={"energy_j": 0.1})
    federation.run()
    federation.plan()
    federation.step()

    def value(name, **labels):
        return registry.get_sample_value(f"slimfleet_{name}", {"federation": "test", **labels})

    assert value("budget_violations_total", constraint="energy_j") == 4
    assert value("client_tasks_total", device_class="phone-mid", outcome="timeout") == 4
    assert value("rounds_total", outcome="failed") == 1
    assert value("run_active") == 1


def delivers(federation, dispatch, update):
    """The device of this dispatch sends `update`."""
    envelope = Envelope(base_version=dispatch.version, plan_id=dispatch.plan_id)
    payload = encode(update, dispatch.update_map.schema, PLAIN, envelope=envelope).payload
    spent = replace(dispatch.predicted, uplink_bytes=len(payload), downlink_bytes=len(dispatch.payload))
    report = Report(spent=spent, source="simulated", loss=1.0, examples=10, steps=1)
    return federation.receive(dispatch, payload, text_of(report))


@pytest.mark.parametrize(("staleness", "moves"), [("none", 1.0), ("polynomial", (1 + 2**-0.5 + 3**-0.5) / 3)])
def test_fifteen_updates_over_three_versions_move_the_model_as_fifteen_of_one(
    federate, phone, staleness, moves
):
    """The mean is over updates, each of equal weight, however many came of one version; damping shortens stale ones."""
    pacing = {"mode": "asynchronous", "buffer": 15, "concurrency": 20, "staleness": staleness}
    changes = []
    for name, parts in (("one", [15]), ("three", [5, 5, 5])):
        federation = federate(state=name, pacing=pacing, planner={"widths": [1.0]})
        nodes = list(range(101, 116))
        for node in nodes:
            federation.state.registry.register(node, phone, 10)
        schema, rng = federation.state.schema.moving, np.random.default_rng(3)
        update = {t.name: np.asarray(rng.normal(size=t.shape) * 1e-3, t.dtype) for t in schema.tensors}
        begun, dispatches = federation.state.server.model(), []
        for part in parts:
            if dispatches:
                assert not federation.coordinator.step().row.applied
            dispatches += federation.coordinator.plan(0.0, part, nodes).dispatches
        assert [delivers(federation, each, update).verdict for each in dispatches] == ["accepted"] * 15
        assert federation.coordinator.is_due(0.0)
        federation.coordinator.step()
        after = federation.state.server.model()
        changes.append({t.name: after[t.name] - begun[t.name] for t in schema.weights})
    of_one, of_three = changes
    for name in of_one:
        if staleness == "none":
            assert np.array_equal(of_one[name], of_three[name])
        assert np.allclose(of_three[name], moves * of_one[name], atol=1e-6)
