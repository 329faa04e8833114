"""Engine `cohort`: devices in a few messages, trained together, their updates added up where they are computed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from driven import coordinator_of, driven, small
from flwr.app import Message

from slimfleet.coordinator import Answer, Coordinator
from slimfleet.coordinator.transport.flower import run
from slimfleet.simulations import Scenario
from slimfleet.simulations.grids import flower
from slimfleet.simulations.grids.cohort.orders import GROUPS
from slimfleet.simulations.grids.cohort.packing import CohortPacking
from slimfleet.simulations.grids.flower import (
    WORKER_CRASHED,
    EngineGrid,
    error_reply,
    fleet_app,
)
from slimfleet.simulations.grids.local import LocalEngine
from slimfleet.simulations.world import node_of

FAULTS = ("raise", "truncated", "replayed", "not_a_number", "scaled_up", "late")


class Counting(LocalEngine):
    """Counts messages; those that `loses` names by number are lost with their worker."""

    def __init__(self, app: object, loses: tuple[int, ...] = ()) -> None:
        super().__init__(app)  # type: ignore[arg-type]
        self.sent: list[Message] = []
        self._loses = loses

    def collect(self, timeout_s: float) -> list[Message]:
        work = [each for each in self._waiting if each.metadata.message_type == "train.cohort"]
        if work and self._waiting[0] is work[0]:
            self.sent.append(work[0])
            if len(self.sent) in self._loses:
                self._waiting.popleft()
                return [error_reply(work[0], WORKER_CRASHED, "the worker died")]
        return super().collect(timeout_s)


def played(
    scenario: Scenario, out: Path, workers: int = 1, group_size: int = 4, loses: tuple[int, ...] = ()
) -> tuple[Coordinator, list[Answer], Counting]:
    """Run a scenario by the engine `cohort` as if there were so many workers."""
    coordinator = coordinator_of(scenario)
    world, answers = coordinator.environment, list[Answer]()
    engine = Counting(fleet_app(scenario, out), loses)
    out.mkdir(parents=True, exist_ok=True)
    packing = CohortPacking(coordinator, lambda nodes: {}, lambda plan: group_size, workers)
    grid = EngineGrid([node_of(number) for number in range(scenario.fleet.devices)], engine)

    def note(event: object) -> None:
        if isinstance(event, Answer):
            answers.append(event)

    assert world.now_s() == 0
    run(coordinator, grid, None, [note], everyone=True, packing=packing)
    return coordinator, answers, engine


def bytes_of(coordinator: Coordinator) -> bytes:
    return b"".join(array.tobytes() for array in coordinator.published().values())


def verdicts(answers: list[Answer]) -> Counter[tuple[int, str, str]]:
    return Counter(
        (each.dispatch.node if each.dispatch else 0, each.outcome, each.reason) for each in answers
    )


def test_it_learns_what_the_plain_loop_learns_in_fewer_messages(tmp_path: Path) -> None:
    scenario = small(planner__nmse="[0.0]", codec__feedback="false")
    coordinator, answers, engine = played(scenario, tmp_path)
    told: list[Answer] = []
    plain = driven(
        scenario, observers=[lambda event: told.append(event) if isinstance(event, Answer) else None]
    )
    for name, array in plain.published().items():
        assert np.allclose(coordinator.published()[name], array, rtol=1e-4, atol=1e-6)
    assert verdicts(answers) == verdicts(told)
    spent = [
        sorted((a.report.spent.energy_j, a.report.steps) for a in each if a.report)
        for each in (answers, told)
    ]
    assert spent[0] == spent[1]
    assert len(engine.sent) < len(answers)


@pytest.mark.parametrize("options", [{"codec__feedback": "false", "planner__nmse": "[0.0]"}, {}])
def test_the_bytes_depend_on_no_number_of_messages(tmp_path: Path, options: dict[str, str]) -> None:
    scenario = small(planner__widths="[1.0, 0.5]", fleet__dropout="0.3", **options)
    one, _, few = played(scenario, tmp_path / "one", workers=1, group_size=2)
    three, _, many = played(scenario, tmp_path / "three", workers=3, group_size=2)
    assert bytes_of(one) == bytes_of(three)
    assert len(few.sent) < len(many.sent)


def test_two_workers_have_as_much_to_do(tmp_path: Path) -> None:
    """Twelve devices in threes at most: four groups of three, eight of one or two where two is the most."""
    scenario = small(
        planner__policy='"fixed"', planner__batch_sizes="[4]", planner__local_steps="[2]", fleet__dropout="0.0",
        fleet__devices="12", selection__per_round="12", fleet__availability="1.0", selection__battery_floor="0.0",
    )  # fmt: skip
    for most, groups in ((12, [12]), (6, [6, 6]), (5, [3, 3, 3, 3]), (2, [2, 1, 2, 1, 2, 1, 2, 1])):
        _, _, engine = played(scenario, tmp_path / str(most), workers=1, group_size=most)
        work = GROUPS.validate_json(str(engine.sent[0].content.config_records["cohort"]["groups"]))
        assert sorted(map(len, work)) == sorted(groups)


def test_sums_are_what_the_coordinator_makes_of_the_updates_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hostile devices among them: the same verdicts, and the same bytes."""
    shares = ", ".join(f"{fault} = 0.1" for fault in FAULTS)
    scenario = small(fleet__faults=f"{{{shares}}}", fleet__devices="20", selection__per_round="15")
    summed, answers, engine = played(scenario, tmp_path / "summed")
    assert any("rules" in each.content.config_records["cohort"] for each in engine.sent)
    monkeypatch.setattr(Coordinator, "rules", lambda self: None)
    single, singly, _ = played(scenario, tmp_path / "single")
    assert verdicts(answers) == verdicts(singly)
    assert {each.outcome for each in answers} > {"done", "rejected"}
    assert bytes_of(summed) == bytes_of(single)


