from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from slimfleet.compression import Budget, Plan, Training
from slimfleet.coordinator import Status, WallEnvironment
from slimfleet.coordinator.observing.prometheus import fleet_metrics
from slimfleet.coordinator.planning.round_planner import MEMORY_SHARE, plan_id
from slimfleet.coordinator.planning.selection import SelectionSettings

COUNTER = "1.num_batches_tracked"


def test_a_federation_learns(federate):
    federation = federate(training=Training(learning_rate=0.1))
    rows = federation.run(6)
    assert rows[-1].accuracy > 0.9 > rows[0].accuracy or rows[-1].loss < rows[0].loss / 2
    assert [row.round for row in rows] == [1, 2, 3, 4, 5, 6]
    assert all(row.completed == 4 and row.violations == 0 for row in rows)


def test_the_order_of_arrival_changes_nothing(federate):
    federations = [federate(state=name) for name in ("forwards", "backwards")]
    for _ in range(2):
        for federation, step in zip(federations, (1, -1), strict=True):
            opened = federation.open()
            answers = [federation.answer(dispatch) for dispatch in opened.dispatches]
            for node, payload, text in answers[::step]:
                opened.receive(node, payload, text)
            federation.coordinator.close_round(opened)
    one, two = federations
    assert one.state_bytes() == two.state_bytes()
    assert one.coordinator.calibration.to_json() == two.coordinator.calibration.to_json()
    rows = [[replace(row, wall_time_s=0) for row in f.coordinator.rows] for f in federations]
    assert rows[0] == rows[1]


def test_batch_norm_statistics_are_aggregated_and_counters_stay_whole(federate):
    federation = federate()
    before = federation.coordinator.server.model()
    opened = federation.open()
    for dispatch in opened.dispatches:
        opened.receive(*federation.answer(dispatch))
    federation.coordinator.close_round(opened)
    after = federation.coordinator.server.model()
    assert not np.allclose(after["1.running_mean"], before["1.running_mean"], atol=1e-4)
    reports = opened.reports.values()
    steps = sum(r.steps * r.examples for r in reports) / sum(r.examples for r in reports)
    assert after[COUNTER].dtype == np.int64
    assert after[COUNTER] == round(steps) > 0


def test_bfloat16_devices_train_in_a_round(federate, phone):
    half = replace(phone, bfloat16=True)
    federation = federate(profiles={11: half})
    opened = federation.open()
    precisions = {d.node: d.assignment.plan.precision for d in opened.dispatches}
    assert precisions == {11: "bfloat16", 12: "float32", 13: "float32", 14: "float32"}
    for dispatch in opened.dispatches:
        opened.receive(*federation.answer(dispatch))
    assert opened.accepted == {11, 12, 13, 14}


def widths(federation):
    opened = federation.open()
    return [d.assignment.plan.width for d in opened.dispatches], opened.skipped


def lite_memory(federation, width):
    """What the planner needs for one example batch of 8 at this width, margins included."""
    cost_model = federation.coordinator.cost_model
    plan = Plan(width=width, local_steps=1, batch_size=8, nmse=0.1)
    phone = federation.coordinator.registry[11].profile
    return 1.15 * cost_model.predict(phone, plan, cost_model.works[width], 1, 1).memory_bytes


def test_plans_follow_memory_and_where_nothing_fits_the_constraint_is_named(federate):
    """The runtime's own 44 MB dwarf this small model, so what is tightened is the memory beyond them."""
    free = federate()
    base, full = 1.15 * 44_000_000, lite_memory(free, 1.0)
    chosen = [widths(free)[0]]
    for share in (0.8, 0.55, 0.3):
        narrower, skipped = widths(federate(budget=Budget(memory_bytes=int(base + share * (full - base)))))
        assert skipped == {}
        chosen.append(narrower)
    assert chosen == [[1.0] * 4, [0.75] * 4, [0.5] * 4, [0.25] * 4]
    none, skipped = widths(federate(budget=Budget(memory_bytes=int(base))))
    assert none == []
    assert {skip.constraint for skip in skipped.values()} == {"memory_bytes"}
    assert "memory_bytes: the least plan needs" in skipped[11].reason


def test_a_class_has_its_own_budget_and_a_device_its_own_memory(federate, phone):
    small = replace(phone, ram_bytes=int(44_000_000 / MEMORY_SHARE))
    board = replace(phone, device_class="board")
    budgets = {"board": Budget(energy_j=1e-9)}
    federation = federate(profiles={11: small, 12: board}, class_budgets=budgets)
    opened = federation.open()
    assert {n: s.constraint for n, s in opened.skipped.items()} == {11: "memory_bytes", 12: "energy_j"}
    assert {d.node for d in opened.dispatches} == {13, 14}
    assert federation.coordinator.registry[11].last_reason.startswith("memory_bytes")


@pytest.mark.parametrize("budget", [Budget(energy_j=0.9), Budget(deadline_s=0.9), Budget(uplink_bytes=130)])
def test_a_tight_budget_is_kept_by_the_spent_cost(federate, budget):
    federation = federate(budget=budget)
    rows = federation.run(3)
    assert sum(row.violations for row in rows) == 0
    assert federation.coordinator.totals.violations == {}


