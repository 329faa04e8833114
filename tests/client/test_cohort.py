import copy

import numpy as np
import pytest
import torch
from torch import nn

from slimfleet.client.cohort.rounds import CohortRounds, Job, rehearsed
from slimfleet.client.cohort.stacked import Stacked
from slimfleet.client.device import Device
from slimfleet.client.ledger import Balance
from slimfleet.client.policy import Policy
from slimfleet.client.store import MemoryStore
from slimfleet.client.watch import Watch
from slimfleet.client.workbench import Workbench
from slimfleet.compression import (
    Assignment,
    Budget,
    BudgetExceeded,
    Examples,
    Plan,
    PolicyRefusal,
    Training,
)
from slimfleet.compression.codec import CodecSpec, decode, encode
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.pruning import pack_channels, select_channels
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.tensors import tensors_of
from slimfleet.compression.types import Condition
from slimfleet.compression.wire import Envelope, PayloadKind
from slimfleet.simulations.ledger import SimulatedLedger


class Pictures:
    """Pictures in three classes, for any model; device n has 30 + 10 * (n % 2) of them."""

    name, partitions = "pictures", 8

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    def build_model(self) -> nn.Module:
        return copy.deepcopy(self._model)

    def example_inputs(self):
        return (torch.zeros(1, 1, 8, 8),)

    def load(self, partition: int) -> Examples:
        rng = torch.Generator().manual_seed(partition)
        targets = torch.arange(30 + 10 * (partition % 2)) % 3
        return Examples(
            torch.randn(len(targets), 1, 8, 8, generator=rng) + targets.view(-1, 1, 1, 1), targets
        )

    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)

    def evaluate(self, model):
        raise NotImplementedError


def cnn(*more: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        *more,
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, groups=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
        nn.ReLU(),
        nn.Linear(10, 3),
    )


ALLOWS_ALL, UNLIMITED = Policy(), Budget()


class Fleet:
    """Devices of one task, and what a coordinator sends them."""

    def __init__(self, phone, model: nn.Module, policy: Policy = ALLOWS_ALL, level: float = 1.0) -> None:
        self.task = Pictures(model)
        self.architecture = blueprint(self.task, seed=1)
        self.workbench = Workbench(self.task, self.architecture, RUNTIMES["lite"])
        self.phone, self.store = phone, MemoryStore()
        self.watch = Watch(policy, lambda number, spent: sensed(spent, level))

    def device(self, number: int, store: MemoryStore | None = None) -> Device:
        ledger = lambda a: SimulatedLedger(self.phone, a.budget.power_w, 0.5)  # noqa: E731
        kept = self.store if store is None else store
        return Device(number, self.phone, self.workbench, kept, ledger, watch=self.watch)

    def work(self, plan_id, round_number=1, width=1.0, budget=UNLIMITED, steps=4, **training):
        plan = Plan(
            width=width, local_steps=steps, batch_size=8, nmse=0.0 if not training.get("feedback") else 0.1
        )
        assignment = Assignment(
            round_number=round_number,
            plan_id=plan_id,
            plan=plan,
            budget=budget,
            training=Training(**{"learning_rate": 0.1, "feedback": False} | training),
            acknowledged_round=round_number - 1 or None,
        )
        channels = select_channels(self.architecture.groups, width, "prefix")
        index_map = self.architecture.index_map(channels)
        model = index_map.shrink(tensors_of(self.architecture.model))
        side = pack_channels(self.architecture.groups, channels)
        envelope = Envelope(kind=PayloadKind.MODEL, base_version=round_number, side=side)
        return assignment, encode(model, index_map.schema, CodecSpec(bits=32), envelope=envelope).payload

    def update(self, payload, width: float = 1.0):
        index_map = self.architecture.index_map(select_channels(self.architecture.groups, width, "prefix"))
        return decode(payload, index_map.moving.schema).tensors


def sensed(spent: Balance, level: float):
    from datetime import time

    return Condition(battery=level - spent.energy_j / 1e3, charging=False), time()


def agree(mine, reference) -> bool:
    return all(
        np.abs(mine[name] - value).max() <= 1e-4 * max(float(np.abs(value).max()), 1e-3)
        for name, value in reference.items()
    )


@pytest.mark.parametrize("training", [{}, {"momentum": 0.0, "proximal": 0.5}])
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_devices_trained_together_do_what_each_does_alone(phone, width, training):
    fleet = Fleet(phone, cnn())
    jobs = [Job(fleet.device(n), *fleet.work(20 + n, width=width, steps=3 + n, **training)) for n in range(6)]
    together = CohortRounds().together([jobs])
    for job, (payload, report) in zip(jobs, together, strict=True):
        alone, said = job.device.do_round(job.assignment, job.payload)
        assert agree(fleet.update(payload, width), fleet.update(alone, width))
        assert report.loss == pytest.approx(said.loss, rel=1e-4)
        assert (report.spent, report.phases, report.examples) == (said.spent, said.phases, said.examples)


