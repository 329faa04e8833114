"""Whole rounds of models with odd tensors: each is trained as far as it can be, and the rest of it stays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimfleet.compression import BadInput, Evaluation, Examples
from slimfleet.compression.tensors import tensors_of

INF = torch.inf


class Around:
    """A task around a model: two classes of four numbers."""

    name = "around"
    partitions = 4

    def __init__(self, build, examples: int = 24) -> None:
        self.build_model, self._examples = build, examples

    def example_inputs(self) -> tuple[Tensor, ...]:
        return (torch.zeros(1, 4),)

    def load(self, partition: int) -> Examples:
        targets = torch.arange(self._examples + (partition > 0)) % 2
        rng = torch.Generator().manual_seed(partition)
        inputs = torch.randn(len(targets), 4, generator=rng) + (2.0 * targets - 1).view(-1, 1)
        return Examples(inputs, targets)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(outputs, targets)

    def evaluate(self, model: nn.Module) -> Evaluation:
        with torch.no_grad():
            outputs = model(torch.ones(1, 4) * torch.tensor([[-1.0], [1.0]]))
        return Evaluation(
            float(self.loss(outputs, torch.arange(2))),
            float((outputs.argmax(1) == torch.arange(2)).float().mean()),
        )


class Net(nn.Module):
    """A perceptron, with room for something odd."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.o = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.o(self.a(x).relu())


class Scaled(Net):
    """Trains a number."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.same = self.scale
        self.register_buffer("seen", torch.tensor(0.0))
        self.register_buffer("flag", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += 1
            self.flag.fill_(True)
        return super().forward(x) * self.scale


class Masked(Net):
    """A causal mask, and the extremes that an observer has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.full((4, 4), -INF).triu(1))
        self.register_buffer("unknown", torch.tensor([torch.nan, 1.0]))
        self.register_buffer("low", torch.tensor(INF))
        self.register_buffer("high", torch.tensor(-INF))
        self.register_buffer("never", torch.tensor(-INF))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x).relu()
        if self.training:
            self.low.copy_(torch.minimum(self.low, h.detach().min()))
            self.high.copy_(torch.maximum(self.high, h.detach().max()))
        return self.o(h)


class Empty(Net):
    def __init__(self) -> None:
        super().__init__()
        self.none = nn.Parameter(torch.zeros(0, 3))
        self.fixed = nn.Parameter(torch.zeros(3, 0), requires_grad=False)
        self.register_buffer("nothing", torch.zeros(0))
        self.register_buffer("no_index", torch.zeros(0, 2, dtype=torch.long))


class Phase(Net):
    """Weights of complex numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.turn = nn.Parameter(torch.ones(8, dtype=torch.complex64) * 1j)
        self.register_buffer("root", torch.tensor([1j, -1j]))

    def forward(self, x: Tensor) -> Tensor:
        return self.o((self.a(x) * self.turn).abs())


class Half(Net):
    """Statistics in half precision, of data at the end of its range."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_var", torch.tensor([60_000.0], dtype=torch.float16))
        self.register_buffer("wide", torch.tensor([1e300**0.1], dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.running_var += 3_000
            self.wide *= 10
        return super().forward(x)


class Brain(Net):
    """Weights that numpy has no type for."""

    def __init__(self) -> None:
        super().__init__()
        self.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.bfloat16()).float()


class Thawing(Net):
    """Lets go of a layer in mid-training."""

    def __init__(self) -> None:
        super().__init__()
        self.a.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.a.requires_grad_(True)
        return super().forward(x)


def plain_of(federation) -> dict[str, np.ndarray]:
    return federation.state.server.model()


@pytest.mark.parametrize("server", [{}, {"optimizer": "fedadam"}, {"averaging": 0.0}, {"averaging": 0.5}])
@pytest.mark.parametrize("model", [Scaled, Masked, Empty, Phase, Half, Brain], ids=lambda m: m.__name__)
def test_it_is_trained_and_resumes_with_the_same_bytes(model, server, federate, tmp_path: Path):
    federation = federate(trained=Around(model), server=server)
    before = plain_of(federation)
    rows = federation.run(2)
    assert [(row.completed, row.rejected, row.failed) for row in rows] == [(4, 0, 0)] * 2
    for name, array in plain_of(federation).items():
        assert isinstance(array, np.ndarray)
        assert (array.dtype, array.shape) == (before[name].dtype, before[name].shape)
    assert np.isfinite(rows[-1].loss)
    federation.save(tmp_path / "checkpoint")
    expected = federation.run(1), federation.state_bytes()
    again = federate(trained=Around(model), server=server)
    again.restore(tmp_path / "checkpoint")
    assert again.run(1)[0].downlink_bytes == expected[0][0].downlink_bytes
    assert again.state_bytes() == expected[1]


def test_a_number_is_trained_and_tied_to_its_other_name(federate):
    federation = federate(trained=Around(Scaled))
    federation.run(2)
    model, shipped = plain_of(federation), federation.coordinator.published()
    assert model["scale"] != 1
    assert model["scale"] == model["same"]
    assert shipped["scale"] == shipped["same"] != 1
    assert model["seen"] > 0
    assert model["flag"]


def test_buffers_hold_what_they_hold(federate):
    federation = federate(trained=Around(Masked))
    before = plain_of(federation)
    federation.run(3)
    for tensors in (plain_of(federation), federation.coordinator.published()):
        for name in ("mask", "unknown", "never"):
            np.testing.assert_array_equal(tensors[name], before[name])
        assert 0 <= tensors["low"] < 1e-6  # the least of a ReLU
        assert 0.5 < tensors["high"] < 50


def test_what_stays_as_it_is_costs_nothing_after_the_first_round(federate):
    def constant(size):
        class Large(Masked):
            def __init__(self) -> None:
                super().__init__()
                self.mask = torch.full((size, size), -INF).triu(1)
                self.register_buffer("index", torch.arange(size * size).view(size, size))

        return Large

    small, large = (federate(trained=Around(constant(n)), state=str(n)).run(3) for n in (4, 100))
    assert large[0].downlink_bytes > small[0].downlink_bytes + 4 * 100 * 100
    for one, other in zip(small, large, strict=True):
        assert abs(one.uplink_bytes - other.uplink_bytes) < 16
    assert abs(small[2].downlink_bytes - large[2].downlink_bytes) < 16


def test_a_frozen_layer_is_sent_once_and_stays(federate):
    def frozen() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 200), nn.ReLU(), nn.Linear(200, 200), nn.Linear(200, 2))
        model[0].requires_grad_(False)
        model[2].requires_grad_(False)
        return model

    federation = federate(trained=Around(frozen), planner={"widths": [1.0]})
    before = plain_of(federation)
    rows = federation.run(3)
    head = 4 * (200 * 2 + 2)
    assert rows[0].downlink_bytes > 4 * 2 * 200 * 200
    assert all(row.downlink_bytes < 4 * (head + 100) for row in rows[1:])
    assert all(row.uplink_bytes < row.uplink_bytes_float32 == 4 * head for row in rows)
    after = plain_of(federation)
    assert {name for name in before if not np.array_equal(before[name], after[name])} == {
        "3.weight",
        "3.bias",
    }


