"""Calls of a device over a link that loses some, there or back or in mid-upload, and carries others twice."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from slimfleet.client.gateway.calling import Away, Declined
from slimfleet.compression.device_api import CheckInResponse, Plan, ReportRequest

SHARE = 0.05
"""Of each kind of trouble, of the calls that it can happen to."""


class Lossy:
    """The calls of `Connection`. What happened is told to `note`, in one word with the number of the plan."""

    def __init__(self, calls, rng: random.Random, note: Callable[[str, int], None]) -> None:
        self._calls, self._rng, self._note = calls, rng, note
        self._before: list[tuple[Plan, bytes, bytes, ReportRequest]] = []
        self._upload: tuple[Plan, bytes, bytes] | None = None
        self.happened: Counter[str] = Counter()

    def check_in(self, registration_json: str, condition_json: str) -> CheckInResponse:
        """Ask for work."""
        self._lose("call lost")
        answer = self._calls.check_in(registration_json, condition_json)
        if answer.WhichOneof("next") == "plan":
            self._lose("answer lost")
        return answer

    def download(self, plan: Plan, there: bytearray) -> None:
        """Fetch a model."""
        self._lose("call lost")
        self._calls.download(plan, there)

    def received(self, plan: Plan, sha256: bytes) -> int:
        """How many bytes of an update have come."""
        return self._calls.received(plan, sha256)

    def upload(self, plan: Plan, sha256: bytes, update: bytes, offset: int) -> int:
        """Send an update, or a part of it."""
        self._upload = plan, sha256, update
        if self._happens("upload cut"):
            cut = self._rng.randint(offset, len(update))
            self._calls.upload(plan, sha256, update[:cut], offset)
            raise Away("cut")
        return self._calls.upload(plan, sha256, update, offset)

    def report(self, request: ReportRequest) -> None:
        """Report, perhaps twice, and perhaps once more what an earlier round has reported."""
        self._lose("call lost")
        if self._before and self._happens("old answer again"):
            self._replay(*self._rng.choice(self._before))
        self._calls.report(request)
        self._note("reported", request.plan_id)
        if self._upload is not None:
            self._before.append((*self._upload, request))
        if self._happens("report twice"):
            self._calls.report(request)
        self._lose("answer lost")

    def _replay(self, plan: Plan, sha256: bytes, update: bytes, request: ReportRequest) -> None:
        """An answer that has been used is sent again: no byte of it may be taken."""
        try:
            self._calls.upload(plan, sha256, update, 0)
        except Declined as declined:
            self._note(f"old upload {declined.status}", plan.plan_id)
        else:
            self._note("old upload taken", plan.plan_id)
        try:
            self._calls.report(request)
        except Declined as declined:
            self._note(f"old report {declined.status}", plan.plan_id)
        else:
            self._note("old report answered", plan.plan_id)

    def _lose(self, what: str) -> None:
        if self._happens(what):
            raise Away(what)

    def _happens(self, what: str) -> bool:
        happens = self._rng.random() < SHARE
        self.happened[what] += happens
        if happens:
            self._note(what, -1)
        return happens