@pytest.mark.parametrize(
    "pace",
    [
        {"pacing__mode": '"asynchronous"', "pacing__buffer": "3", "pacing__concurrency": "6"},
        {"pacing__surplus": "2"},
        {"server__aggregation": '"median"'},
    ],
)
def test_where_each_update_counts_by_itself_each_travels(tmp_path: Path, pace: dict[str, str]) -> None:
    scenario = small(**pace)
    coordinator, answers, engine = played(scenario, tmp_path)
    assert all("rules" not in each.content.config_records["cohort"] for each in engine.sent)
    assert len(coordinator.state.rows) == 3
    assert sum(each.outcome == "done" for each in answers) >= 9


def test_a_lost_worker_costs_its_message_and_every_device_is_accounted_for(tmp_path: Path) -> None:
    coordinator, answers, _ = played(small(), tmp_path, workers=3, group_size=2, loses=(1,))
    lost = [each for each in answers if each.reason == "worker"]
    assert 0 < len(lost) < 6
    assert sum(row.selected for row in coordinator.state.rows) == len(answers)


def test_a_lot_with_an_answer_that_nobody_awaits_counts_for_nothing(tmp_path: Path) -> None:
    from slimfleet.coordinator.learning.covered_sum import PartialSum
    from slimfleet.coordinator.receiving.lot import Judged, Lot

    coordinator = coordinator_of(small())
    for number in range(4):
        coordinator.state.registry.register(
            node_of(number), coordinator.environment._fleet[node_of(number)].profile, 8
        )
    planned = coordinator.plan(0.0, 2)
    ids = [planned.dispatches[0].plan_id, 12345]
    judged = [
        Judged(
            plan_id=plan_id,
            verdict="accepted",
            reason="",
            message="",
            report=None,
            received_bytes=1,
            broken=(),
            norms=None,
        )
        for plan_id in ids
    ]
    answers = coordinator.receive_lot(Lot(judged, PartialSum({}, 2, 2)))
    assert [each.verdict for each in answers] == ["failed", "rejected"]
    assert coordinator.state.open_round is not None
    assert coordinator.state.open_round.mean.updates == 0


@pytest.mark.parametrize(
    ("device", "there", "where"), [("cpu", True, "cpu"), ("auto", False, "cpu"), ("auto", True, "cuda")]
)
def test_a_gpu_is_used_where_it_is_asked_for_and_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, there: bool, where: str
) -> None:
    used: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(flower, "CohortRounds", used.append)
    fleet_app(small(run__device=f'"{device}"'), tmp_path)
    assert used == [torch.device(where)]
