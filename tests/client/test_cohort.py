import copy

import numpy as np
import pytest
import torch
from torch import nn

from slimfleet.client.cohort import rounds
from slimfleet.client.cohort.forms import CPU, rehearsed
from slimfleet.client.cohort.rounds import CohortRounds, Job
from slimfleet.client.cohort.rule import usual_group, vmap_pays
from slimfleet.client.cohort.stacked import Stacked
from slimfleet.client.cohort.training import torch_device
from slimfleet.client.cohort.vmapped import Vmapped
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
from slimfleet.compression.cost import RUNTIMES, Work
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


class Attention(nn.Module):
    """Attention by hand over the rows of a picture, and a place embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.places, self.norm = nn.Embedding(8, 8), nn.LayerNorm(8)
        self.project, self.fc = nn.Linear(8, 24), nn.Linear(8, 3)

    def forward(self, pictures):
        rows = pictures[:, 0] + self.places(torch.arange(8))
        query, key, value = self.project(self.norm(rows)).chunk(3, -1)
        mixed = torch.softmax(query @ key.transpose(1, 2) / 8**0.5, -1) @ value
        return self.fc((rows + mixed).mean(1))


class Rows(nn.Module):
    """A GRU over the rows of a picture; the mean of its outputs, and its last state."""

    def __init__(self, **options) -> None:
        super().__init__()
        self.first_dimension_is_rows = not options.get("batch_first", False)
        self.gru, self.fc = nn.GRU(8, 6, **options), nn.Linear(6, 3)

    def forward(self, pictures):
        rows = pictures[:, 0].transpose(0, 1) if self.first_dimension_is_rows else pictures[:, 0]
        outputs, last = self.gru(rows)
        return self.fc(outputs.mean(0 if self.first_dimension_is_rows else 1) + last[-1])


class Residual(nn.Module):
    """Turned pictures, batch normalisation, a residual sum and a mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.second, self.fc = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.Linear(6, 3)

    def forward(self, pictures):
        hidden = torch.relu(self.norm(self.first(pictures.transpose(2, 3))))
        return self.fc((hidden + self.second(hidden)).mean(dim=(2, 3)))


def flat(*more: nn.Module) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), *more, nn.ReLU(), nn.Linear(12, 3))


def seeded(make) -> nn.Module:
    torch.manual_seed(3)
    return make()


MODELS = {
    "plain": (cnn, Stacked),
    "batch norm": (lambda: cnn(nn.BatchNorm2d(6)), Stacked),
    "group norm": (lambda: cnn(nn.GroupNorm(3, 6)), Stacked),
    "batch norm of vectors": (lambda: flat(nn.BatchNorm1d(12)), Stacked),
    "layer norm": (lambda: flat(nn.LayerNorm(12)), Stacked),
    "residual": (lambda: seeded(Residual), Stacked),
    "attention": (lambda: seeded(Attention), Vmapped),
    "gru": (lambda: seeded(lambda: Rows(batch_first=True)), Vmapped),
    "gru, steps first": (lambda: seeded(Rows), Vmapped),
    "vmapped batch norm": (lambda: flat(nn.Unflatten(1, (12, 1)), nn.BatchNorm1d(12), nn.Flatten()), Vmapped),
}


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


def compared(fleet: Fleet, jobs: list[Job], width: float = 1.0) -> None:
    """Devices together do what each does alone."""
    together = CohortRounds().together([jobs])
    for job, sent in zip(jobs, together, strict=True):
        alone, said = job.device.do_round(job.assignment, job.payload)
        update, report = fleet.update(sent.payload, width), sent.report
        assert agree(update, fleet.update(alone, width))
        if sent.update is not None:
            assert all(np.array_equal(value, update[name]) for name, value in sent.update.items())
        assert report.loss == pytest.approx(said.loss, rel=1e-4)
        assert (report.spent, report.phases, report.examples) == (said.spent, said.phases, said.examples)


