"""Scenarios at their limits: one clear line and exit code 2, or a run that is right."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from slimfleet.simulations import cli
from slimfleet.simulations.scenario import folder_name, load_scenario

HERE = str(Path(__file__).parent)

SMALL = """
rounds = 2
selection.per_round = 4
fleet.devices = 6
fleet.dropout = 0.0
task.name = "bad_tasks:T"
"""

Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Say:
    """Run a small simulation of points; gives its exit code, stdout and stderr without the rounds."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "here" / "small.toml").write_text(SMALL)

    def run(*settings: str, scenario: str = "small.toml") -> tuple[int, str, str]:
        options = [f"task.import_from=['{HERE}']", *settings]
        monkeypatch.setattr(sys, "argv", ["simulate", scenario, *(w for s in options for w in ("--set", s))])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if ": round " not in line]
        return int(ended.value.code or 0), out, "\n".join(lines)

    return run


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        (f"seed={'1' * 5_000}", "seed"),
        (f"seed=0x{'f' * 5_000}", "too long"),
        (f"budget.energy_j={'9' * 4_000}", "must be a finite number"),
        (f"planner.widths={'[' * 3_000}1{']' * 3_000}", "too deep"),
        (f"task.options.{'a.' * 3_000}b=1", "too deep"),
        ('name="\\u0000"', "must be printable"),
        ('name="a\\nb"', "must be printable"),
        (f'name="{"x" * 100_000}"', "at most 100 characters"),
        ('task.name="\\u0000:x"', "cannot load"),
        (f'task.name="{"x" * 100_000}:y"', "cannot load"),
        ("task.name=builtins:int", "'builtins:int'"),
        ("fleet.mix={pi_5=1e308, pi_4b=1e308}", "fleet.mix.pi_5 = 1e+308"),
        ("server.learning_rate=1e308", "server.learning_rate = 1e+308"),
        ("client.learning_rate=1e308", "client.learning_rate = 1e+308"),
        ("client.proximal=1e308", "client.proximal = 1e+308"),
        ("planner.safety=1e308", "planner.safety = 1e+308"),
        ("selection.min_devices=1_000_000", "selection.min_devices = 1000000 is more than fleet.devices"),
        ("task.alpha=nan", "task.alpha = NaN: must be a number"),
        ("task.alpha=-inf", "task.alpha = -Infinity"),
        ("task.alpha=0", "task.alpha = 0: must be greater than 0"),
        ("task.alpha=-1.0", "task.alpha = -1.0: must be greater than 0"),
        ("budget.energy_j=inf", "budget.energy_j = Infinity: must be a finite number"),
    ],
)
def test_what_is_beyond_them_is_refused_in_one_line(
    setting: str, said: str, say: Say, tmp_path: Path
) -> None:
    code, out, err = say(setting)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert err.isprintable()
    assert len(err) < 2_100
    assert said in err
    assert [path.name for path in Path().iterdir()] == ["small.toml"]


@pytest.mark.parametrize(
    "text", ["planner.widths = " + "[" * 3_000 + "]" * 3_000, "[" + "a." * 3_000 + "b]\nx = 1"]
)
def test_a_file_that_is_nested_too_deep_is_refused_in_one_line(text: str, say: Say) -> None:
    Path("deep.toml").write_text(text)
    code, out, err = say(scenario="deep.toml")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "too deep" in err


def test_an_even_split_is_asked_for_with_infinity_and_can_be_resumed(say: Say) -> None:
    code, _, err = say("task.alpha=inf", "name='even'")
    assert (code, err) == (0, "")
    again = load_scenario("slimfleet-out/even/scenario.toml")
    assert again.task.alpha == float("inf")


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("pilot", "pilot"),
        ("pilot-2_b.c", "pilot-2_b.c"),
        ("été", "été"),
        ("/abs/path", "abs-path"),
        ("../../x", "x"),
        ("..", "run"),
        (".hidden", "hidden"),
        ("a\0b\nc", "a-b-c"),
        ("[bold]x[/nope]", "bold-x-nope"),
        ("x" * 300, "x" * 64),
    ],
)
def test_a_name_makes_one_folder_whatever_it_holds(name: str, folder: str) -> None:
    assert folder_name(name) == folder


@pytest.mark.parametrize("name", ["/tmp/slimfleet-elsewhere", "../../x", "[bold]x[/nope]"])
def test_a_run_of_any_name_ends_well_and_stays_in_its_folder(name: str, say: Say, tmp_path: Path) -> None:
    code, out, err = say(f"name='{name}'")
    assert (code, err) == (0, "")
    assert name in out
    assert [path.name for path in Path("slimfleet-out").iterdir()] == [folder_name(name)]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert not Path("/tmp/slimfleet-elsewhere").exists()


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ("budget.energy_j=1e-6", "no plan fits (energy_j)"),
        ("client.learning_rate=1e5", "rejected (norm)"),
        ("fleet.faults={truncated=1.0}", "rejected (truncated)"),
    ],
)
def test_a_run_that_used_no_update_fails_says_why_and_publishes_no_model(
    setting: str, why: str, say: Say
) -> None:
    code, out, err = say(setting, "name='none'")
    assert (code, out) == (1, "")
    assert err.startswith("error: not one update was used in ")
    assert len(err.splitlines()) == 1
    assert why in err
    folder = Path("slimfleet-out/none")
    assert (folder / "rounds.csv").exists()
    assert not list(folder.glob("model*"))


def test_a_scalar_parameter_is_a_parameter(say: Say) -> None:
    """Temperatures and gates are such."""
    code, _, err = say("task.name='bad_tasks:with a scalar'", "name='scalar'")
    assert (code, err) == (0, "")
    assert load_file("slimfleet-out/scalar/model.safetensors")["temperature"].shape == ()