def test_what_a_task_thaws_in_training_stays_frozen(federate):
    federation = federate(trained=Around(Thawing))
    before = plain_of(federation)
    assert [row.completed for row in federation.run(2)] == [4, 4]
    after = plain_of(federation)
    assert np.array_equal(before["a.weight"], after["a.weight"])
    assert not np.array_equal(before["o.weight"], after["o.weight"])


def test_complex_weights_turn(federate):
    federation = federate(trained=Around(Phase))
    federation.run(2)
    turn = plain_of(federation)["turn"]
    assert turn.shape == (8, 2)
    assert (turn[:, 1] != 1).any()
    assert plain_of(federation)["root"].tolist() == [[0, 1], [0, -1]]
    built = federation.coordinator.blueprint.model
    assert tensors_of(built)["turn"][:, 0].tolist() == [0.0] * 8


class Growing(Net):
    """An observer by channel, which takes its shape from the first batch."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.zeros(0))

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        if self.training:
            self.low = h.detach().amin(0)
        return self.o(h)


def test_a_buffer_that_training_gives_another_shape_is_named_by_every_device(federate):
    federation = federate(trained=Around(Growing))
    for _ in range(2):
        for answer in federation.round().answers:
            assert (answer.verdict, answer.reason) == ("failed", "schema")
            assert answer.message.startswith("tensor 'low' is float32[")


def test_statistics_in_half_precision_stay_numbers(federate):
    federation = federate(trained=Around(Half), planner={"local_steps": [1]})
    federation.run(4)
    assert plain_of(federation)["running_var"] == 63_000  # what overflows on a device is not sent
    assert np.isfinite(plain_of(federation)["wide"])


def normalised() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))


@pytest.mark.parametrize(
    ("examples", "batch"),
    [(17, 16), (16, 16), (1, 16), (9, 1)],
    ids=["one over", "none over", "one", "singles"],
)
def test_batch_normalisation_kills_no_device(examples, batch, federate):
    planner = {"batch_sizes": [batch], "local_steps": [3], "max_epochs": 3}
    federation = federate(trained=Around(normalised, examples), planner=planner)
    closed = [federation.round() for _ in range(2)]
    for answer in (answer for each in closed for answer in each.answers):
        assert (answer.verdict, answer.message) == ("accepted", "")
        assert answer.report.steps == answer.dispatch.assignment.plan.local_steps
    assert (plain_of(federation)["1.running_var"] > 0).all()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Net().requires_grad_(False), "without parameters to train"),
        (lambda: nn.ParameterList([torch.zeros(0, 3)]), "without parameters to train"),
        (
            lambda: with_tensors(p=nn.Parameter(torch.tensor([1.0, -INF]))),
            "'p' is trained and holds NaN or infinity",
        ),
        (
            lambda: with_tensors(p=nn.Parameter(torch.tensor(1e31))),
            "'p' holds 1e[+]31, the limit is 1.27e[+]30",
        ),
        (
            lambda: with_tensors(b=torch.tensor(1e300, dtype=torch.float64)),
            "'b' holds 1e[+]300, the limit is 3.4e[+]38",
        ),
        (lambda: with_tensors(**{"a\nb": torch.zeros(1)}), r"'a\\nb' has a name that is not printable"),
        (
            lambda: with_tensors(**{f"t{i}": torch.zeros(0) for i in range(2**16)}),
            "65,540 tensors, the limit is 65,535",
        ),
        (lambda: with_tensors(b=torch.zeros(1).expand(2**31)), "elements, whose payload may take"),
    ],
    ids=["frozen", "empty", "infinite", "large", "wide", "name", "tensors", "elements"],
)
def test_what_no_round_could_carry_is_said_before_the_first(build, words, federate):
    with pytest.raises(BadInput, match=words) as refusal:
        federate(trained=Around(build))
    assert "\n" not in str(refusal.value)


def with_tensors(**tensors: Tensor) -> nn.Module:
    model = Net()
    for name, tensor in tensors.items():
        if isinstance(tensor, nn.Parameter):
            model.register_parameter(name, tensor)
        else:
            model.register_buffer(name, tensor)
    return model
