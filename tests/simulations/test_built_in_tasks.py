"""A round of every kind of built-in task: several inputs, natural partitions, tokens."""

import pytest

from slimfleet.simulations import load_scenario
from slimfleet.simulations.in_process import InProcess

SMALL = {
    "fleet.devices": "6", "selection.per_round": "2", "fleet.dropout": "0.0", "fleet.availability": "1.0",
    "selection.battery_floor": "0.0", "planner.max_epochs": "0.1", "planner.local_steps": "[2]",
    "budget.energy_j": '"none"', "budget.deadline_s": '"none"', "budget.uplink_bytes": '"none"',
    "budget.downlink_bytes": '"none"', "budget.class.phone-low": "{}", "rounds": "1",
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("spoken-digits", '{ model = "gru", frames = 12 }'),
        ("activities", '{ model = "cnn1d" }'),
        ("reuters-r8", "{ length = 6, vocabulary = 50 }"),
    ],
)
def test_a_scenario_needs_the_name_of_a_task_and_its_options(name, options):
    row = (
        InProcess.of(load_scenario("digits", SMALL | {"task.name": name, "task.options": options}))
        .round()
        .row
    )
    assert row.completed == 2
    assert row.failed == row.rejected == 0
    assert 0 < row.accuracy < 1
