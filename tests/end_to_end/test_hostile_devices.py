"""Devices that misbehave are rejected, counted under a reason and named; the rest of the round is unharmed."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from slimfleet.coordinator import Answer, Event
from slimfleet.simulations import RunRecord, Scenario, load_scenario, simulate
from slimfleet.simulations.faults import FAULTS, assign_faults
from slimfleet.simulations.world import node_of

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
"""Every fault but `hang`, which takes real time: test_backends.py has it."""
DEVICES = 40
FAULTY = 3
"""Devices of the fleet that have each fault."""
ALL_FAULTS = dict.fromkeys(EXPECTED, FAULTY / DEVICES)


def scenario_with(faults: Mapping[str, float]) -> Scenario:
    unlimited = {
        f"{table}.{limit}": '"none"'
        for table in ("budget", "budget.class.phone-low")
        for limit in ("energy_j", "uplink_bytes", "downlink_bytes")
    }
    shares = ", ".join(f"{fault} = {share}" for fault, share in faults.items())
    return load_scenario(
        "digits",
        unlimited
        | {
            "rounds": "1",
            "fleet.devices": str(DEVICES),
            "selection.per_round": str(DEVICES),
            "selection.battery_floor": "0.0",
            "fleet.availability": "1.0",
            "fleet.dropout": "0.0",
            "budget.deadline_s": "120.0",
            "fleet.faults": f"{{ {shares} }}",
        },
    )


@dataclass(frozen=True)
class HostileRound:
    """What a round of misbehaving devices left behind."""

    record: RunRecord
    answers: Mapping[int, Answer]
    """By node."""
    model: bytes
    log: Sequence[str]

    def misbehaving(self, fault: str) -> list[int]:
        """The devices that have this fault."""
        faults = assign_faults(ALL_FAULTS, DEVICES, self.record.seed)
        return [number for number, found in faults.items() if found is FAULTS[fault]]


def run(faults: Mapping[str, float], out: Path) -> HostileRound:
    answers: dict[int, Answer] = {}

    def watch(event: Event) -> None:
        if isinstance(event, Answer) and event.dispatch is not None:
            answers[event.dispatch.node] = event

    log = out.parent / f"{out.name}.log"
    with logged_to(log):
        record, _ = simulate(scenario_with(faults), out, observers=[watch])
    model = (out / "model.safetensors").read_bytes()
    return HostileRound(record, answers, model, log.read_text().splitlines())


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """What slimfleet logs goes to a file as well."""
    logger, handler = logging.getLogger("slimfleet"), logging.FileHandler(path)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> HostileRound:
    """One round with every fault in it."""
    return run(ALL_FAULTS, tmp_path_factory.mktemp("hostile") / "out")


@pytest.mark.parametrize("fault", EXPECTED)
def test_a_fault_is_counted_and_named(fault: str, hostile: HostileRound) -> None:
    verdict, reasons = EXPECTED[fault]
    culprits = hostile.misbehaving(fault)
    assert len(culprits) == FAULTY
    for number in culprits:
        answer, row = hostile.answers[node_of(number)], hostile.record.device_rows[number]
        assert answer.verdict == verdict
        assert answer.reason in reasons
        assert row.participations == 0
        assert (row.rejections, row.failures) == ((1, 0) if verdict == "rejected" else (0, 1))
        shared = [each.name for each in hostile.record.device_rows].count(row.name) > 1
        label = f"{row.name}, node {node_of(number)}" if shared else row.name
        named = [line for line in hostile.log if f"{label} {verdict} ({answer.reason})" in line]
        assert len(named) == 1


def test_the_others_are_unharmed_and_the_counts_are_those_of_the_faults(
    hostile: HostileRound, tmp_path: Path
) -> None:
    """The same model as where the same devices raise, so that nothing of theirs can be used."""
    faulty = FAULTY * len(EXPECTED)
    record = hostile.record
    assert record.rows[0].selected == DEVICES
    assert record.rows[0].completed == DEVICES - faulty
    given = Counter(answer.reason for answer in hostile.answers.values() if answer.verdict == "rejected")
    assert record.rejected == given
    assert sum(given.values()) == 7 * FAULTY
    assert record.failed == {"error": FAULTY, "late": FAULTY}
    assert sum(row.rejections + row.failures for row in record.device_rows) == faulty
    raising = run({"raise": faulty / DEVICES}, tmp_path / "out")
    assert raising.record.failed == {"error": faulty}
    assert raising.record.rows[0].completed == DEVICES - faulty
    assert raising.model == hostile.model
