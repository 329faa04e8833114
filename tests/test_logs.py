"""What commands say on stderr: from which level on, as lines or as JSON objects, and with whose fields."""

import json
import logging
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from slimfleet.compression import BadInput
from slimfleet.compression.edge.command_line import command_app, run_app
from slimfleet.compression.edge.logs import say
from slimfleet.compression.edge.terminal import byte_progress, error_console, progress

Run = Callable[..., tuple[int, str, list[str]]]

log = logging.getLogger("slimfleet.somewhere")


def speak() -> None:
    """Everything that a command may say."""
    log.debug("a detail")
    log.info("a step", extra={"round": 3, "energy_j": float("nan"), "folder": Path("out"), "level": "loud"})
    log.warning("a doubt\nof two lines")
    log.error("a loss")
    logging.getLogger("library").info("of a library")
    logging.getLogger("library").warning("a doubt of a library")
    warnings.warn("of Python", FutureWarning, stacklevel=1)
    say("a remark")
    print("the result")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `act` as a command: exit code, stdout, lines of stderr."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def call(act: Callable[[], None], *options: str) -> tuple[int, str, list[str]]:
        app = command_app()
        app.command()(act)
        monkeypatch.setattr(sys, "argv", ["x", *options])
        monkeypatch.setattr(warnings, "filters", [])
        with pytest.raises(SystemExit) as caught:
            run_app(app, "x", extra="device")
        said = capsys.readouterr()
        return int(caught.value.code or 0), said.out, said.err.splitlines()

    return call


@pytest.fixture(autouse=True)
def _hook_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)


DOUBTS = ["a doubt", "of two lines", "a loss", "a doubt of a library", "a remark"]
INFO = ["a step", *DOUBTS]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ([], DOUBTS),
        (["--quiet"], ["a loss", "a remark"]),
        (["-v"], INFO),
        (["--log-level", "debug"], ["a detail", *INFO]),
        (["--log-level", "info"], INFO),
        (["--log-level", "warning"], DOUBTS),
        (["--log-level", "error"], ["a loss", "a remark"]),
        (["--log-level", "warning", "--verbose"], DOUBTS),
    ],
)
def test_a_level_decides_what_is_shown(options: list[str], shown: list[str], run: Run) -> None:
    code, out, said = run(speak, *options)
    assert (code, out) == (0, "the result\n")
    assert [line for line in said if "FutureWarning" not in line] == shown
    assert any("FutureWarning: of Python" in line for line in said) == ("a step" in shown)


def objects(lines: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def test_json_has_an_object_a_line_with_the_fields_of_the_record(run: Run) -> None:
    before = datetime.now(UTC)
    code, out, said = run(speak, "--log-json", "--log-level", "info")
    assert (code, out) == (0, "the result\n")
    found = {each["message"]: each for each in objects(said)}
    step = found["a step"]
    assert abs((datetime.fromisoformat(step.pop("time")) - before).total_seconds()) < 60
    # A field cannot pass for the level; what JSON has no value for becomes text or null.
    assert step == {
        "level": "info",
        "logger": "slimfleet.somewhere",
        "message": "a step",
        "round": 3,
        "energy_j": None,
        "folder": "out",
    }
    assert found["a doubt\nof two lines"]["level"] == "warning"
    assert found["a doubt of a library"]["logger"] == "library"
    assert found["a remark"]["level"] == "info"
    assert "a detail" not in found


def refuse() -> None:
    try:
        raise OSError("no such place")
    except OSError as error:
        raise BadInput("give another\nplace") from error


def test_json_has_errors_and_their_causes_too(run: Run) -> None:
    code, out, said = run(refuse, "--log-json", "-v")
    cause, error = objects(said)
    assert (code, out) == (2, "")
    assert "OSError: no such place" in cause["traceback"]
    assert (error["level"], error["message"]) == ("error", "give another place")
    assert run(refuse)[2] == ["error: give another place"]


def interrupt() -> None:
    raise KeyboardInterrupt


def test_json_has_an_interruption(run: Run) -> None:
    code, _, said = run(interrupt, "--log-json")
    assert (code, [each["message"] for each in objects(said)]) == (130, ["interrupted"])


def test_json_has_the_traceback_of_a_defect(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(speak, "--log-json", "-q")
    try:
        raise ZeroDivisionError("by nothing")
    except ZeroDivisionError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    (defect,) = objects(capsys.readouterr().err.splitlines())
    assert (defect["level"], defect["message"]) == ("critical", "ZeroDivisionError: by nothing")
    assert "by nothing" in defect["traceback"]


def show_bars() -> None:
    with progress(quiet=False) as told:
        told("coding", 1, 2)
    with byte_progress("packing", quiet=False) as moved:
        moved(1, 2)
    error_console().print("a bar")


def test_bars_have_no_place_beside_json(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stderr for a terminal
    assert any("a bar" in line for line in run(show_bars)[2])
    assert run(show_bars, "--log-json")[2] == []


@pytest.mark.parametrize("colours", ["", "1"])
def test_bars_respect_no_color(colours: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", colours)
    said = "".join(run(show_bars)[2])
    assert ("\x1b[38;5;" in said) != bool(colours)
