"""What weights obey they keep obeying, and training under it is training."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slimfleet.compression.model.constraints import Constrained, Grid, Mask, Shared
from slimfleet.compression.model.rounding.grids import grid_of

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.01),
}


def weights(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def mask(seed: int) -> Mask:
    return Mask(weights(seed, 6, 5) > 0)


def grid(seed: int, bits: int = 3, granularity: str = "channel", scheme: str = "symmetric") -> Grid:
    return grid_of(weights(seed, 6, 5), bits, granularity, scheme, weights(seed + 1, 6, 5) > -1)


def shared(seed: int) -> Shared:
    return Shared(torch.randint(0, 4, (6, 5), generator=torch.Generator().manual_seed(seed)))


KINDS = {"mask": mask, "grid": grid, "shared": shared}


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 1000))
@settings(max_examples=25, deadline=None)
def test_what_obeys_is_left_as_it_is_to_the_bit(kind: str, seed: int) -> None:
    constraint = KINDS[kind](seed)
    once = constraint.obeyed(weights(seed + 2, 6, 5))
    assert torch.equal(constraint.obeyed(once), once)
    assert once.dtype == torch.float32


@given(
    seed=st.integers(0, 1000),
    bits=st.integers(2, 8),
    granularity=st.sampled_from(["channel", "tensor"]),
    scheme=st.sampled_from(["symmetric", "affine"]),
)
@settings(max_examples=60, deadline=None)
def test_a_grid_has_no_more_values_than_its_bits_allow_zero_is_one_and_errors_are_half_a_step(
    seed: int, bits: int, granularity: str, scheme: str
) -> None:
    weight = weights(seed, 4, 3, 3, 3) * 10.0 ** (seed % 7 - 3)
    found = grid_of(weight, bits, granularity, scheme)
    rounded = found.obeyed(weight)
    assert found.bits <= bits
    assert (found.low <= 0).all()
    assert (found.high >= 0).all()
    levels = found.levels(weight)
    assert torch.equal(levels, levels.round())
    assert (levels >= found.low).all()
    assert (levels <= found.high).all()
    inside = (weight / found.step >= found.low) & (weight / found.step <= found.high)
    assert ((rounded - weight).abs() <= found.step * 0.5001)[inside].all()


@pytest.mark.parametrize("weight", [torch.zeros(3, 4), torch.full((3, 4), -2.0), torch.eye(3)])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_grids_of_flat_and_empty_channels_are_finite(weight: torch.Tensor, scheme: str) -> None:
    found = grid_of(weight, 4, "channel", scheme)
    assert (found.step > 0).all()
    assert torch.allclose(found.obeyed(weight), weight, atol=1e-6)


def steps(constraint, optimizer: str, count: int, seed: int = 0) -> tuple[nn.Linear, Constrained]:
    layer = nn.Linear(5, 6)
    layer.weight.data.copy_(weights(seed, 6, 5))
    constrained = Constrained(layer, {"weight": constraint})
    moves = OPTIMIZERS[optimizer](layer.parameters())
    for step in range(count):
        moves.zero_grad()
        layer(weights(step, 8, 5)).square().sum().backward()
        constrained.before_step()
        moves.step()
        constrained.after_step()
        assert torch.equal(constraint.obeyed(layer.weight.detach()), layer.weight)
    return layer, constrained


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", KINDS)
def test_weights_obey_after_every_step_and_move(kind: str, optimizer: str) -> None:
    constraint = KINDS[kind](3)
    layer, _ = steps(constraint, optimizer, 20)
    assert not torch.equal(layer.weight, constraint.obeyed(weights(0, 6, 5)))
    if kind == "mask":
        assert (layer.weight[~constraint.free] == 0).all()
    if kind == "shared":
        assert (layer.weight[constraint.places == 0] == 0).all()
        assert all(len(layer.weight[constraint.places == place].unique()) == 1 for place in (1, 2, 3))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_shared_weights_train_as_a_codebook_of_their_own_would(optimizer: str) -> None:
    """The parity test: an embedding of values, looked up by place, has the sum of the gradients of its weights."""
    constraint = shared(1)
    start = constraint.values(weights(0, 6, 5))
    codebook = nn.Parameter(start[1:].clone())
    layer = nn.Linear(5, 6, bias=False)
    layer.weight.data.copy_(weights(0, 6, 5))
    constrained = Constrained(layer, {"weight": constraint})
    ours, theirs = OPTIMIZERS[optimizer](layer.parameters()), OPTIMIZERS[optimizer]([codebook])
    for step in range(15):
        x = weights(step, 8, 5)
        ours.zero_grad()
        layer(x).sin().mean().backward()
        constrained.before_step()
        ours.step()
        constrained.after_step()
        theirs.zero_grad()
        full = torch.cat([torch.zeros(1), codebook])[constraint.places]
        (x @ full.T).sin().mean().backward()
        theirs.step()
    assert torch.allclose(constraint.values(layer.weight.detach())[1:], codebook, atol=1e-5)


def test_steps_smaller_than_half_a_step_of_the_grid_add_up() -> None:
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data.fill_(0.0)
    coarse = Grid(torch.tensor(1.0), torch.tensor(-1.0), torch.tensor(1.0))
    constrained = Constrained(layer, {"weight": coarse})
    seen = []
    for _ in range(5):
        layer.weight.grad = torch.full((1, 1), -0.15)
        constrained.before_step()
        layer.weight.data.sub_(layer.weight.grad)
        constrained.after_step()
        seen.append(layer.weight.item())
    assert seen == [0, 0, 0, 1, 1]


def test_a_new_grid_goes_on_from_the_weights_that_are_not_rounded() -> None:
    layer = nn.Linear(5, 6)
    before = weights(0, 6, 5)
    layer.weight.data.copy_(before)
    constrained = Constrained(layer, {"weight": grid(0, bits=2)})
    fine = grid_of(before, 8, "channel", "symmetric")
    constrained.constrain({"weight": fine})
    assert torch.equal(layer.weight, fine.obeyed(before))


def test_a_mask_that_hides_gives_weights_back_and_one_that_does_not_keeps_zeros() -> None:
    for rounds in (True, False):
        layer = nn.Linear(5, 6)
        before = weights(0, 6, 5)
        layer.weight.data.copy_(before)
        constrained = Constrained(layer, {"weight": Mask(before > 0, rounds)})
        constrained.constrain({"weight": Mask(torch.ones(6, 5, dtype=torch.bool), rounds)})
        assert torch.equal(layer.weight, before if rounds else before.clamp(min=0))


def test_gradients_stop_where_they_lead_out_of_the_grid() -> None:
    narrow = Grid(torch.tensor(1.0), torch.tensor(-1.0), torch.tensor(1.0))
    weight = torch.tensor([-2.0, -2.0, 0.3, 2.0, 2.0])
    gradient = torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    assert narrow.gradient(gradient, weight).tolist() == [0, -1, 1, 1, 0]


@pytest.mark.parametrize("shape", [(), (6, 1)])
def test_the_gradient_of_a_step_is_that_of_lsq(shape: tuple[int, ...]) -> None:
    """Against autograd through a rounding that passes gradients on."""
    weight, step = weights(0, 6, 5), torch.full(shape, 0.4, requires_grad=True)
    low, high = torch.full(shape, -3.0), torch.full(shape, 3.0)
    scaled = (weight / step).clamp(-3, 3)
    rounded = (scaled + (scaled.round() - scaled).detach()) * step
    outer = weights(1, 6, 5)
    (rounded * outer).sum().backward()
    ours = Grid(step.detach(), low, high).step_gradient(outer, weight)
    per_step = 30 / step.numel()
    assert torch.allclose(ours * (per_step * 3) ** 0.5, step.grad, atol=1e-5)


def test_learned_steps_move_and_stay_positive() -> None:
    layer = nn.Linear(5, 6)
    start = Grid(torch.full((6, 1), 0.5), torch.full((6, 1), -1.0), torch.full((6, 1), 1.0), learned=True)
    constrained = Constrained(layer, {"weight": start})
    moves = torch.optim.SGD([*layer.parameters(), *constrained.steps.values()], lr=100.0)
    for step in range(5):
        moves.zero_grad()
        layer(weights(step, 8, 5)).square().mean().backward()
        constrained.before_step()
        moves.step()
        constrained.after_step()
    now = constrained.constraints["weight"]
    assert not torch.equal(now.step, start.step)
    assert (now.step > 0).all()
    assert torch.equal(now.obeyed(layer.weight.detach()), layer.weight)


def test_momentum_does_not_bring_a_learned_step_to_zero() -> None:
    """A row that is trained once: what is left of that gradient drives its step down for many steps."""
    layer = nn.Embedding(6, 5)
    start = Grid(torch.full((6, 1), 0.5), torch.full((6, 1), -1.0), torch.full((6, 1), 1.0), learned=True)
    constrained = Constrained(layer, {"weight": start})
    moves = torch.optim.SGD([*layer.parameters(), *constrained.steps.values()], lr=10.0, momentum=0.99)
    for step in range(300):
        moves.zero_grad()
        row = layer(torch.tensor([0 if step == 0 else 1]))
        row.abs().sum().backward()
        constrained.before_step()
        moves.step()
        constrained.after_step()
    now = constrained.constraints["weight"]
    assert float(now.step.min()) >= 0.1 * 0.5 * (1 - 1e-6)
