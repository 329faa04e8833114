"""Round on one device, as one pure function: Flower, Ray and a plain loop all call it.

The received model is built at the plan's width and trained while a ledger keeps account and a guard watches the
budget; the change goes through the codec, and what the codec drops becomes the new residual.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from slimfleet.client.guard import BudgetGuard
from slimfleet.client.ledger import Ledger
from slimfleet.client.training import Trained, local_sgd
from slimfleet.client.workbench import SubModel, Workbench
from slimfleet.compression import (
    Assignment,
    BudgetExceeded,
    Cost,
    DeviceProfile,
    Payload,
    PayloadError,
    Report,
    Tensors,
)
from slimfleet.compression.codec import Aim, Coding, Encoded, add_residual, encode_to, residual_after
from slimfleet.compression.cost import Work, peak_memory_bytes
from slimfleet.compression.difference import changed
from slimfleet.compression.held_out import LocalData, evaluated
from slimfleet.compression.tensors import tensors_of
from slimfleet.compression.training import prepared, shuffled_places
from slimfleet.compression.types import Evaluated
from slimfleet.compression.wire import Envelope


def run_round(
    workbench: Workbench,
    profile: DeviceProfile,
    data: LocalData,
    assignment: Assignment,
    sub: SubModel,
    residual: Tensors,
    ledger: Ledger,
) -> tuple[Payload, Report, Tensors]:
    """Do one round; return the encoded update, the report, and the residual that holds once it is accepted.

    Where the assignment says so, the model is evaluated on examples held out before it is trained. `sub` is the shrunk
    global model as `workbench` opened it, and is trained in place; `residual` is what earlier
    rounds left unsent, float32 in full shapes. Neither it nor the workbench's blueprint is changed.

    Raises PayloadError when training diverges or gives a tensor another shape, BudgetExceeded when not even one step
    fits the budget or the coarsest update is too large.
    """
    round_ = Round(workbench, profile, data, assignment, sub, residual, ledger)
    begun = round_.begun()
    trained = _train(round_)
    ended = round_.ended(begun, trained, tensors_of(sub.model))
    return ended.encoded.payload, ended.report, ended.leftover


@dataclass(frozen=True, slots=True)
class Begun:
    """What stands before training: the memory that it is predicted to need, and what the received model was worth."""

    memory_bytes: int
    evaluated: Evaluated | None


@dataclass(frozen=True, slots=True)
class Ended:
    """What a device sends, and the residual that holds once it is accepted."""

    encoded: Encoded
    report: Report
    leftover: Tensors


@dataclass(frozen=True, slots=True)
class Round:
    """What goes before training and what comes after it: the same however a device is trained, alone or with others.

    The fields are those of `run_round`.
    """

    workbench: Workbench
    profile: DeviceProfile
    data: LocalData
    assignment: Assignment
    sub: SubModel
    residual: Tensors
    ledger: Ledger

    def begun(self) -> Begun:
        """Enter the download, make sure that training fits the memory, and evaluate what was received."""
        # After the model was built, which is not part of any step.
        self.ledger.download(self.sub.received_bytes)
        memory_bytes = _memory_within(self.workbench, self.sub.work, self.assignment)
        found = _evaluate(self.workbench, self.sub, self.profile, self.data, self.assignment, self.ledger)
        return Begun(memory_bytes, found)

    def guard(self) -> BudgetGuard:
        """The guard of this round, as training begins."""
        batch = min(self.assignment.plan.batch_size, len(self.data.train))
        return BudgetGuard(
            self.assignment.budget,
            self.profile,
            self.sub.work.flops_per_example * batch,
            self.assignment.uplink_limit(self.sub.index_map.schema.moving),
            self.ledger.balance(),
        )

    def stepped(self, guard: BudgetGuard, batch_examples: int) -> None:
        """Enter one local step."""
        self.ledger.train(self.sub.work.flops_per_example * batch_examples)
        guard.stepped(self.ledger.balance())

    def prepare(self) -> bool:
        """Put the model into the mode that it is trained in; whether a batch of one example is of use."""
        return prepared(self.sub.model, self.workbench.task, self.data.train, self.assignment.plan.batch_size)

    def places(self, *, single: bool) -> Iterator[Tensor]:
        """Which examples each batch has, without end; `single` as `prepare` says."""
        assignment = self.assignment
        rng = np.random.default_rng((assignment.training.seed, assignment.plan_id, 0))
        return shuffled_places(len(self.data.train), assignment.plan.batch_size, rng, single=single)

    def ended(self, begun: Begun, trained: Trained, now: Tensors, encoded: Encoded | None = None) -> Ended:
        """Encode what training has made of the model, `now`, and close the account. Raises what `run_round` does.

        What is `encoded` already left nothing unsent.
        """
        _check_trained(trained)
        leftover = self.residual
        if encoded is None:
            encoded, leftover = _encode(self.sub, self.assignment, self.residual, now)
        return Ended(encoded, self._report(begun, trained, len(encoded.payload)), leftover)

    def _report(self, begun: Begun, trained: Trained, sent_bytes: int) -> Report:
        """Enter the upload of so many bytes, and close the account."""
        ledger = self.ledger
        ledger.upload(sent_bytes)
        memory_bytes = ledger.peak_memory_bytes(predicted=begun.memory_bytes)
        balance, source = ledger.close()
        return Report(
            spent=Cost(
                energy_j=balance.energy_j,
                radio_j=balance.radio_j,
                time_s=balance.time_s,
                memory_bytes=memory_bytes,
                uplink_bytes=sent_bytes,
                downlink_bytes=self.sub.received_bytes,
            ),
            source=source,
            loss=trained.loss,
            examples=len(self.data.train),
            steps=trained.steps,
            stopped_by=trained.stopped_by,
            startup=balance.startup,
            phases=balance.phases,
            evaluated=begun.evaluated,
            pauses=balance.pauses or None,
            gross_j=balance.gross_j,
        )


def _memory_within(workbench: Workbench, work: Work, assignment: Assignment) -> int:
    """Predicted peak memory of training, which must fit before it begins."""
    needed = peak_memory_bytes(workbench.runtime, work, assignment.plan.batch_size)
    limit = assignment.budget.memory_bytes
    if limit is not None and needed > limit:
        raise BudgetExceeded(
            "memory_bytes",
            f"training needs {needed} bytes of memory, the budget and the device allow {limit}: plan a narrower model",
        )
    return needed


def _evaluate(
    workbench: Workbench,
    sub: SubModel,
    profile: DeviceProfile,
    data: LocalData,
    assignment: Assignment,
    ledger: Ledger,
) -> Evaluated | None:
    """What the received model makes of examples held out, other ones in each round, for as long as the joules last."""
    limit = assignment.evaluation
    if limit is None or data.held_out is None:
        return None
    flops = sub.work.forward_flops_per_example
    rng = np.random.default_rng((assignment.training.seed, assignment.plan_id, 2))
    places = rng.permutation(len(data.held_out))[: limit.examples]
    begun_j = before_j = ledger.balance().energy_j
    dearest_j = profile.train_w * flops / profile.train_flops_per_s

    def goes_on(done: int) -> bool:
        nonlocal before_j, dearest_j
        if done:
            ledger.evaluate(flops)
            now_j = ledger.balance().energy_j
            dearest_j, before_j = max(dearest_j, now_j - before_j), now_j
        return before_j - begun_j + dearest_j <= limit.energy_j

    drawn = data.held_out.take(torch.from_numpy(places))
    found = evaluated(workbench.task, sub.model, drawn, goes_on)
    if found is not None and found.examples == len(drawn):
        ledger.evaluate(flops)  # of the last one
    return found


def _train(round_: Round) -> Trained:
    """Local training, held to energy and time before every step."""
    sub, assignment, task = round_.sub, round_.assignment, round_.workbench.task
    guard, examples = round_.guard(), round_.data.train
    batches = map(examples.take, round_.places(single=round_.prepare()))
    stepped = partial(round_.stepped, guard)
    return local_sgd(sub.model, task, batches, assignment.plan, assignment.training, guard.binding, stepped)


def _check_trained(trained: Trained) -> None:
    """Raise BudgetExceeded where no step was done, PayloadError where training has diverged."""
    if trained.steps == 0:
        constraint = trained.stopped_by or "local_steps"
        raise BudgetExceeded(constraint, f"not one local step fits the budget: {constraint} binds")
    if not isfinite(trained.loss):
        raise PayloadError(
            "nonfinite", f"training diverged, its loss is {trained.loss}: lower the learning rate"
        )


def _encode(
    sub: SubModel, assignment: Assignment, residual: Tensors, now: Tensors
) -> tuple[Encoded, Tensors]:
    """Encode what training changed plus what was left unsent; return that and what is left unsent now."""
    index_map = sub.index_map.moving
    plan, training, schema = assignment.plan, assignment.training, index_map.schema
    weights = [spec.name for spec in schema.weights]
    now = sub.index_map.schema.check(now)
    update = {
        spec.name: changed(now[spec.name], sub.tensors[spec.name], spec.kind) for spec in schema.tensors
    }
    unsent = index_map.shrink(residual) if training.feedback else {}
    if training.feedback:
        update = add_residual(
            update, {name: unsent[name] for name in weights}, max_norm=training.feedback_max_norm
        )
    encoded = encode_to(
        update,
        schema,
        Aim(nmse=plan.nmse, limit_bytes=assignment.uplink_limit(schema), rounding=training.rounding),
        envelope=envelope_of(assignment),
        coding=Coding(assignment.codec_preset),
        rng=_rounding_rng(assignment),
    )
    if not training.feedback:
        return encoded, residual
    leftover = {name: value.copy() for name, value in residual.items()}
    index_map.assign(leftover, unsent | residual_after(update, encoded.decoded, schema))
    return encoded, leftover


def envelope_of(assignment: Assignment) -> Envelope:
    """What the payload of an answer says about itself."""
    return Envelope(base_version=assignment.round_number, plan_id=assignment.plan_id)


def _rounding_rng(assignment: Assignment) -> np.random.Generator | None:
    """What stochastic rounding draws from."""
    training = assignment.training
    if training.rounding != "stochastic":
        return None
    return np.random.default_rng((training.seed, assignment.plan_id, 1))