def test_a_battery_has_only_what_is_above_its_floor_for_the_rounds_that_are_left(federate, phone):
    federation = federate(
        profiles={11: replace(phone, battery_j=100.0)}, selection=SelectionSettings(battery_floor=0.2)
    )
    federation.world.statuses[11] = Status(battery=0.5)
    opened = federation.open()
    limits = {d.node: d.limits.energy_j for d in opened.dispatches}
    # 30 J over six rounds, in each of which twenty of four devices are asked: 30 turns.
    assert limits == {11: pytest.approx(30 / 30), 12: None, 13: None, 14: None}
    federation.world.statuses[11] = Status(battery=0.5, charging=True)
    assert all(d.limits.energy_j is None for d in federation.open().dispatches)
    federation.world.statuses[11] = Status(battery=0.19)
    assert 11 not in {d.node for d in federation.open().dispatches}


def test_who_is_out_of_reach_or_unknown_is_not_asked(federate):
    federation = federate()
    federation.world.statuses[12] = None
    opened = federation.coordinator.open_round([11, 12, 99])
    assert [d.node for d in opened.dispatches] == [11]


def test_no_more_devices_than_asked_for(federate):
    federation = federate(selection=SelectionSettings(per_round=2))
    assert len(federation.open().dispatches) == 2


def test_plan_ids_are_unique_and_fixed():
    ids = {plan_id(seed, number, node) for seed in range(3) for number in range(30) for node in range(30)}
    assert len(ids) == 3 * 30 * 30
    assert all(0 <= value < 2**64 for value in ids)
    assert plan_id(1, 2, 3) == plan_id(1, 2, 3)


def test_a_deployment_lives_in_wall_clock_time(federate):
    """A round lasts from its opening to its closing, however long the answers take."""
    federation, now = federate(), [1000.0]
    federation.coordinator.environment = WallEnvironment(lambda: now[0])
    opened = federation.open()
    for dispatch in opened.dispatches:
        now[0] += 7.0
        opened.receive(*federation.answer(dispatch))
    assert federation.coordinator.close_round(opened).virtual_time_s == 28.0


def test_the_error_of_predicted_sizes_is_reported_and_shrinks_as_payloads_come(federate):
    """The first round has only the formula to correct; then what was learned is held against what comes."""
    federation = federate()
    rows = federation.run(5)
    assert [row.size_error for row in rows][-1] == federation.coordinator.cost_model.sizes.error
    assert all(0 < row.size_error < 1 for row in rows)
    assert federate(state="plain", planner="fixed").run()[0].size_error == 0


def test_evaluation_can_be_rarer_but_never_misses_the_last_round(federate):
    rows = federate(evaluate_every=4).run(6)
    assert [row.accuracy is not None for row in rows] == [False, False, False, True, False, True]
    assert rows[0].trailing_accuracy is None
    assert rows[5].trailing_accuracy == pytest.approx((rows[3].accuracy + rows[5].accuracy) / 2)


def test_a_round_shows_in_the_metrics(federate, phone, tmp_path):
    from slimfleet.coordinator.checkpoint import save_checkpoint

    registry = CollectorRegistry()
    board = replace(phone, device_class="board", ram_bytes=1)
    federation = federate(profiles={14: board}, metrics=fleet_metrics(registry, "test"), rounds=1)
    federation.world.statuses[13] = None

    def value(name, **labels):
        return registry.get_sample_value(f"slimfleet_{name}", {"federation": "test", **labels})

    opened = federation.open()
    assert value("run_active") == 1
    assert value("round_current") == 1
    assert value("clients", device_class="phone-mid", state="busy") == 2
    assert value("clients", device_class="phone-mid", state="offline") == 1
    assert value("clients", device_class="board", state="ineligible") == 1
    assert value("clients_skipped_total", device_class="board", constraint="memory_bytes") == 1

    good, bad = opened.dispatches
    opened.receive(*federation.answer(good))
    node, payload, text = federation.answer(bad)
    opened.receive(node, payload, text.replace('"examples"', '"exmples"'))
    row = federation.coordinator.close_round(opened)
    save_checkpoint(tmp_path / "checkpoint", federation.coordinator)

    spent, mid = opened.reports[good.node].spent, {"device_class": "phone-mid"}
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
    assert value("model_loss", split="train") == opened.reports[good.node].loss
    assert value("run_energy_joules") == row.energy_j
    assert value("update_size_error_ratio") == row.size_error
    for phase in ("select", "train", "aggregate", "evaluate", "checkpoint"):
        assert value("round_phase_duration_seconds_count", phase=phase) == 1
    files = (tmp_path / "checkpoint" / "round-000001").iterdir()
    assert value("checkpoint_bytes") == sum(file.stat().st_size for file in files)
    assert value("run_active") == 0


def test_broken_budgets_and_empty_rounds_show_in_the_metrics(federate):
    registry = CollectorRegistry()
    metrics = fleet_metrics(registry, "test")
    federation = federate(metrics=metrics, planner="fixed", budget=Budget(energy_j=0.1))
    federation.run()
    federation.coordinator.close_round(federation.open())

    def value(name, **labels):
        return registry.get_sample_value(f"slimfleet_{name}", {"federation": "test", **labels})

    assert value("budget_violations_total", constraint="energy_j") == 4
    assert value("client_tasks_total", device_class="phone-mid", outcome="timeout") == 4
    assert value("rounds_total", outcome="failed") == 1
    assert value("run_active") == 1
