import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from slimfleet.compression.cost import measure_work, work_of


def cnn(channels: int, hidden: int) -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(channels * 16, hidden), nn.ReLU(), nn.Linear(hidden, 10)),
    )


INPUTS = (torch.zeros(1, 1, 8, 8),)


def test_flops_of_a_linear_layer_by_hand() -> None:
    # Forward 2·6·4, backward the same for the weights' gradient; that of the input is not computed.
    work = measure_work(nn.Linear(6, 4), (torch.zeros(1, 6),), nn.functional.cross_entropy)
    assert work.flops_per_example == 2 * 48
    assert (work.parameters, work.parameter_bytes) == (28, 112)


def test_activations_are_counted_once_per_storage_and_without_parameters() -> None:
    # Kept per example: the input (6 floats), the ReLU's output, shared with the second layer (4 floats), the
    # log-probabilities (3 floats) and the int64 target.
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    work = measure_work(model, (torch.zeros(1, 6),), nn.functional.cross_entropy)
    assert work.activation_bytes_per_example == 6 * 4 + 4 * 4 + 3 * 4 + 8


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpointed_segment_keeps_its_input(reentrant: bool) -> None:
    class Checkpointed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.below, self.above = (
                nn.Linear(6, 5),
                nn.Sequential(nn.Linear(5, 50), nn.ReLU(), nn.Linear(50, 3)),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return checkpoint(self.above, self.below(x), use_reentrant=reentrant)

    # The two inputs, the log-probabilities and the target.
    work = measure_work(Checkpointed(), (torch.zeros(1, 6),), nn.functional.cross_entropy)
    assert work.activation_bytes_per_example == 6 * 4 + 5 * 4 + 3 * 4 + 8


def test_work_falls_with_width_between_linearly_and_quadratically() -> None:
    full = measure_work(cnn(16, 32), INPUTS, nn.functional.cross_entropy)
    half = measure_work(cnn(8, 16), INPUTS, nn.functional.cross_entropy)
    assert 0.25 < half.flops_per_example / full.flops_per_example < 0.5
    assert 0.25 < half.parameters / full.parameters < 0.5
    assert 0.45 < half.activation_bytes_per_example / full.activation_bytes_per_example < 0.65


def test_work_is_the_slope_of_a_real_step() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = cnn(16, 32)
    counter = FlopCounterMode(display=False)
    with counter:
        nn.functional.cross_entropy(model(torch.zeros(5, 1, 8, 8)), torch.zeros(5).long()).backward()
    work = measure_work(model, INPUTS, nn.functional.cross_entropy)
    assert counter.get_total_flops() == 5 * work.flops_per_example


def test_targets_may_be_given() -> None:
    work = measure_work(nn.Linear(6, 4), (torch.zeros(1, 6),), nn.functional.mse_loss, torch.zeros(1, 4))
    assert work.flops_per_example == 96


def test_the_work_of_a_task_is_that_on_its_own_inputs_and_loss() -> None:
    class Squares:
        name = "squares"

        def example_inputs(self) -> tuple[torch.Tensor, ...]:
            return (torch.zeros(1, 6),)

        def loss(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return (outputs**2).mean() + 0 * targets.sum()

    model = nn.Linear(6, 4)
    assert work_of(Squares(), model) == measure_work(model, (torch.zeros(1, 6),), Squares().loss)


def test_neither_model_nor_random_state_changes() -> None:
    model = nn.Sequential(cnn(8, 16), nn.Dropout(0.5)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_before = torch.get_rng_state()
    measure_work(model, INPUTS, nn.functional.cross_entropy)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.equal(random_before, torch.get_rng_state())
    assert not model.training
    assert all(p.grad is None for p in model.parameters())
