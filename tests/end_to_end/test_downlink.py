"""Devices that come back are sent changes: fewer bytes, and a model as good."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimfleet.simulations import RunRecord, load_scenario, simulate

CHANGES = {
    "rounds": "8",
    "fleet.devices": "20",
    "selection.per_round": "12",
    "planner.widths": "[1.0]",
    "planner.local_steps": "[8]",
    "budget.downlink_bytes": '"none"',
    "budget.class.phone-low.downlink_bytes": '"none"',
}


def run(out: Path, history: int) -> RunRecord:
    scenario = load_scenario("digits", CHANGES | {"codec.downlink_history": str(history)})
    return simulate(scenario, out)[0]


@pytest.mark.slow
def test_returning_devices_save_downlink_bytes_and_no_accuracy(tmp_path: Path) -> None:
    whole, changes = run(tmp_path / "whole", 0), run(tmp_path / "changes", 32)
    assert "stale" not in changes.failed
    assert changes.rows[0].downlink_bytes == whole.rows[0].downlink_bytes
    later = [sum(row.downlink_bytes for row in record.rows[3:]) for record in (whole, changes)]
    assert later[1] < 0.75 * later[0]
    reached = [record.rows[-1].trailing_accuracy or 0.0 for record in (whole, changes)]
    assert abs(reached[1] - reached[0]) < 0.03
