"""The task that a person names: built, or refused in one line that says what would be right."""

import sys
from pathlib import Path

import pytest

from slimfleet.client.tasks import TASKS
from slimfleet.compression import BadInput
from slimfleet.compression.edge.references import resolve
from slimfleet.compression.edge.task_loader import BUILT_IN, load_task

MODULE = """
class Sums:
    name, build_model, example_inputs, load, loss, evaluate = "sums", *[None] * 5

    def __init__(self, partitions, seed, noise=0.0):
        self.partitions, self.seed, self.noise = partitions, seed, noise

def noisy(partitions, seed, **options):
    return Sums(partitions, seed, **options)

def nothing(partitions, seed):
    return {}

def lines(partitions, seed, path):
    return Sums(partitions, seed)

one, number = Sums(3, 4), 5
"""


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "sample_tasks.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sample_tasks", raising=False)


def load(reference, known=None, **options):
    task = load_task(reference, known or {}, partitions=6, seed=7, options=options)
    return task.partitions, task.wrapped.seed, task.wrapped.noise


def known():
    import sample_tasks

    return {"sums": sample_tasks.Sums, "noisy-sums": sample_tasks.noisy}


def test_a_factory_gets_partitions_seed_and_options_by_name():
    assert load("sample_tasks:Sums", noise=0.5) == (6, 7, 0.5)
    assert load("sample_tasks:noisy", noise=0.5) == (6, 7, 0.5)
    assert load("sums", known(), noise=0.5) == (6, 7, 0.5)
    assert load("sums", known(), seed=8, partitions=9) == (9, 8, 0.0)


def test_an_object_that_is_a_task_already_is_taken_as_it_is():
    assert load("sample_tasks:one") == (3, 4, 0.0)


@pytest.mark.parametrize(
    ("reference", "options", "message"),
    [
        (
            "sum",
            {},
            r"no task is called 'sum' \(did you mean 'sums'\?\); there are sums, noisy-sums, and module:object",
        ),
        (
            "sums",
            {"niose": 1},
            r"task 'sums' has no option niose \(did you mean 'noise'\?\); its options are: noise",
        ),
        ("sample_tasks:lines", {}, r"task 'sample_tasks:lines' needs the option path; its options are: path"),
        ("sample_tasks:nothing", {}, r"'sample_tasks:nothing' gives a dict without name, .*: not a task"),
        ("sample_tasks:number", {}, r"'sample_tasks:number' gives a int without name, .*: not a task"),
        ("sample_tasks:absent", {}, r"cannot load 'sample_tasks:absent'"),
        ("no_such_module:Task", {}, r"cannot load 'no_such_module:Task': ModuleNotFoundError: No module"),
        ("sample_tasks:", {}, r"not of the form module:object"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(reference, options, message):
    with pytest.raises(BadInput, match=message):
        load(reference, known(), **options)


def test_the_short_names_are_those_of_the_built_in_tasks():
    assert {name: resolve(reference) for name, reference in BUILT_IN.items()} == dict(TASKS)


def test_a_short_name_may_stand_for_a_reference():
    assert load("sums", {"sums": "sample_tasks:Sums"}, noise=0.5) == (6, 7, 0.5)
