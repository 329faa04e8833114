"""What `slimfleet-simulate` says of bad input: one line, exit code 2, and nothing written."""

import re
import sys
from pathlib import Path

import pytest

from slimfleet.simulations import cli
from slimfleet.simulations.scenario import scenario_lines

BAD = {
    "unknown scenario": (["nowhere"], "no scenario is called 'nowhere'"),
    "missing file": (["missing.toml"], "missing.toml"),
    "unknown option key": (["--set", "fleet.drpout=0.1"], "fleet.dropout"),
    "wrong type": (["--set", "fleet.devices=many"], "fleet.devices"),
    "no value": (["--set", "fleet.devices"], "key=value"),
    "more a round than devices": (["--devices", "5"], "per_round"),
    "no device": (["--devices", "0"], "fleet.devices"),
    "unknown profile": (["--set", "fleet.mix={toaster=1}"], "toaster"),
    "unknown fault": (["--set", "fleet.faults={sulks=0.1}"], "sulks"),
    "unknown backend": (["--backend", "cloud"], "'local', 'ray'"),
    "no Ray cluster": (["--ray-address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
    "no Ray address": (["--ray-address", "nonsense"], "no Ray cluster answers at nonsense"),
    "a Ray Client address": (["--ray-address", "ray://127.0.0.1:10001"], "Ray Client cannot be used"),
    "a cluster for nothing": (["--ray-address", "auto", "--backend", "local"], "leave out --backend local"),
    "unknown task": (["--set", "task.name=chess"], "chess"),
    "unknown task option": (["--set", "task.options={colour=1}"], "colour"),
    "more devices than examples": (["--devices", "5000"], "5000"),
    "absent data": (["fashion_mnist"], "apt-get install dataset-fashion-mnist"),
    "unknown flag": (["--fast"], "--fast"),
    "nothing to resume": (["--resume", "nowhere"], "no run to resume"),
    "nothing to resume in an empty folder": (["--resume", "empty"], "no run to resume"),
    "resume with other settings": (["--resume", "nowhere", "--seed", "1"], "without other settings"),
    "a bad value in a file": (["mine.toml"], "mine.toml: budget.energy_j = -1.0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_clear_line_and_exit_code_2(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, expected = BAD[case]
    (tmp_path / "mine.toml").write_text("rounds = 3\n[budget]\nenergy_j = -1.0\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLIMFLEET_FASHION_MNIST", str(tmp_path / "empty"))
    monkeypatch.setattr(sys, "argv", ["slimfleet-simulate", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert expected in said
    assert len(said.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "mine.toml"]


def test_the_help_says_what_every_option_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["slimfleet-simulate", "--help"])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().out
    assert ended.value.code == 0
    for name, line in scenario_lines().items():
        assert re.search(rf"{name} +{re.escape(line)}", said)
        assert len(line) <= 61, "a scenario's first line must fit into a terminal of 80 columns"
    for words in (
        "digits, fashion_mnist",
        "default: (slimfleet-out/NAME)",
        "the traceback of what a task raises",
    ):
        assert words in said


@pytest.mark.parametrize("option", ["--json", "--quiet"])
def test_a_run_prints_its_summary_or_nothing(
    option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [
        "--rounds",
        "1",
        "--devices",
        "20",
        "--set",
        "selection.per_round=5",
        "--out",
        str(tmp_path / "o"),
    ]
    monkeypatch.setattr(sys, "argv", ["slimfleet-simulate", *small, option])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code in (0, None)
    if option == "--json":
        assert said.out == (tmp_path / "o" / "summary.json").read_text()
    else:
        assert (said.out, said.err) == ("", "")
