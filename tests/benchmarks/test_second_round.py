"""The benchmark of the second round: its moments are told apart, and its verdict follows from them."""

import pytest
from second_round.clocked_digits import ClockedDigits
from second_round.moments import marks, waits
from second_round.page import page


def test_each_arrival_is_paired_with_the_first_step_after_it():
    begun = [0.5, 1.25, 1.5, 7.5, 7.75]  # the first is of an examination before any plan
    assert waits([1.0, 7.0], begun) == [0.25, 0.5]
    with pytest.raises(ValueError, match="nothing was trained"):
        waits([1.0, 2.0, 7.0], begun)


def test_training_leaves_a_mark_where_it_is_asked_for(tmp_path, monkeypatch):
    task, path = ClockedDigits(partitions=2), tmp_path / "marks"
    examples = task.load(0)
    outputs = task.build_model()(*examples.arguments)
    quiet = task.loss(outputs, examples.targets)
    assert not path.exists()
    monkeypatch.setenv("MARKS", str(path))
    assert task.loss(outputs, examples.targets) == quiet
    assert len(marks(path)) == 1


def test_the_verdict_is_of_second_rounds_alone():
    slow_first = [[6.0, 0.012, 0.3], [5.0, 0.014, 0.3], [5.0, 0.4, 0.3]]
    assert "**met**. The SuperNode takes 500 times" in page(slow_first, [[8.0, 7.0]])
    assert "**missed**" in page([[0.01, 0.051]], [[8.0, 7.0]])
