"""The examples of docs/examples do what their README says, command by command."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

import slimfleet.__main__ as entries
from slimfleet.compression import BadInput
from slimfleet.compression.pruning.discover import discover
from slimfleet.simulations import InProcess, load_scenario

ROOT = Path(__file__).parent.parent.parent
OWN_TASK = Path("docs/examples/own_task")
OWN_SERVER = Path("docs/examples/own_server")

Run = Callable[[Sequence[str]], str]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder with a copy of the examples and nothing else: they must not lean on the checkout."""
    folder = tmp_path / "newcomer"
    for example in (OWN_TASK, OWN_SERVER):
        shutil.copytree(ROOT / example, folder / example, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def readme_commands(page: Path) -> list[list[str]]:
    """The indented command lines of a page."""
    lines = re.findall(r"^    (slimfleet-.*?)(?:\s+#.*)?$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [line.split() for line in lines]


def run(command: Sequence[str], folder: Path) -> str:
    """In a process of its own."""
    program, *arguments = command
    done = subprocess.run(
        [Path(sys.executable).parent / program, *arguments],
        cwd=folder,
        env=os.environ | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def run_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], elsewhere: Path
) -> Iterator[Run]:
    """Run a command in this process, without the time that imports take."""
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def call(command: Sequence[str]) -> str:
        monkeypatch.setattr(sys, "argv", list(command))
        with pytest.raises(SystemExit) as ended:
            getattr(entries, command[0].removeprefix("slimfleet-"))()
        said = capsys.readouterr()
        assert not ended.value.code, said.err
        return said.out

    yield call
    for name in (
        set(sys.modules) - before
    ):  # the examples are imported anew by the next test, from its own copy
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(elsewhere)):
            del sys.modules[name]


def summary(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "summary.json").read_text())
    return found


@pytest.mark.slow
def test_a_users_own_task_is_inspected_and_learns_within_its_budgets(elsewhere: Path) -> None:
    inspect, simulate, *_ = readme_commands(ROOT / OWN_TASK / "README.md")
    shown = run(inspect, elsewhere)
    # GRU of 64 units over 16 inputs, embedding and output of 49 characters; then of 48 over 12, and of 32 over 8.
    for units, inputs in ((64, 16), (48, 12), (32, 8)):
        gates = 3 * units * (inputs + units + 2)
        assert f"{49 * inputs + gates + 49 * (units + 1):,}" in shown
    assert "Whole at every width: output.bias" in shown
    run(simulate, elsewhere)
    found = summary(elsewhere / "slimfleet-out" / "keyboard")
    assert found["accuracy_last5"] > 0.40  # type: ignore[operator]
    assert found["budget_violations"] == 0
    assert found["failed"].keys() <= {"dropout"}  # type: ignore[attr-defined]
    assert found["uplink_bytes"] < found["uplink_bytes_float32"] / 25  # type: ignore[operator]


def test_the_last_command_of_the_page_runs_on_ray() -> None:
    """test_backends.py has a run of it."""
    *_, on_ray = readme_commands(ROOT / OWN_TASK / "README.md")
    assert on_ray[-2:] == ["--backend", "ray"]


def test_a_tighter_budget_names_who_is_left_out(elsewhere: Path, run_here: Run) -> None:
    (tighter,) = (c for c in readme_commands(ROOT / OWN_TASK / "README.md") if c[-2] == "--set")
    run_here([*tighter, "--out", "tight"])
    found = summary(elsewhere / "tight")
    assert found["skipped"]["energy_j"] > 0  # type: ignore[index]
    assert found["participations"] > 0  # type: ignore[operator]


@pytest.mark.slow
def test_without_test_data_on_the_server_the_devices_judge(elsewhere: Path, run_here: Run) -> None:
    (private,) = (c for c in readme_commands(ROOT / OWN_TASK / "README.md") if "private.toml" in c[1])
    shown = run_here([*private[:-2], "--rounds", "2", "--devices", "12", "--out", "private"])
    assert "accuracy, last five rounds (devices)" in shown
    found = summary(elsewhere / "private")
    assert found["accuracy_from"] == "devices"
    assert 0 < found["accuracy"] < 1  # type: ignore[operator]
    assert found["best"]["judged_by"] == "devices"  # type: ignore[index]
    assert (elsewhere / "private" / "model-best.safetensors").is_file()
    joules = found["energy_by_phase"]["evaluate"]["energy_j"]  # type: ignore[index]
    assert 0 < joules <= 0.05 * found["energy_j"]  # type: ignore[operator]


@pytest.mark.slow
def test_a_task_with_several_inputs_and_without_classes_learns(elsewhere: Path, run_here: Run) -> None:
    page = readme_commands(ROOT / "docs" / "own-task.md")
    inspect, simulate = (command for command in page if "thermostat" in " ".join(command))
    found = json.loads(run_here([*inspect, "--json"]))
    assert found["widths"][0]["parameters"] == 5042
    assert found["widths"][2]["parameters"] < 5042 / 2
    run_here([*simulate, "--rounds", "4", "--devices", "12", "--out", "warm"])
    rows = list(csv.DictReader((elsewhere / "warm" / "rounds.csv").read_text().splitlines()))
    losses = [float(row["loss"]) for row in rows]
    assert min(losses) < losses[0] - 0.5  # nats: the variance that it expects falls
    assert {row["accuracy"] for row in rows} == {""}


def test_a_package_of_server_policies_decides_who_does_what(elsewhere: Path, run_here: Run) -> None:
    simulate, built_in = readme_commands(ROOT / OWN_SERVER / "README.md")
    run_here([*simulate, "--rounds", "2", "--out", "mine"])
    devices = list(csv.DictReader((elsewhere / "mine" / "devices.csv").read_text().splitlines()))
    asked = [row for row in devices if int(row["participations"])]
    assert len(asked) >= 8
    for row in asked:
        assert re.fullmatch(r"careful: 8 steps at width (1|0\.5|0\.25)", row["last_reason"])
    overrides = dict(text.split("=") for text in built_in[3::2])
    assert built_in[2::2] == ["--set"] * 3
    found = load_scenario(str(ROOT / OWN_SERVER / "scenario.toml"), overrides).coordinator
    assert (found.planner.policy, found.selection.policy, found.server.optimizer) == (
        "enumerate",
        "utility",
        "fedavg",
    )


def test_the_mistakes_that_the_page_of_server_policies_shows() -> None:
    page = (ROOT / "docs" / "own-server-policy.md").read_text(encoding="utf-8")
    unloaded, misspelt, *_ = re.findall(r"^    error: (.*)$", page, re.MULTILINE)
    scenario = str(ROOT / OWN_SERVER / "scenario.toml")
    with pytest.raises(BadInput) as refusal:
        InProcess.of(load_scenario(scenario, {"planner.policy": "careful.planing:FixedSteps"}))
    assert str(refusal.value) == unloaded
    with pytest.raises(BadInput) as refusal:
        load_scenario(scenario, {"selection.policy": "utilty"})
    assert str(refusal.value).partition(": ")[2] == misspelt.partition(": ")[2]


def test_group_norms_shrink_as_the_page_says() -> None:
    """docs/own-task.md: a norm over all channels counts those lost as zeros, of several groups whole ones go."""
    for groups, channels in ((1, 8), (2, 2), (4, 4), (8, 8)):
        model = nn.Sequential(
            nn.Conv2d(1, 8, 3), nn.GroupNorm(groups, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4, 2)
        )
        found = discover(model, (torch.zeros(1, 1, 4, 4),)).groups
        assert [group.size for group in found] == [channels]
