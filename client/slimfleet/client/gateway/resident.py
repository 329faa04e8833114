"""Resident device: one process that asks for work, does it, and comes back however often it is cut off."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from slimfleet.client.gateway.backoff import Backoff
from slimfleet.client.gateway.calling import Away, Declined
from slimfleet.client.gateway.outbox import Finished, Outbox
from slimfleet.compression import PayloadError
from slimfleet.compression.device_api import CheckInResponse, Done, Plan, Refusal, ReportRequest
from slimfleet.compression.messages import text_of
from slimfleet.compression.types import Condition

if TYPE_CHECKING:
    from slimfleet.client.device import Participant

__all__ = ["Resident"]

FORBIDDEN_S = 30.0
"""How often a device looks whether its own policy allows work again."""

log = logging.getLogger("slimfleet")


class Calls(Protocol):
    """The device API, as `Connection` has it."""

    def check_in(self, registration_json: str, condition_json: str) -> CheckInResponse: ...
    def download(self, plan: Plan, there: bytearray) -> None: ...
    def received(self, plan: Plan, sha256: bytes) -> int: ...
    def upload(self, plan: Plan, sha256: bytes, update: bytes, offset: int) -> int: ...
    def report(self, request: ReportRequest) -> None: ...


class Resident:
    """A device that lives by its gateway's word and its owner's.

    `registration_json` is how it introduces itself. `look` finds its condition, and why its policy allows no work now,
    None where it does. `at_work` makes it ready for rounds, which may load much, and is called for
    every plan. `sleep` takes seconds.
    """

    def __init__(
        self,
        calls: Calls,
        registration_json: str,
        outbox: Outbox,
        at_work: Callable[[], Participant],
        look: Callable[[], tuple[Condition, str | None]],
        backoff: Backoff,
        sleep: Callable[[float], None],
    ) -> None:
        self._calls, self._registration_json, self._outbox = calls, registration_json, outbox
        self._at_work, self._look, self._backoff, self._sleep = at_work, look, backoff, sleep
        self._is_known = False
        self._model_sha256, self._model = b"", bytearray()
        """What has come of a model."""
        self._cut: str | None = None
        """Why the last attempt failed; told once in a row."""

    def stay(self) -> None:
        """Go on for ever."""
        while True:
            self.turn()

    def turn(self) -> None:
        """Ask for work once, and do it; wait where there is none, or the gateway is away."""
        condition, forbidden = self._look()
        if forbidden is not None:
            self._tell(f"asks for no work: {forbidden}")
            self._sleep(FORBIDDEN_S)
            return
        try:
            answer = self._calls.check_in(
                "" if self._is_known else self._registration_json, text_of(condition)
            )
            self._is_known = True
            kind = answer.WhichOneof("next")
            if kind is None:
                raise Away("its answer is made for a newer device: update this one")
            if kind == "plan":
                self._answer(answer.plan)
            else:
                self._is_known = not answer.wait.introduce
                self._sleep(max(answer.wait.seconds, 0.0))
            self._backoff.reset()
            self._cut = None
        except (Away, Declined) as error:
            wait_s = self._backoff.next_s()
            self._tell(f"the gateway: {error}")
            self._sleep(wait_s)

    def _answer(self, plan: Plan) -> None:
        """Bring a plan to its end, from wherever an earlier attempt came to."""
        log.debug("plan %d has come", plan.plan_id)
        finished = self._outbox.answer_to(plan)
        if finished is None:
            finished = self._done(plan)
            self._outbox.keep(plan, finished)
        try:
            self._deliver(plan, finished)
        except Declined as declined:
            if declined.status not in ("NOT_FOUND", "FAILED_PRECONDITION"):
                raise
            log.info("plan %d is not awaited as it is: %s", plan.plan_id, declined)
            self._sleep(self._backoff.next_s())

    def _done(self, plan: Plan) -> Finished:
        from slimfleet.client.refusing import LONGEST_MESSAGE, REFUSALS, reason_of, round_line
        from slimfleet.compression import Assignment, Payload
        from slimfleet.compression.messages import parse

        try:
            assignment = parse(Assignment, plan.assignment_json)
            if assignment.plan_id != plan.plan_id:
                raise PayloadError("message", f"plan {plan.plan_id} comes with the assignment of another")
            # Ready before the model is fetched: the first time takes seconds, in which a link need not be up.
            device = self._at_work()
            payload, report = device.do_round(assignment, Payload(self._fetched(plan)))
        except REFUSALS as refusal:
            log.info("plan %d is refused (%s): %s", plan.plan_id, reason_of(refusal), refusal)
            return Finished(
                reason=reason_of(refusal),
                message=str(refusal)[:LONGEST_MESSAGE],
                spent_json="" if refusal.spent is None else text_of(refusal.spent),
            )
        log.info("round %d: %s", assignment.round_number, round_line(assignment, payload, report))
        return Finished(report_json=text_of(report), update=payload)

    def _fetched(self, plan: Plan) -> bytes:
        """The model of a plan; what came before a cut is not fetched again."""
        if self._model_sha256 != plan.model_sha256:
            self._model_sha256, self._model = plan.model_sha256, bytearray()
        if len(self._model) < plan.model_bytes:
            self._calls.download(plan, self._model)
        model = bytes(self._model)
        if hashlib.sha256(model).digest() != plan.model_sha256:
            self._model_sha256 = b""
            raise Away(f"the model came in {len(model)} bytes that are not it")
        return model

    def _deliver(self, plan: Plan, finished: Finished) -> None:
        if finished.reason:
            refusal = Refusal(
                reason=finished.reason, message=finished.message, spent_json=finished.spent_json
            )
            self._calls.report(ReportRequest(plan_id=plan.plan_id, refusal=refusal))
            return
        sha256 = hashlib.sha256(finished.update).digest()
        there, size = self._calls.received(plan, sha256), len(finished.update)
        log.debug("plan %d: %d of %d bytes of its update are there", plan.plan_id, there, size)
        if there < size:
            self._calls.upload(plan, sha256, finished.update, there)
        done = Done(report_json=finished.report_json, update_sha256=sha256)
        self._calls.report(ReportRequest(plan_id=plan.plan_id, done=done))

    def _tell(self, what: str) -> None:
        """Tell of a state once, and not again at every look."""
        if what != self._cut:
            log.info("%s", what)
        self._cut = what
