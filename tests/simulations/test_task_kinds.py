"""Tasks of many kinds, from inspection to an evaluated round."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from slimfleet.client import cli as device
from slimfleet.compression.edge.task_loader import load_task
from slimfleet.compression.profiles import load_profiles
from slimfleet.coordinator import cli as coordinator
from slimfleet.simulations import cli as simulate

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
from task_kinds import AWKWARD  # noqa: E402 - the module that the commands import

# Flower holds typer at a version that uses names which Click has deprecated.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*will be removed in Click 9:DeprecationWarning",
    "ignore:Lazy modules are a new feature:UserWarning",
    "ignore:.*weight_norm. is deprecated:FutureWarning",
)

KINDS = [
    *("Regression", "Labels", "Autoencoder", "Sequence", "TwoInputs", "Counts", "DeclaredUnloaded", "Lazy"),
    *("Dictionary", "Tuple", "Listed", "Named", "Dataclass"),
]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run a command in a folder of its own: exit code, stdout, stderr."""

    def call(main: Callable[[], None], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "path", [HERE, *sys.path])
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return call


def inspected(run: Run, kind: str) -> dict[str, Any]:
    code, out, err = run(device.main, "inspect", f"task_kinds:{kind}", "--width", 1, "--width", 0.5, "--json")
    assert (code, err) == (0, "")
    found: dict[str, Any] = json.loads(out)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_device_could_train_and_evaluate_it(kind: str) -> None:
    settings = {"partitions": 2, "seed": 0, "options": {}}
    if kind != "DeclaredUnloaded":
        load_task(f"task_kinds:{kind}", {}, **settings).rehearse(2, seed=0)


@pytest.mark.parametrize("kind", KINDS)
def test_inspect_measures_every_width(kind: str, run: Run) -> None:
    found = inspected(run, kind)
    wide, narrow = found["widths"]
    for key in ("parameters", "flops", "activation_bytes"):
        assert 0 < narrow[key] < wide[key]
    assert found["groups"]


@pytest.mark.parametrize("kind", ["Regression", "Sequence", "TwoInputs", "Dictionary", "DeclaredUnloaded"])
def test_plan_needs_no_data_of_it(kind: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "device.json").write_text(json.dumps(asdict(load_profiles()[0].profile)))
    code, out, err = run(
        coordinator.main, "plan", "--task", f"task_kinds:{kind}", "--profile", "device.json", "--json"
    )
    assert (code, err) == (0, "")
    assert json.loads(out)[0]["plan"]["width"] == 1.0


@pytest.mark.parametrize("kind", ["Labels", "TwoInputs", "Named"])
def test_it_is_trained_and_judged_by_its_loss(kind: str, run: Run, tmp_path: Path) -> None:
    settings = {
        "task.name": f"'task_kinds:{kind}'",
        "task.import_from": f"['{HERE}']",
        "selection.per_round": 4,
        "client.learning_rate": 0.2,
        "run.baseline_rounds": 2,
    }
    sets = [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]
    small = ("--devices", 6, "--rounds", 2, "--out", "out", "--baseline", *sets)
    code, out, err = run(simulate.main, "digits", *small)
    assert code == 0, err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "rounds.csv").read_text().splitlines()))
    assert (summary["accuracy"], summary["accuracy_last5"]) == (None, None)
    assert summary["participations"] > 0
    assert summary["loss"] == float(rows[-1]["loss"])
    assert rows[-1]["accuracy"] == ""
    assert f"loss {summary['loss']:.4g}" in err
    assert "loss, last model" in out
    assert "accuracy is not known: no cost to compare" in out
    assert "the task has no accuracy" in (tmp_path / "out" / "report.html").read_text()


def test_a_loss_that_takes_no_zeros_asks_for_targets_where_there_are_no_data(run: Run) -> None:
    code, out, err = run(device.main, "inspect", "task_kinds:Unloaded")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    for word in ("task_kinds:Unloaded", "loss", "class 0 is not a class", "example_targets()"):
        assert word in err


def test_targets_of_the_task_itself_come_first_and_are_checked() -> None:
    def task(kind: str) -> Any:
        return load_task(f"task_kinds:{kind}", {}, partitions=1, seed=0, options={})

    assert task("Declared").example_targets().tolist() == [1]
    wrong = task("Declared")
    wrong.wrapped.example_targets = lambda: torch.ones(3, dtype=torch.long)
    with pytest.raises(device.BadInput, match="example_targets: gives a batch of 3: must be a batch of one"):
        wrong.example_targets()


def test_lazy_layers_get_their_shapes_and_keep_their_statistics() -> None:
    task = load_task("task_kinds:Lazy", {}, partitions=1, seed=0, options={})
    model = task.build_model()
    assert tuple(model[0].weight.shape) == (8, 4)
    assert not model[1].running_mean.any()
    assert all(module.training for module in model.modules())


def test_what_a_task_prints_stays_out_of_the_results(run: Run) -> None:
    code, out, err = run(device.main, "inspect", "task_kinds:Chatty", "--width", 1, "--json")
    assert code == 0
    assert set(err.splitlines()) == {"building"}
    assert json.loads(out)["widths"][0]["parameters"] == 58


@pytest.mark.filterwarnings("ignore")  # torch's own, of deprecated kinds of model
@pytest.mark.parametrize("kind", AWKWARD)
def test_an_awkward_model_works_or_is_refused_in_one_line(kind: str, run: Run) -> None:
    code, out, err = run(device.main, "inspect", f"task_kinds:{kind}", "--width", 0.5, "--json")
    if code == 0:
        assert err == ""
        assert json.loads(out)["widths"][0]["parameters"] > 0
    else:
        assert (code, out, len(err.splitlines())) == (2, "", 1)
        assert f"task_kinds:{kind}" in err


TWICE = """
import sys
from slimfleet.client import cli
for more in ([], ["--verbose"]):
    sys.argv = ["slimfleet-device", *sys.argv[1:5], "--import-from", sys.argv[-1], *more]
    print("BEGIN", file=sys.stderr, flush=True)
    try:
        cli.main()
    except SystemExit as ended:
        assert not ended.code
"""


def test_warnings_of_libraries_are_for_those_who_ask() -> None:
    asked = ["inspect", "task_kinds:old weight norm", "--width", "1", str(HERE)]
    command = [sys.executable, "-c", TWICE, *asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    _, silent, verbose = done.stderr.split("BEGIN")
    assert "FutureWarning" not in silent
    assert "FutureWarning" in verbose
