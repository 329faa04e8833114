"""Control by itself, on models that are made up; and during training of a real one."""

import itertools
from dataclasses import replace

import pytest
import torch

from slimfleet.compression import BadInput
from slimfleet.compression.model.evaluation.control import Bounds, Control, Seen, next_control
from slimfleet.compression.model.slim_model import weights_of
from slimfleet.compression.model.techniques.adapt import Adapt, adapt
from slimfleet.compression.model.techniques.sparsify import Sparsify, sparsify
from slimfleet.compression.model.training.tuning import Tuning

BOUNDS = Bounds(points=1.0, size=0.02, most=0.9, least_bits=3, most_bits=8, patience=2)


def run(points_of, looks=200, bounds=BOUNDS):
    """The controls over a training in which a model loses `points_of(control, looks since the last move)`."""
    controls, since = [Control(8)], 0
    for look in range(looks):
        now = controls[-1]
        points = points_of(now, since)
        following = next_control(now, Seen(1 + points, points, 1 - (look + 1) / looks), bounds)
        since = 0 if (following.share, following.bits) != (now.share, now.bits) else since + 1
        controls.append(following)
    return controls


def test_a_model_that_bears_everything_is_made_as_small_as_asked_and_no_smaller():
    controls = run(lambda control, since: 0.0)
    assert all(a.size >= b.size for a, b in itertools.pairwise(controls))
    assert controls[-1].size == pytest.approx(0.02, rel=0.25)
    assert controls[-1].bits < 8
    assert controls[-1].share > 0.5


def test_bounds_hold_where_the_size_is_out_of_reach():
    controls = run(lambda control, since: 0.0, bounds=replace(BOUNDS, size=0.0001))
    assert controls[-1].share <= 0.9
    assert controls[-1].share > 0.89
    assert controls[-1].bits == 3


def test_a_model_that_bears_nothing_goes_back_to_where_it_was():
    controls = run(lambda control, since: 100 * control.share + 2 * (8 - control.bits))
    assert controls[-1].bits == 8
    assert controls[-1].share < 0.02
    assert all(0 <= c.share <= 0.9 for c in controls)
    assert all(3 <= c.bits <= 8 for c in controls)


def test_control_comes_to_rest_within_the_loss_near_the_most_that_is_borne():
    """Loses nothing up to a size, then much, whatever the training."""
    controls = run(lambda control, since: 0.0 if control.size > 0.08 else 3.0)
    assert 0.08 < controls[-1].size < 0.14


def test_it_waits_while_training_wins_back_what_was_lost():
    start = Control(8, 0.5, turn="bits")
    losing = Seen(loss=2.0, points=3.0, left=0.9)
    first = next_control(start, losing, BOUNDS)
    assert (first.share, first.bits) == (0.5, 8)
    better = next_control(first, replace(losing, loss=1.5), BOUNDS)
    assert (better.share, better.waited) == (0.5, 0)
    worse = next_control(
        next_control(better, replace(losing, loss=1.6), BOUNDS), replace(losing, loss=1.6), BOUNDS
    )
    assert worse.share < 0.5
    assert worse.pace < better.pace


def test_nothing_is_tightened_near_the_end():
    control = Control(8, 0.3)
    assert next_control(control, Seen(1.0, 0.0, 0.2), BOUNDS).size == control.size


def test_zeros_and_bits_take_turns():
    controls = run(lambda control, since: 0.0, looks=20)
    moves = ["zeros" if b.share > a.share else "bits" for a, b in itertools.pairwise(controls[:6])]
    assert moves == ["zeros", "bits", "zeros", "bits", "zeros"]


def test_digits_come_to_a_twentieth_within_the_loss(central, trained):
    settings = Adapt(tuning=Tuning(epochs=8, optimizer="adamw", learning_rate=0.002))
    adapted, report = adapt(trained, central, settings)
    weights = weights_of(adapted.model)
    nonzero = sum(int((w != 0).sum()) for w in weights.values()) / sum(w.numel() for w in weights.values())
    bits = {adapted.constraints[name].bits for name in weights}
    assert len(bits) == 1
    assert nonzero * bits.pop() / 32 <= 0.051
    assert central.validated(adapted.model).accuracy >= central.validated(trained.model).accuracy - 0.011
    assert all(torch.equal(adapted.constraints[n].obeyed(w.detach()), w) for n, w in weights.items())
    assert set(report.plots) == {
        "share of zeros over training",
        "bits over training",
        "points lost over training",
    }


def test_what_adapt_cannot_do_is_said_in_one_line(central, trained):
    with pytest.raises(BadInput, match=r"^adapt works during training: give it epochs, 20 for example$"):
        adapt(trained, central, Adapt(tuning=Tuning(epochs=0)))
    sparse, _ = sparsify(trained, central, Sparsify(tuning=Tuning(epochs=0)))
    with pytest.raises(
        BadInput, match=r"^adapt decides on zeros and bits itself, but .* obey a mask already: .*$"
    ):
        adapt(sparse, central, Adapt())
