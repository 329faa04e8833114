"""slimfleet-coordinator as a person calls it."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from slimfleet.compression import DeviceProfile
from slimfleet.coordinator import cli

# Flower holds typer at a version that uses names which Click has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click 9:DeprecationWarning")

Run = Callable[..., tuple[int, str, str]]

TASK = """
import torch
from torch import nn

class Rows:
    name, partitions = "rows", 1
    def __init__(self, partitions, seed, hidden=64):
        self.hidden = hidden
    def build_model(self):
        return nn.Sequential(nn.Linear(100, self.hidden), nn.ReLU(), nn.Linear(self.hidden, 10))
    def example_inputs(self):
        return (torch.zeros(1, 100),)
    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)
    def load(self, partition):
        raise AssertionError("planning needs no data")
    evaluate = load

one = Rows(1, 0)
number = 3
"""

BOARD = DeviceProfile(
    name="board",
    device_class="sbc",
    ram_bytes=2**30,
    train_flops_per_s=1e8,
    idle_w=1.0,
    train_w=2.0,
    uplink_bytes_per_s=1e5,
    downlink_bytes_per_s=1e5,
    radio_j_per_byte_up=1e-6,
    radio_j_per_byte_down=1e-6,
    radio_j_per_burst=0.1,
)
PHONE = replace(BOARD, name="phone", radio_j_per_burst=12.0, battery_j=4e4)


@pytest.fixture
def coordinator(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run the command in this process, in a folder with a task and two profiles: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    Path("rows_task.py").write_text(TASK)
    Path("board.json").write_text(json.dumps(asdict(BOARD)))
    Path("both.json").write_text(json.dumps([asdict(BOARD), asdict(PHONE)]))
    Path("odd.json").write_text(json.dumps(asdict(BOARD) | {"colour": "red"}))
    Path("slow.json").write_text(json.dumps(asdict(BOARD) | {"train_flops_per_s": 0}))
    Path("nan.json").write_text(json.dumps(asdict(BOARD) | {"train_w": float("nan")}))
    Path("text.json").write_text("no JSON")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slimfleet-coordinator", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return run


def plans(coordinator: Run, *arguments: object, task: str = "rows_task:Rows") -> list[dict[str, Any]]:
    code, out, err = coordinator("plan", "--task", task, *arguments, "--json")
    assert (code, err) == (0, "")
    found: list[dict[str, Any]] = json.loads(out)
    return found


def test_the_plan_follows_the_budget(coordinator: Run) -> None:
    (free,) = plans(coordinator, "--profile", "board.json")
    assert free["plan"]["width"] == 1.0
    assert free["reason"].startswith("full width; ")
    (tight,) = plans(coordinator, "--profile", "board.json", "--uplink-bytes", 500, "--energy-j", 0.2)
    assert tight["plan"]["width"] < 1.0
    assert tight["predicted"]["uplink_bytes"] <= 500
    assert tight["predicted"]["energy_j"] <= 0.2


def test_a_device_that_fits_no_plan_is_explained_beside_one_that_does(coordinator: Run) -> None:
    board, phone = plans(coordinator, "--profile", "both.json", "--energy-j", 5)
    assert board["device"] == "board"
    assert "plan" in board
    assert phone["skip"]["constraint"] == "energy_j"
    assert phone["skip"]["limit"] == 5
    assert phone["skip"]["needed"] > 12
    assert phone["reason"].startswith("energy_j: the smallest plan needs")


def test_memory_is_never_more_than_the_device_has(coordinator: Run, tmp_path: Path) -> None:
    small = replace(BOARD, ram_bytes=200_000_000)
    (tmp_path / "small.json").write_text(json.dumps(asdict(small)))
    (skipped,) = plans(coordinator, "--profile", "small.json")
    assert skipped["skip"]["constraint"] == "memory_bytes"
    assert skipped["skip"]["limit"] <= 200_000_000
    (planned,) = plans(coordinator, "--profile", "small.json", "--runtime", "lite")
    assert planned["predicted"]["memory_bytes"] < 200_000_000


def test_more_examples_mean_more_steps(coordinator: Run) -> None:
    (few,) = plans(coordinator, "--profile", "board.json", "--examples", 32)
    (many,) = plans(coordinator, "--profile", "board.json", "--examples", 3200)
    assert few["plan"]["local_steps"] < many["plan"]["local_steps"]


def test_a_task_may_be_an_object_or_take_options(coordinator: Run) -> None:
    (wide,) = plans(coordinator, "--profile", "board.json", task="rows_task:one")
    (slim,) = plans(coordinator, "--profile", "board.json", "--option", "hidden=8")
    assert slim["predicted"]["downlink_bytes"] < wide["predicted"]["downlink_bytes"] / 4


def test_the_table_shows_plans_and_reasons_in_80_columns(
    coordinator: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    large = replace(BOARD, name="[x] a board with a long name", uplink_bytes_per_s=1e7)
    Path("large.json").write_text(json.dumps(asdict(large)))
    files = ("--profile", "board.json", "--profile", "both.json", "--profile", "large.json")
    options = ("--option", "hidden=20000", "--energy-j", 5)
    code, out, _ = coordinator("plan", "--task", "rows_task:Rows", *files, *options)
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    table, reasons = lines[: len(lines) // 2], "\n".join(lines)
    (planned,) = plans(coordinator, "--profile", "board.json", *options)
    row = next(line.split() for line in table if line.strip().startswith("board"))
    assert row[1:5] == [f"{planned['plan'][key]:g}" for key in ("width", "local_steps", "batch_size", "nmse")]
    assert row[-1] == f"{planned['predicted']['downlink_bytes'] / 1e3:,.1f}"
    assert any(line.split() == ["phone", "skip"] for line in table)
    assert "energy_j: the smallest plan needs" in reasons
    assert "[x] a board with a long name" in reasons


def test_the_short_names_of_tasks_are_known(coordinator: Run) -> None:
    short = plans(coordinator, "--profile", "board.json", task="digits")
    assert short == plans(coordinator, "--profile", "board.json", task="slimfleet.client.tasks:Digits")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--task", "digit", "--profile", "board.json"), "did you mean 'digits'"),
        (("--task", "rows_task:Columns", "--profile", "board.json"), "Columns"),
        (("--task", "rows_task:number", "--profile", "board.json"), "int"),
        (("--task", "rows_task:Rows", "--option", "depth=3", "--profile", "board.json"), "depth"),
        (("--task", "rows_task:Rows", "--profile", "absent.json"), "absent.json"),
        (("--task", "rows_task:Rows", "--profile", "text.json"), "text.json"),
        (("--task", "rows_task:Rows", "--profile", "odd.json"), "colour"),
        (("--task", "rows_task:Rows", "--profile", "slow.json"), "train_flops_per_s"),
        (("--task", "rows_task:Rows", "--profile", "nan.json"), "NaN"),
        (("--task", "rows_task:Rows", "--profile", "board.json", "--energy-j", "much"), "much"),
        (("--task", "rows_task:Rows", "--profile", "board.json", "--energy-j", "nan"), "--energy-j"),
        (("--task", "rows_task:Rows", "--profile", "board.json", "--deadline-s", "inf"), "--deadline-s"),
        (("--task", "rows_task:Rows", "--profile", "board.json", "--runtime", "jax"), "jax"),
        (("--task", "rows_task:Rows"), "--profile"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    coordinator: Run, arguments: tuple[str, ...], word: str
) -> None:
    code, out, err = coordinator("plan", *arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert word in err
