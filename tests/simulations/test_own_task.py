"""Where the code of a user's own task is looked for."""

import sys
from pathlib import Path

import pytest

from slimfleet.compression.errors import BadInput
from slimfleet.simulations.scenario import build_task_of, load_scenario

CODE = """
from slimfleet.client.tasks import Digits

class Mine(Digits):
    where = __file__
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with an import path that is put back as it was."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment").mkdir()
    return tmp_path


def written(folder: Path, text: str) -> str:
    path = folder / "scenario.toml"
    path.write_text(text)
    return str(path)


def test_it_is_looked_for_beside_the_scenario_then_in_the_current_folder(here: Path) -> None:
    for folder in (here, here / "experiment"):
        (folder / "mine_twice.py").write_text(CODE)
    (here / "mine_once.py").write_text(CODE)
    beside = load_scenario(written(here / "experiment", "[task]\nname = 'mine_twice:Mine'"))
    assert beside.task.import_from == (str(here / "experiment"), str(here))
    assert build_task_of(beside).wrapped.where == str(here / "experiment" / "mine_twice.py")
    current = load_scenario(written(here / "experiment", "[task]\nname = 'mine_once:Mine'"))
    assert build_task_of(current).wrapped.where == str(here / "mine_once.py")


def test_folders_that_are_given_replace_both(here: Path) -> None:
    (here / "lib").mkdir()
    text = "[task]\nname = 'mine:Mine'\nimport_from = ['../lib']"
    scenario = load_scenario(written(here / "experiment", text))
    assert scenario.task.import_from == (str(here / "lib"),)


def test_an_option_is_relative_to_the_current_folder(here: Path) -> None:
    (here / "lib").mkdir()
    path = written(here / "experiment", "[task]\nname = 'mine:Mine'")
    scenario = load_scenario(path, {"task.import_from": "['lib']"})
    assert scenario.task.import_from == (str(here / "lib"),)
    shipped = load_scenario("digits", {"task.name": "mine:Mine"})
    assert shipped.task.import_from == (str(here),)


def test_a_run_that_is_resumed_from_elsewhere_finds_the_same_code(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scenario = load_scenario(written(here / "experiment", "[task]\nname = 'mine:Mine'"))
    (here / "out").mkdir()
    resolved = written(here / "out", scenario.to_toml())
    monkeypatch.chdir(here / "out")
    assert load_scenario(resolved) == scenario


def test_tasks_with_a_name_need_no_folder(here: Path) -> None:
    before = list(sys.path)
    scenario = load_scenario(written(here / "experiment", "[task]\nname = 'digits'"))
    build_task_of(scenario)
    assert scenario.task.import_from == ()
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = 'mine:Mine'\nimport_from = ['nowhere']", "no folder .*nowhere"),
        ("name = 'absent_module:Mine'", "cannot load 'absent_module:Mine'"),
    ],
)
def test_code_that_is_not_there_is_bad_input(here: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        build_task_of(load_scenario(written(here / "experiment", f"[task]\n{text}")))
