"""Devices that misbehave are rejected, counted under a reason and named; the rest of the round is unharmed."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from slimfleet.simulations import RunRecord, Scenario, load_scenario, simulate

EXPECTED = {
    "truncated": ("rejected", {"truncated", "checksum", "header"}),
    "bit_flipped": ("rejected", {"checksum"}),
    "wrong_schema": ("rejected", {"schema"}),
    "stale": ("rejected", {"stale"}),
    "replayed": ("rejected", {"replay"}),
    "not_a_number": ("rejected", {"nonfinite"}),
    "oversized": ("rejected", {"oversized"}),
    "raise": ("failed", {"error"}),
    "late": ("failed", {"late"}),
}
FAULTY = 4


def scenario_with(fault: str) -> Scenario:
    unlimited = {
        f"{table}.{limit}": '"none"'
        for table in ("budget", "budget.class.phone-low")
        for limit in ("energy_j", "uplink_bytes", "downlink_bytes")
    }
    return load_scenario(
        "digits",
        unlimited
        | {
            "rounds": "1",
            "fleet.devices": "40",
            "selection.per_round": "40",
            "selection.battery_floor": "0.0",
            "fleet.availability": "1.0",
            "fleet.dropout": "0.0",
            "budget.deadline_s": "120.0",
            "fleet.faults": f"{{ {fault} = 0.1 }}",
        },
    )


def run(fault: str, out: Path) -> RunRecord:
    return simulate(scenario_with(fault), out)[0]


@pytest.fixture(scope="module")
def model_without_them(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The model of a round in which the same devices raise, so that nothing of theirs can be used."""
    out = tmp_path_factory.mktemp("raising") / "out"
    run("raise", out)
    return (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("fault", EXPECTED)
def test_a_fault_is_counted_and_named_and_harms_no_other_device(
    fault: str, tmp_path: Path, model_without_them: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="slimfleet"):
        record = run(fault, tmp_path / "out")
    where, reasons = EXPECTED[fault]
    counts = getattr(record, where)
    assert set(counts) <= reasons
    assert sum(counts.values()) == FAULTY
    assert record.rows[0].completed == record.rows[0].selected - FAULTY
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == model_without_them
    named = [
        message for message in caplog.messages if "node" in message and any(r in message for r in counts)
    ]
    assert len(named) == FAULTY or where == "failed"
    culprits = [row for row in record.device_rows if row.rejections or row.failures]
    assert len(culprits) == FAULTY