@pytest.mark.parametrize("training", [{}, {"momentum": 0.0, "proximal": 0.5}])
@pytest.mark.parametrize("width", [1.0, 0.5])
def test_devices_trained_together_do_what_each_does_alone(phone, width, training):
    fleet = Fleet(phone, cnn())
    compared(
        fleet,
        [Job(fleet.device(n), *fleet.work(20 + n, width=width, steps=3 + n, **training)) for n in range(6)],
        width,
    )


@pytest.mark.parametrize("kind", MODELS)
def test_each_form_does_what_the_model_does(phone, kind):
    make, form = MODELS[kind]
    fleet = Fleet(phone, make())
    found = rehearsed(fleet.task, fleet.task.build_model(), fleet.task.load(0), vmaps=True)
    assert type(found) is form
    assert form is Stacked or rehearsed(fleet.task, make(), fleet.task.load(0), vmaps=False) is None
    compared(fleet, [Job(fleet.device(n), *fleet.work(20 + n, steps=5 + n)) for n in range(4)])


@pytest.mark.parametrize("kind", ["batch norm of vectors", "vmapped batch norm"])
def test_batches_of_one_leave_running_statistics_as_they_are(phone, kind):
    """Among devices of larger batches, in one group."""
    fleet = Fleet(phone, MODELS[kind][0]())
    whole = fleet.task.load
    fleet.task.load = lambda partition: whole(partition).take(slice(1 if partition % 2 else None))
    jobs = [Job(fleet.device(n), *fleet.work(20 + n)) for n in range(6)]
    compared(fleet, jobs)
    names = [spec.name for spec in fleet.architecture.schema.moving.tensors if "running" in spec.name]
    for n, sent in enumerate(CohortRounds().together([jobs])):
        moved = any(np.abs(fleet.update(sent.payload)[name]).max() > 0 for name in names)
        assert moved == (n % 2 == 0)


def test_a_form_with_other_gradients_is_not_used(phone, monkeypatch):
    task = Pictures(cnn())
    honest = Stacked.losses

    def other(self, state, inputs, targets):
        weight = state["0.weight"]
        return honest(self, state, inputs, targets) + 0.01 * (weight - weight.detach()).sum((1, 2, 3, 4))

    monkeypatch.setattr(Stacked, "losses", other)
    assert rehearsed(task, task.build_model(), task.load(0), vmaps=False) is None


def test_frozen_parameters_stay(phone):
    model = cnn()
    model[0].weight.requires_grad_(False)
    fleet = Fleet(phone, model)
    compared(fleet, [Job(fleet.device(n), *fleet.work(20 + n)) for n in range(3)])


def test_the_form_hangs_on_no_devices_data(phone, monkeypatch):
    """Whoever comes first: other workers meet the devices in another order."""
    tried = []

    def noted(task, model, examples, **options):
        tried.append((tensors_of(model)["0.weight"], examples))
        return rehearsed(task, model, examples, **options)

    monkeypatch.setattr(rounds, "rehearsed", noted)
    fleet = Fleet(phone, cnn())
    CohortRounds().together([[Job(fleet.device(n), *fleet.work(n)) for n in (3, 5, 7)]])
    ((weight, examples),) = tried
    assert np.array_equal(weight, tensors_of(fleet.architecture.model)["0.weight"])
    assert torch.equal(examples.targets, fleet.task.load(0).targets)


def work(activation_bytes: float, parameter_bytes: float = 4) -> Work:
    return Work(
        flops_per_example=1.0,
        activation_bytes_per_example=activation_bytes,
        parameter_bytes=int(parameter_bytes),
        parameters=1,
    )


def test_groups_are_the_smaller_the_larger_activations_are():
    sizes = [usual_group(work(each), 8, CPU) for each in (1e2, 3e5, 1e6, 1e9)]
    assert sizes[0] > sizes[1] > sizes[2] > sizes[3]
    assert usual_group(work(3e5), 16, CPU) < usual_group(work(3e5), 8, CPU)


