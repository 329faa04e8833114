"""Devices whose updates are rejected are asked less, and the reason is shown."""

from __future__ import annotations

import pytest

from slimfleet.compression.types import Skip
from slimfleet.coordinator.planning.reputation import blemish, sits_out
from slimfleet.coordinator.registry import DeviceRecord

ROUNDS = range(1, 2001)


@pytest.fixture
def record(phone) -> DeviceRecord:
    return DeviceRecord(node=11, profile=phone, examples=10)


@pytest.mark.parametrize("rejected", [0, 1, 2, 3, 4])
def test_each_rejection_of_late_halves_how_often_it_is_asked(rejected, record):
    for used in [False] * rejected + [True] * (4 - rejected):
        record.judged(used)
    asked = sum(sits_out(record, 0, number) is None for number in ROUNDS)
    assert asked / len(ROUNDS) == pytest.approx(0.5**rejected, rel=0.2)


def test_four_accepted_updates_restore_it(record):
    for used in [False] * 9 + [True] * 4:
        record.judged(used)
    assert all(sits_out(record, 0, number) is None for number in ROUNDS)
    assert blemish(record) == ""


def test_the_draw_is_one_of_the_round_and_the_device(record, phone):
    other = DeviceRecord(node=12, profile=phone, examples=10)
    for each in (record, other):
        each.judged(False)
    mine, its = ([sits_out(each, 0, number) is None for number in ROUNDS] for each in (record, other))
    assert mine == [sits_out(record, 0, number) is None for number in ROUNDS] != its
    assert mine != [sits_out(record, 1, number) is None for number in ROUNDS]


@pytest.mark.parametrize("policy", ["uniform", "utility"])
def test_a_device_that_spoils_its_updates_is_asked_less_and_told_why(policy, federate):
    federation = federate(selection={"policy": policy})
    asked = 0
    for _ in range(12):
        for dispatch in federation.plan().dispatches:
            if dispatch.node == 11:
                asked += 1
                payload, text = federation.answer(dispatch)
                federation.receive(dispatch, payload[:-9], text)
            else:
                federation.work(dispatch)
        federation.step()
    record, honest = federation.state.registry[11], federation.state.registry[12]
    assert record.rejections == asked < 8
    assert record.skips == 12 - asked == federation.state.totals.skipped["reputation"]
    assert honest.participations == 12
    assert record.used == (False,) * min(asked, 4)
    assert "asked less" in record.last_reason
    assert "asked less" not in honest.last_reason
    assert Skip(constraint="reputation", needed=3, limit=4).reason == (
        "reputation: asked less, 3 of its last 4 rejected or silent"
    )


def test_where_it_is_asked_all_the_same_its_reason_says_so(federate, monkeypatch):
    federation = federate()
    federation.run(1)
    federation.state.registry[11].judged(False)
    monkeypatch.setattr("slimfleet.coordinator.planning.assigning.sits_out", lambda *_: None)
    federation.plan()
    assert federation.state.registry[11].last_reason.endswith(
        "; asked less: 1 of its last 2 rejected or silent"
    )
    assert "asked less" not in federation.state.registry[12].last_reason


def test_it_can_be_turned_off(federate):
    federation = federate(selection={"reputation": False})
    for _ in range(4):
        federation.state.registry[11].judged(False)
    assert len(federation.plan().dispatches) == 4
    assert "asked less" not in federation.state.registry[11].last_reason


def test_it_outlasts_a_restart(federate, tmp_path):
    federation = federate()
    federation.run(1)
    federation.state.registry[11].judged(False)
    federation.save(tmp_path / "kept")
    resumed = federate()
    resumed.restore(tmp_path / "kept")
    assert resumed.state.registry[11].used == (True, False)
