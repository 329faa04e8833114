"""A user's task that is wrong: one line that names the task, the member and the cause; exit code 2."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path

import pytest

from slimfleet.client import cli as device
from slimfleet.compression import BadInput
from slimfleet.compression.edge import references
from slimfleet.compression.edge.task_loader import load_task
from slimfleet.compression.profiles import load_profiles
from slimfleet.coordinator import cli as coordinator
from slimfleet.simulations import cli as simulate

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
from bad_tasks import TASKS  # noqa: E402 - the module that the commands import

Say = Callable[..., tuple[int, str]]

FOUND_BEFORE_TRAINING = [
    case
    for case, (_, words) in TASKS.items()
    if words[0] not in ("load(0)", "load(3)", "evaluate", "loss", "Target 7")
]
"""Wrong in a member that commands without data use too."""


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Say:
    """Run a command; gives its exit code and what it said on stderr but for the progress of rounds."""

    def run(main: Callable[[], None], *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "path", [HERE, *sys.path])
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as ended:
            main()
        remarks = (": round ", ": the common budget does not bind")
        lines = [line for line in capsys.readouterr().err.splitlines() if not any(r in line for r in remarks)]
        return int(ended.value.code or 0), "\n".join(lines)

    return run


def simulation(case: str, *more: str) -> list[str]:
    small = ["--devices", "6", "--rounds", "3", "--set", "selection.per_round=4"]
    return [
        "digits",
        *small,
        "--set",
        f"task.name='bad_tasks:{case}'",
        "--set",
        f"task.import_from=['{HERE}']",
        *more,
    ]


@pytest.mark.parametrize("case", TASKS)
def test_a_simulation_names_task_member_and_cause_in_one_line(case: str, say: Say) -> None:
    code, said = say(simulate.main, *simulation(case, "--quiet"))
    assert code == 2, said
    assert len(said.splitlines()) == 1, said
    for word in (f"bad_tasks:{case}", *TASKS[case][1]):
        assert word in said


@pytest.mark.parametrize(
    ("command", "case"),
    [
        *(("inspect", case) for case in FOUND_BEFORE_TRAINING),
        *product(
            ["profile", "plan"], ["init exits", "name is none", "build_model gives none", "the model raises"]
        ),
    ],
)
def test_so_do_the_commands_for_devices_and_plans(command: str, case: str, say: Say, tmp_path: Path) -> None:
    if case == "few partitions" or case == "the model gives NaN":
        pytest.skip("right for one device without data")
    (tmp_path / "device.json").write_text(json.dumps(asdict(load_profiles()[0].profile)))
    commands = {
        "inspect": (device.main, ["inspect", f"bad_tasks:{case}"]),
        "profile": (device.main, ["profile", f"bad_tasks:{case}", "--seconds", "0.1"]),
        "plan": (coordinator.main, ["plan", "--task", f"bad_tasks:{case}", "--profile", "device.json"]),
    }
    main, arguments = commands[command]
    code, said = say(main, *arguments, "--import-from", HERE, "--option", "alpha=1")
    assert (code, len(said.splitlines())) == (2, 1), said
    assert f"bad_tasks:{case}" in said


@pytest.mark.parametrize(
    "case", ["load raises", "load gives doubles", "load gives unequal lengths", "load gives a wrong label"]
)
def test_a_benchmark_names_what_is_wrong_with_the_data(case: str, say: Say) -> None:
    arguments = [
        "profile",
        f"bad_tasks:{case}",
        "--seconds",
        "0.1",
        "--import-from",
        HERE,
        "--option",
        "alpha=1",
    ]
    code, said = say(device.main, *arguments)
    assert (code, len(said.splitlines())) == (2, 1), said
    for word in TASKS[case][1]:
        assert word in said


def test_the_traceback_is_shown_on_demand(say: Say, caplog: pytest.LogCaptureFixture) -> None:
    _, said = say(simulate.main, *simulation("loss raises"))
    assert "Traceback" not in said + caplog.text
    caplog.set_level("INFO")
    say(simulate.main, *simulation("loss raises", "--verbose"))
    assert "Traceback" in caplog.text
    assert "in method" in caplog.text


@pytest.mark.parametrize(
    "arguments", [["device", "inspect"], ["coordinator", "plan", "--profile", "device.json", "--task"]]
)
def test_other_commands_show_it_too(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "device.json").write_text(json.dumps(asdict(load_profiles()[0].profile)))
    part, *rest = arguments
    command = [sys.executable, "-m", f"slimfleet.{part.replace('device', 'client')}.cli", *rest]
    asked = [
        *command,
        "bad_tasks:build_model raises",
        "--import-from",
        HERE,
        "--option",
        "alpha=1",
        "--verbose",
    ]
    said = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True).stderr
    assert "Traceback" in said
    assert "in method" in said
    assert said.splitlines()[-1].startswith("error: task 'bad_tasks:build_model raises'")


def test_ctrl_c_within_a_task_is_still_an_interruption(say: Say) -> None:
    code, said = say(simulate.main, *simulation("interrupted"))
    assert code == 130
    assert "bad_tasks" not in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise RuntimeError('two\\nlines')", ["RuntimeError: two lines"]),
        ("import sys; sys.exit(5)", ["sys.exit(5)"]),
        ("def f(:", ["SyntaxError"]),
        ("import no_such_package", ["no_such_package"]),
        ("def f(): f()\nf()", ["RecursionError"]),
        ("import time\nwhile True: time.sleep(0.01)", ["TimeoutError", "took longer than 0.5 s"]),
        (
            "import time\nwhile time.sleep(0.01) is None:\n  try: time.sleep(60)\n  except OSError: raise",
            ["TimeoutError"],
        ),
        ("x = 1", ["has no attribute 'Mine'"]),
    ],
)
def test_a_module_that_cannot_be_imported_says_why(
    text: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "IMPORT_LIMIT_S", 0.5)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(BadInput) as refused:
        load_task("mine:Mine", {}, partitions=2, seed=0, options={})
    for word in ("'mine:Mine'", *words):
        assert word in str(refused.value)


@pytest.mark.parametrize(
    "reference",
    [
        *("builtins:int", "builtins:dict", "builtins:print", "builtins:exit", "os:environ", "os:getcwd"),
        *("unittest.mock:MagicMock", ".x:y", "\0:x", "a b:c", "x" * 10_000 + ":y", "json:\0"),
    ],
)
def test_what_is_no_task_is_refused_in_one_line(reference: str, say: Say) -> None:
    code, said = say(device.main, "inspect", reference)
    assert code == 2
    assert len(said.splitlines()) == 1
    assert said.isprintable()
    assert len(said) < 2_100