def test_a_device_sends_the_same_whoever_is_trained_beside_it(phone):
    fleet = Fleet(phone, cnn())
    jobs = [Job(fleet.device(n), *fleet.work(20 + n)) for n in (0, 2, 4, 6)]
    all_four = CohortRounds().together([jobs])
    others = CohortRounds().together([jobs[2:]])
    assert [sent[0] for sent in all_four[2:]] == [sent[0] for sent in others]


def test_feedback_keeps_its_residual_per_device(phone):
    fleet = Fleet(phone, cnn())
    alone = MemoryStore()
    for number in (1, 2, 3):
        jobs = [Job(fleet.device(n), *fleet.work(10 * number + n, number, feedback=True)) for n in range(4)]
        CohortRounds().together([jobs])
        for n, job in enumerate(jobs):
            fleet.device(n, alone).do_round(job.assignment, job.payload)
    for n in range(4):
        mine, reference = fleet.store.load(n).residual, alone.load(n).residual
        assert mine is not None
        assert reference is not None
        assert mine.round_number == 3
        size = sum(float(np.square(each).sum()) for each in reference.after.values())
        apart = sum(float(np.square(mine.after[k] - v).sum()) for k, v in reference.after.items())
        assert size > 0
        assert apart < 0.2 * size


def test_each_device_stops_where_its_own_budget_says_so(phone):
    fleet = Fleet(phone, cnn())
    _, whole = fleet.device(2).do_round(*fleet.work(1, steps=8))
    tight = Budget(energy_j=whole.spent.energy_j)  # the last step must leave a margin
    none = Budget(energy_j=1e-6)
    jobs = [
        Job(fleet.device(0), *fleet.work(20, steps=8)),
        Job(fleet.device(2), *fleet.work(21, budget=tight, steps=8)),
        Job(fleet.device(4), *fleet.work(22, budget=none, steps=8)),
    ]
    together = CohortRounds().together([jobs])
    for job, outcome in zip(jobs[:2], together[:2], strict=True):
        _, said = job.device.do_round(job.assignment, job.payload)
        assert (outcome[1].steps, outcome[1].stopped_by) == (said.steps, said.stopped_by)
    assert together[1][1].steps < together[0][1].steps
    assert isinstance(together[2], BudgetExceeded)
    with pytest.raises(BudgetExceeded) as refused:
        jobs[2].device.do_round(jobs[2].assignment, jobs[2].payload)
    assert together[2].spent == refused.value.spent
    assert str(together[2]) == str(refused.value)


def test_a_policy_forbids_a_device_among_others(phone):
    fleet = Fleet(phone, cnn(), Policy(battery_floor=0.9), level=0.5)
    outcomes = CohortRounds().together([[Job(fleet.device(n), *fleet.work(n)) for n in range(2)]])
    assert all(isinstance(each, PolicyRefusal) and each.spent is not None for each in outcomes)


def test_what_cannot_be_stacked_is_trained_by_the_loop_to_the_same_bytes(phone):
    for more in (nn.BatchNorm2d(6), nn.Dropout(0.5)):
        fleet = Fleet(phone, cnn(more))
        jobs = [Job(fleet.device(n), *fleet.work(20 + n)) for n in range(2)]
        together = CohortRounds().together([jobs])
        alone = [job.device.do_round(job.assignment, job.payload) for job in jobs]
        assert [sent[0] for sent in together] == [sent[0] for sent in alone]


def test_one_devices_fault_is_not_anothers(phone):
    fleet = Fleet(phone, cnn())
    assignment, payload = fleet.work(20)
    spoiled = payload[:-1] + bytes([payload[-1] ^ 1])
    jobs = [Job(fleet.device(0), assignment, spoiled), Job(fleet.device(2), *fleet.work(21))]
    bad, good = CohortRounds().together([jobs])
    assert isinstance(bad, Exception)
    assert bad.reason == "checksum"
    assert good[0] == CohortRounds().together([jobs[1:]])[0][0]


def test_a_loss_that_is_none_for_several_devices_leaves_them_to_the_loop():
    task = Pictures(cnn())
    assert rehearsed(task, task.build_model(), task.load(0)) is not None
    task.loss = lambda outputs, targets: outputs.sum() * (1.0 if targets.sum() > 0 else 2.0)
    assert rehearsed(task, task.build_model(), task.load(0)) is None


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Softmax(1)),
        nn.Sequential(
            nn.Conv2d(1, 3, 8, padding=4, padding_mode="circular"), nn.Flatten(), nn.Linear(243, 3)
        ),
        nn.Sequential(nn.Flatten(0)),
    ],
)
def test_layers_that_are_not_known_are_not_stacked(model):
    assert Stacked.of(model, (torch.zeros(2, 1, 8, 8),)) is None
