"""What every technique of the table promises."""

from dataclasses import replace

import pytest
import torch

from slimfleet.compression.model.architectures import fitting
from slimfleet.compression.model.constraints import Constraint
from slimfleet.compression.model.recipes.recipe import recipe_of
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.toolbox import TECHNIQUES

STEPS = [
    "prune: share=0.4, epochs=0.5",
    "prune: importance=random, epochs=0",
    "separate: worst_fit=1, epochs=0.5",
    "factorise: by=cost, keep=0.5, worst_fit=1, epochs=0.5",
    "search: trials=10, supernet_epochs=0.5, bits=true, epochs=0.5",
    "search: strategy=halving, trials=3, epochs=0.5",
    "sparsify: importance=movement, epochs=1",
    "sparsify: importance=taylor, pattern=2:4, pace=iterative, epochs=0.5",
    "share: epochs=0.5",
    "quantise: weights=4, activations=4, epochs=0.5",
    "quantise: weights=3, mixed=true",
    "round: divergence=0.01",
    "adapt: epochs=2",
    "distil: hint=conv2=conv2, epochs=0.5",
]


def applied(text, slim, central):
    for step in recipe_of(text).steps:
        slim, report = TECHNIQUES[step.technique].apply(slim, central, step.settings)
    return slim, report


def state(slim: SlimModel) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in slim.model.state_dict().items()}


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("text", STEPS)
def test_the_model_given_stays_as_it_is_and_the_same_seed_gives_the_same_bytes(
    taught, trained, text, monkeypatch
):
    monkeypatch.setattr(fitting, "STEPS", 30)  # nothing here is about the quality of a fit
    torch.set_num_threads(1)
    before, mode = state(trained), trained.model.training
    first, report = applied(text, trained, taught)
    torch.manual_seed(123)  # nothing is drawn from what is around
    second, _ = applied(text, trained, taught)
    assert same(state(trained), before)
    assert trained.constraints == {}
    assert trained.model.training == mode
    assert not any(m._forward_pre_hooks for m in trained.model.modules())
    assert same(state(first), state(second))
    assert not same(state(first), before) or text.startswith("distil")
    assert not first.model.training
    assert report.changed
    named = dict(first.model.named_parameters())
    for name, constraint in first.constraints.items():
        assert torch.equal(constraint.obeyed(named[name].detach()), named[name])


def test_other_seeds_draw_otherwise(central, trained):
    text = "sparsify: importance=random, epochs=0"
    first, other = applied(text, trained, central)[0], applied(text, trained, replace(central, seed=1))[0]
    assert not same(state(first), state(other))


def test_a_whole_recipe_keeps_all_that_was_made(taught, trained):
    text = (
        "prune: share=0.4, epochs=1; sparsify: share=0.5, scope=layer, epochs=1; "
        "quantise: weights=4, activations=8, epochs=1; distil: epochs=1"
    )
    slim, _ = applied(text, trained, taught)
    named = dict(slim.model.named_parameters())
    constraints: dict[str, Constraint] = dict(slim.constraints)
    assert len(constraints) == 3
    for name, grid in constraints.items():
        assert torch.equal(grid.obeyed(named[name].detach()), named[name])
        assert float((named[name] == 0).float().mean()) >= 0.49
    assert taught.tested(slim.model).accuracy > 0.93
