"""Which residual holds, by plain numbers, and which models a device goes on holding."""

import numpy as np
import pytest

from slimfleet.client.state import Held, Residual, held_with, residual_at
from slimfleet.compression import Assignment, Budget, ModelSchema, Plan, Training
from slimfleet.compression.codec import Snapshot

SHAPES = {"conv": (4, 1, 3, 3), "scale": (), "fc": (10, 16)}
SCHEMA = ModelSchema.of({name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}, SHAPES)


def left_in(round_number, before, after):
    tensors = [
        {n: np.full(shape, value, np.float32) for n, shape in SHAPES.items()} for value in (before, after)
    ]
    return Residual(round_number, *tensors)


def at(kept, acknowledged_round, round_number, decay=0.5, max_age=4):
    training = Training(learning_rate=0.1, feedback_decay=decay, feedback_max_age=max_age)
    assignment = Assignment(
        round_number=round_number,
        plan_id=1,
        plan=Plan(width=1.0, local_steps=1, batch_size=1, nmse=0.1),
        budget=Budget(),
        training=training,
        acknowledged_round=acknowledged_round,
    )
    return residual_at(assignment, kept, SCHEMA)


def value_of(tensors):
    """The one value that all elements have."""
    (value,) = {float(v) for tensor in tensors.values() for v in tensor.ravel()}
    return value


@pytest.mark.parametrize("kept", [None, left_in(3, 1, 2)])
def test_a_residual_has_full_shapes_in_float32(kept):
    tensors = at(kept, None, 4)
    assert {name: tensor.shape for name, tensor in tensors.items()} == SHAPES
    assert {type(tensor) for tensor in tensors.values()} == {np.ndarray}
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    assert value_of(tensors) == (0 if kept is None else 0.5)


def test_an_accepted_round_leaves_what_was_unsent():
    assert value_of(at(left_in(3, 8, 2), 3, 4)) == 2


@pytest.mark.parametrize("acknowledged_round", [1, None])
def test_a_rejected_or_lost_update_rolls_back(acknowledged_round):
    assert value_of(at(left_in(3, 8, 2), acknowledged_round, 4)) == 4


def test_an_old_copy_put_back_is_not_sent_again():
    """The coordinator has accepted an update of round 5; the file says round 3."""
    assert value_of(at(left_in(3, 8, 2), 5, 6)) == 0
    assert value_of(at(left_in(5, 8, 2), 5, 6)) == 2


def test_a_round_run_again_starts_from_the_same_residual():
    first = at(left_in(2, 0, 3), 2, 3)
    again = at(Residual(3, first, {name: tensor * 0.25 for name, tensor in first.items()}), 2, 3)
    assert value_of(first) == value_of(again) == 3


def test_a_residual_ages_while_it_waits_and_is_dropped_when_too_old():
    kept = left_in(10, 64, 64)
    assert [value_of(at(kept, 10, r)) for r in (11, 12, 13, 14, 15)] == [64, 32, 16, 8, 0]
    assert [value_of(at(kept, 9, r)) for r in (10, 11, 12, 13, 14, 15)] == [64, 32, 16, 8, 4, 0]


def test_a_residual_from_a_later_round_belongs_to_another_run():
    assert value_of(at(left_in(30, 1, 2), None, 2)) == 0


def test_the_residual_may_be_changed_and_what_is_kept_stays():
    kept = left_in(1, 1, 2)
    at(kept, 1, 2)["fc"][:] = 9
    assert value_of(at(kept, 1, 2)) == 2


def test_the_newest_is_held_beside_the_one_it_was_built_on():
    one, two, three = (Held(version, b"", Snapshot({}, ())) for version in (1, 2, 3))
    assert held_with(one, (), None) == (one,)
    assert held_with(two, (one,), None) == (two, one)
    assert held_with(three, (two, one), 1) == (three, one), "the coordinator has not heard of version 2"
    assert held_with(three, (two, one), None) == (three, two)
    assert held_with(two, (two, one), 1) == (two, one), "a round done again"
