"""The benchmark of many devices: its account finds what is lost or counted twice, and its links lose what they say."""

import json
import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from crowd.account import account
from crowd.lossy import Lossy
from crowd.memory import of_rounds, resident_mb
from crowd.page import Run, draw, page, verdicts

from slimfleet.client.gateway.calling import Away, Declined
from slimfleet.compression.device_api import CheckInResponse, Plan, ReportRequest

SERVER = [
    {"given": 0, "at": 0.0}, {"given": 1, "at": 0.0},
    {"answer": 1, "verdict": "accepted", "at": 1.0}, {"answer": 0, "verdict": "accepted", "at": 1.0},
    {"closed": 1, "used": [0, 1], "at": 2.0},
]  # fmt: skip
DEVICES = [
    [{"what": "trained", "plan": 0}, {"what": "reported", "plan": 0}, {"what": "call lost", "plan": -1}],
    [{"what": "trained", "plan": 1}, {"what": "reported", "plan": 1}],
]


def told(server=SERVER, devices=DEVICES):
    return account(map(json.dumps, server), [list(map(json.dumps, each)) for each in devices])


def test_an_account_that_balances():
    found = told()
    assert found.wrong() == []
    assert found.trouble == {"call lost": 1}
    assert found.closed_at == (2.0,)


@pytest.mark.parametrize(
    ("server", "devices", "wrong"),
    [
        (SERVER[:3] + SERVER[4:], DEVICES, "1 plans were not accepted"),
        ([*SERVER, SERVER[2]], DEVICES, "1 plans were accepted more than once"),
        ([*SERVER[:4], {"closed": 1, "used": [0, 1, 1], "at": 2.0}], DEVICES, "1 plans were used more than once"),
        ([*SERVER[:4], {"closed": 1, "used": [0], "at": 2.0}], DEVICES, "1 plans were not used"),
        ([*SERVER, {"answer": None, "verdict": "rejected", "at": 2.0}], DEVICES, "1 answers were not accepted"),
        (SERVER, DEVICES[:1], "1 plans were not trained"),
        (SERVER, [*DEVICES, [{"what": "trained", "plan": 1}]], "1 plans were trained more than once"),
        (SERVER, [*DEVICES, [{"what": "trained", "plan": 9}]], "1 plans were trained that were never given"),
        (SERVER, [*DEVICES, [{"what": "old upload taken", "plan": 1}]], "1 times: old upload taken"),
    ],
)  # fmt: skip
def test_an_account_says_what_is_wrong(server, devices, wrong):
    assert wrong in told(server, devices).wrong()


class Gateway:
    """Takes everything, and no upload for a plan that has been reported."""

    def __init__(self) -> None:
        self.came, self.reports = bytearray(), Counter()

    def check_in(self, registration_json, condition_json):
        return CheckInResponse(plan=Plan(plan_id=len(self.reports)))

    def upload(self, plan, sha256, update, offset):
        if plan.plan_id in self.reports:
            raise Declined("NOT_FOUND", "unknown_plan")
        self.came[offset:] = update[offset:]
        return len(update)

    def report(self, request):
        self.reports[request.plan_id] += 1


def test_a_lossy_link_loses_calls_on_either_way_and_repeats_others():
    gateway, told = Gateway(), []
    calls = Lossy(gateway, random.Random(0), lambda what, plan_id: told.append((what, plan_id)))
    for number in range(400):
        plan, gateway.came = Plan(plan_id=number), bytearray()
        for step in (
            lambda: calls.check_in("", ""),
            lambda plan=plan: calls.upload(plan, b"", b"0123456789", len(gateway.came)),
            lambda plan=plan: calls.report(ReportRequest(plan_id=plan.plan_id)),
        ):
            for _ in range(20):
                try:
                    step()
                except Away:
                    continue
                break
        assert bytes(gateway.came) == b"0123456789"
    said = Counter(what for what, _ in told)
    assert min(said[what] for what in ("call lost", "answer lost", "upload cut", "report twice")) >= 5
    assert said["old upload NOT_FOUND"] == said["old answer again"] == said["old report answered"] >= 5
    assert {plan for what, plan in told if what == "reported"} == set(range(400)) == gateway.reports.keys()
    assert gateway.reports.total() == 400 + sum(
        said[what] for what in ("report twice", "old report answered")
    ) + (said["reported"] - 400)


def test_memory_is_that_of_a_process_and_of_its_rounds(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "status").write_text("Name:\tx\nVmRSS:\t  2000 kB\n")
    assert resident_mb(7, tmp_path) == 2.048
    assert resident_mb(8, tmp_path) is None
    samples = [(0.5, 90.0), (1.5, 10.0), (1.6, 11.0), (1.7, 30.0), (2.5, 12.0)]
    assert of_rounds(samples, [1.0, 2.0, 3.0]) == [11.0, 12.0]


def test_the_page_tells_what_does_not_hold(tmp_path):
    rounds = replace(told(), closed_at=(2.0, 3.0, 4.0, 5.0))
    samples = [(begin + 0.5, 100.0) for begin, _ in pairwise(range(7))]
    run = Run(1, 2, 1, rounds, samples, 0.0, 6.0, "", "rounds = 2\n")
    assert not any(verdicts(run).values())
    assert "**no**" not in page(run)
    worse = replace(run, devices=2, differs="fc.weight", samples=[(a, b + 10 * a) for a, b in samples])
    assert page(worse).count("**no**") == 3
    draw(run, tmp_path / "crowd.png")
    assert (tmp_path / "crowd.png").stat().st_size > 5_000
