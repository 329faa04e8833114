"""Quantities that may be zero: FLOPs of a model without a matrix product, joules of a radio, gradients, parameters."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from slimfleet.compression import Cost, DeviceProfile, Evaluation, Examples
from slimfleet.compression.cost import SizeObservation, UpdateSizeModel, work_of
from slimfleet.coordinator.learning.calibration import Calibration
from slimfleet.coordinator.planning.explain import explain
from slimfleet.coordinator.settings import settings_of


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] * self.weight


class Still(Scale):
    """Its gradient is zero."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] + 0 * self.weight


class First(nn.Module):
    """The first two features."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2]


class Table(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x[:, 0].abs().long().clamp(0, 6))


class Task:
    """A model for rows of four numbers, two classes."""

    name = "rows"
    partitions = 4

    def __init__(self, model: Callable[[], nn.Module]) -> None:
        self.model = model

    def build_model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.model()

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 4),)

    def load(self, partition: int) -> Examples:
        inputs = torch.randn(20, 4, generator=torch.Generator().manual_seed(partition))
        return Examples(inputs, (inputs[:, 0] > inputs[:, 1]).long())

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        examples = self.load(9)
        outputs = model(examples.inputs).detach()
        return Evaluation(float(self.loss(outputs, examples.targets)), 0.5)


MODELS = {
    "elementwise": Scale,
    "still": Still,
    "embedding": Table,
    "layer norm": lambda: nn.Sequential(nn.LayerNorm(4), First()),
    "batch norm": lambda: nn.Sequential(nn.BatchNorm1d(4), First()),
    "linear": lambda: nn.Linear(4, 2),
}
FREE = {"idle_w": 0.0, "radio_j_per_burst": 0.0, "radio_j_per_byte_up": 0.0, "radio_j_per_byte_down": 0.0}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("changes", [{}, {"radio_j_per_burst": 0.0}, FREE], ids=["radio", "no burst", "free"])
def test_whole_rounds(name: str, changes: dict[str, float], federate, phone: DeviceProfile) -> None:
    profile = replace(phone, **changes)
    federation = federate(
        trained=Task(MODELS[name]),
        profiles=dict.fromkeys((11, 12, 13, 14), profile),
        selection={"policy": "utility"},
        budget={"energy_j": 5.0, "power_w": 1.0, "deadline_s": 60.0},
    )
    for row in federation.run(3):
        assert row.completed == 4
        assert row.energy_j >= row.compute_j >= 0
    # Reports are learned from, whatever of them is zero.
    assert federation.state.calibration.rejected == 0
    assert len(federation.state.calibration.devices) == 4


@pytest.mark.parametrize("name", MODELS)
def test_plans_that_cost_no_joules(name: str, phone: DeviceProfile) -> None:
    settings = settings_of({"budget": {"energy_j": 0.0}}, "the test")
    (found,) = explain(Task(MODELS[name]), [replace(phone, **FREE)], settings, examples=20)
    if name == "linear":
        assert found.choice.constraint == "energy_j"
    else:
        assert found.predicted.energy_j == 0


def test_a_model_without_a_matrix_product_takes_no_flops() -> None:
    for name, model in MODELS.items():
        task = Task(model)
        assert (work_of(task, task.build_model()).flops_per_example > 0) == (name == "linear"), name


def test_what_is_predicted_to_be_nothing_teaches_nothing_but_the_rest_does() -> None:
    predicted = Cost(
        energy_j=1.0, radio_j=1.0, time_s=5.0, memory_bytes=10**8, uplink_bytes=4000, downlink_bytes=40_000
    )
    for energy_j in (1.0, 1.5):
        calibration = Calibration()
        for _ in range(5):
            assert calibration.update(
                "a", "phone", predicted, replace(predicted, energy_j=energy_j, time_s=10.0)
            )
            calibration.close_round()
        correction = calibration.correction("a", "phone")
        assert correction.time.value == pytest.approx(2.0, rel=0.05)
        assert correction.energy.value == 1.0


def test_an_update_without_parameters_has_a_size() -> None:
    sizes = UpdateSizeModel().learn([SizeObservation(0.1, 0, 100, "a"), SizeObservation(0.1, 0, 128, "b")])
    assert sizes.predict(0, 0.1) > 0
