"""The resident device's parts: how it waits, what it keeps of a finished plan, and whose word it asks first."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from slimfleet.client.gateway.backoff import Backoff
from slimfleet.client.gateway.calling import Away
from slimfleet.client.gateway.outbox import Finished, Outbox
from slimfleet.client.gateway.resident import FORBIDDEN_S, Resident
from slimfleet.compression import Condition
from slimfleet.compression.device_api import CheckInResponse, Plan, Wait

PLAN = Plan(plan_id=7, assignment_json="{}", model_bytes=3, model_sha256=b"abc")
DONE = Finished(report_json='{"a": 1}', update=b"up\ndate")


def test_waits_double_up_to_a_limit_and_differ_between_devices():
    waits = [Backoff(random.Random(seed), 1.0, 60.0).next_s() for seed in range(20)]
    assert len(set(waits)) == 20
    backoff = Backoff(random.Random(0), 1.0, 60.0)
    for number in range(2_000):
        most_s = min(2.0 ** min(number, 10), 60.0)
        assert most_s / 2 <= backoff.next_s() <= most_s
    backoff.reset()
    assert backoff.next_s() <= 1.0


def test_a_finished_plan_is_kept_for_that_plan_alone(tmp_path):
    box = Outbox(tmp_path)
    assert box.answer_to(PLAN) is None
    box.keep(PLAN, DONE)
    assert Outbox(tmp_path).answer_to(PLAN) == DONE
    # Another federation counts its plans from the same number on.
    for other in ({"assignment_json": '{"seed": 1}'}, {"model_sha256": b"abd"}):
        changed = Plan()
        changed.CopyFrom(PLAN)
        for name, value in other.items():
            setattr(changed, name, value)
        assert box.answer_to(changed) is None
    kept = (tmp_path / "outbox.bin").read_bytes()
    for damaged in (kept[:-1], kept[1:], b"", b"\xff", kept.replace(b"date", b"dats")):
        (tmp_path / "outbox.bin").write_bytes(damaged)
        assert box.answer_to(PLAN) is None


class Gateway:
    """Answers in turn with what a test gives it; raises what is an error."""

    def __init__(self, *answers) -> None:
        self.answers, self.asked = list(answers), []

    def check_in(self, registration_json, condition_json):
        self.asked.append(registration_json)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def resident(tmp_path):
    def make(gateway, forbidden=lambda: None):
        slept = []
        made = Resident(
            gateway, "me", Outbox(tmp_path), lambda: None, lambda: (Condition(), forbidden()),
            Backoff(random.Random(0), 1.0, 60.0), slept.append,
        )  # fmt: skip
        return made, slept

    return make


def test_a_device_asks_its_policy_before_it_calls(resident):
    gateway, words = Gateway(CheckInResponse(wait=Wait(seconds=3.0))), ["it is in quiet_hours", None]
    device, slept = resident(gateway, lambda: words.pop(0))
    device.turn()
    assert (gateway.asked, slept) == ([], [FORBIDDEN_S])
    device.turn()
    assert (gateway.asked, slept) == (["me"], [FORBIDDEN_S, 3.0])


def test_a_device_introduces_itself_once_and_where_it_is_asked(resident, caplog):
    wait, again = CheckInResponse(wait=Wait()), CheckInResponse(wait=Wait(introduce=True))
    gateway = Gateway(Away("cut"), Away("cut"), wait, wait, again, wait, wait)
    device, slept = resident(gateway)
    with caplog.at_level("INFO"):
        for _ in range(7):
            device.turn()
    assert gateway.asked == ["me", "me", "me", "", "", "me", ""]
    assert 0.5 <= slept[0] <= 1.0 <= slept[1] <= 2.0
    assert caplog.text.count("the gateway: cut") == 1


def test_an_answer_that_a_device_does_not_know_is_waited_out(resident, caplog):
    """Of a later version: neither a plan nor a wait."""
    device, slept = resident(Gateway(CheckInResponse(), CheckInResponse()))
    with caplog.at_level("INFO"):
        device.turn()
        device.turn()
    assert 0.5 <= slept[0] <= 1.0 <= slept[1] <= 2.0
    assert "made for a newer device: update this one" in caplog.text


def test_a_device_that_waits_has_loaded_neither_arrays_nor_torch():
    """A third of the 60 MB that an idle device may take would be numpy."""
    code = (
        "import sys, slimfleet.client.cli, slimfleet.client.gateway.described, slimfleet.client.gateway.introducing;"
        "print(sorted({'numpy', 'torch', 'flwr', 'rich'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