@pytest.mark.parametrize(
    ("activation_bytes", "parameter_bytes", "batch_size", "devices"),
    [
        (1e2, 1e2, 8, 32),
        (1e5, 1e3, 8, 20),
        (1e3, 1e6, 8, 16),
        (1.3e5, 272e3, 20, 5),
        (1e6, 1e6, 20, 4),
        (1e7, 1e7, 32, 2),
    ],
)
def test_groups_hang_on_the_shape_of_the_work_alone(activation_bytes, parameter_bytes, batch_size, devices):
    """The same on every machine and in every run: no clock has a say."""
    assert usual_group(work(activation_bytes, parameter_bytes), batch_size, CPU) == devices


def test_vmap_is_for_small_models_without_convolutions():
    assert vmap_pays(flat(), work(1e3), 8, CPU)
    assert not vmap_pays(flat(), work(1e6), 8, CPU)
    assert vmap_pays(Rows(), work(1e6), 8, CPU)
    assert not vmap_pays(Rows(), work(1e7), 8, CPU)
    assert not vmap_pays(cnn(), work(1e3), 8, CPU)
    assert torch_device("cpu") == CPU


def test_a_device_sends_the_same_whoever_is_trained_beside_it(phone):
    fleet = Fleet(phone, cnn())
    jobs = [Job(fleet.device(n), *fleet.work(20 + n)) for n in (0, 2, 4, 6)]
    all_four = CohortRounds().together([jobs])
    others = CohortRounds().together([jobs[1:]])
    assert [sent.payload for sent in all_four[1:]] == [sent.payload for sent in others]


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
        assert (outcome.report.steps, outcome.report.stopped_by) == (said.steps, said.stopped_by)
    assert together[1].report.steps < together[0].report.steps
    assert isinstance(together[2], BudgetExceeded)
    with pytest.raises(BudgetExceeded) as refused:
        jobs[2].device.do_round(jobs[2].assignment, jobs[2].payload)
    assert together[2].spent == refused.value.spent
    assert str(together[2]) == str(refused.value)


def test_a_policy_forbids_a_device_among_others(phone):
    fleet = Fleet(phone, cnn(), Policy(battery_floor=0.9), level=0.5)
    outcomes = CohortRounds().together([[Job(fleet.device(n), *fleet.work(n)) for n in range(2)]])
    assert all(isinstance(each, PolicyRefusal) and each.spent is not None for each in outcomes)


@pytest.mark.parametrize(
    "model",
    [
        cnn(nn.Dropout(0.5)),
        cnn(nn.InstanceNorm2d(6, track_running_stats=True)),
        seeded(lambda: Rows(num_layers=2)),
    ],
)
def test_what_has_no_form_is_trained_by_the_loop_to_the_same_bytes(phone, model):
    fleet = Fleet(phone, model)
    jobs = [Job(fleet.device(n), *fleet.work(20 + n)) for n in range(4)]
    together = CohortRounds().together([jobs[:3], jobs[3:]])
    alone = [job.device.do_round(job.assignment, job.payload) for job in jobs]
    assert [sent.payload for sent in together] == [payload for payload, _ in alone]


def test_one_devices_fault_is_not_anothers(phone):
    fleet = Fleet(phone, cnn())
    assignment, payload = fleet.work(20)
    spoiled = payload[:-1] + bytes([payload[-1] ^ 1])
    jobs = [Job(fleet.device(0), assignment, spoiled), Job(fleet.device(2), *fleet.work(21))]
    bad, good = CohortRounds().together([jobs])
    assert isinstance(bad, Exception)
    assert bad.reason == "checksum"
    assert good.payload == CohortRounds().together([jobs[1:]])[0].payload


def test_a_loss_that_is_none_for_several_devices_leaves_them_to_the_loop():
    task = Pictures(cnn())
    assert rehearsed(task, task.build_model(), task.load(0), vmaps=True) is not None
    task.loss = lambda outputs, targets: outputs.sum() * (1.0 if targets.sum() > 0 else 2.0)
    assert rehearsed(task, task.build_model(), task.load(0), vmaps=True) is None


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
    assert Stacked.of(model, nn.functional.cross_entropy, (torch.zeros(2, 1, 8, 8),)) is None
