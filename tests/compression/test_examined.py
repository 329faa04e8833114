"""What was found out about a model is kept on disk, and found out again where anything has changed."""

import importlib
import sys

import pytest
import torch
from torch import nn

from slimfleet.compression.cost import work_of
from slimfleet.compression.examined import Examined
from slimfleet.compression.pruning.blueprint import blueprint

SOURCE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.a, self.b = nn.Linear(4, width), nn.Linear(width, 2)
    def forward(self, x):
        return self.b(torch.relu(self.a(x)))

class Task:
    name, partitions = "t", 1
    def __init__(self, width=8):
        self.width, self.looks = width, 0
    def build_model(self):
        return Net(self.width)
    def example_inputs(self):
        return (torch.zeros(1, 4),)
    def loss(self, outputs, targets):
        self.looks += 1
        return nn.functional.cross_entropy(outputs, targets)
"""


@pytest.fixture
def task_of(tmp_path, monkeypatch):
    """A task whose module has some source; `looks` counts how often its loss is asked for."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def make(width=8, source=SOURCE):
        (tmp_path / "examined_task.py").write_text(source)
        sys.modules.pop("examined_task", None)
        importlib.invalidate_caches()
        return importlib.import_module("examined_task").Task(width)

    yield make
    sys.modules.pop("examined_task", None)


def shape_of(found):
    return [
        (group.name, group.size, group.min_channels, [(m.tensor, m.dim, m.positions.tolist()) for m in group.members])
        for group in found.groups
    ]  # fmt: skip


def examine(task, folder):
    examined = Examined(folder)
    found = blueprint(task, 0, examined)
    return found, work_of(task, found.model, examined)


def test_a_second_process_finds_what_the_first_has_found(task_of, tmp_path):
    first = task_of()
    found, work = examine(first, tmp_path / "kept")
    assert first.looks > 0
    second = task_of()
    again, same = examine(second, tmp_path / "kept")
    assert second.looks == 0
    assert same == work == work_of(second, again.model)
    assert shape_of(again) == shape_of(found) == shape_of(blueprint(second, 0))
    keep = {again.groups[0].name: again.groups[0].members[0].positions[:3, 0]}
    assert again.shrunk(keep)(torch.ones(2, 4)).shape == (2, 2)


@pytest.mark.parametrize(
    "changed",
    [
        {"width": 9},
        {"source": SOURCE.replace("relu", "tanh")},
        {"source": SOURCE.replace("zeros(1, 4)", "zeros(1, 4, dtype=torch.float32)")},
    ],
    ids=["another shape", "another forward pass", "another line of its source"],
)
def test_a_changed_model_is_examined_anew(task_of, tmp_path, changed):
    examine(task_of(), tmp_path)
    task = task_of(**changed)
    examine(task, tmp_path)
    assert task.looks > 0


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: b"", lambda data: b"x" + data[1:]])
def test_a_damaged_finding_counts_as_none_and_is_replaced(task_of, tmp_path, damage, caplog):
    _, work = examine(task_of(), tmp_path)
    for path in tmp_path.glob("*.examined"):
        path.write_bytes(damage(path.read_bytes()))
    assert examine(task_of(), tmp_path)[1] == work
    assert "found out again" in caplog.text
    whole = task_of()
    assert examine(whole, tmp_path)[1] == work
    assert whole.looks == 0


def test_a_folder_that_cannot_be_written_only_costs_time(task_of, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    found, work = examine(task_of(), tmp_path / "file")
    assert work.parameters == sum(p.numel() for p in nn.Module.parameters(found.model))
    assert "is not kept" in caplog.text


class Lined(torch.nn.Module):
    """Its forward pass, and how many heads it has, are attributes."""

    def __init__(self, forward, heads):
        super().__init__()
        self.line, self.heads, self.a, self.b = forward, heads, nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.line(self, x)


class LinedTask:
    name, partitions = "lined", 1

    def __init__(self, forward, heads=1):
        self.build_model = lambda: Lined(forward, heads)

    def example_inputs(self):
        return (torch.zeros(1, 4),)


def test_the_user_s_cache_is_asked_first(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = blueprint(LinedTask(lambda s, x: s.b(s.a(x))), 0)
    monkeypatch.setattr("slimfleet.compression.pruning.blueprint.discover", None)
    again = blueprint(LinedTask(lambda s, x: s.b(s.a(x))), 0)
    assert shape_of(again) == shape_of(found)
    assert again.whole == found.whole != ()


@pytest.mark.parametrize(
    "other",
    [LinedTask(lambda s, x: s.b(s.a(x).softmax(-1))), LinedTask(lambda s, x: s.b(s.a(x)), heads=2)],
    ids=["another function", "another number"],
)
def test_what_a_layer_holds_tells_models_apart(tmp_path, monkeypatch, other):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    blueprint(LinedTask(lambda s, x: s.b(s.a(x))), 0)
    blueprint(other, 0)
    assert len(list(tmp_path.rglob("*.examined"))) == 2


def test_without_a_home_nothing_is_kept(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("pathlib.Path.home", homeless)
    assert [group.name for group in blueprint(LinedTask(lambda s, x: s.b(s.a(x))), 0).groups] == ["a"]
