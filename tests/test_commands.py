"""What all commands have in common: their help, their version, and what they make of terminals and installations."""

import io
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
import typer

from slimfleet.compression.edge.command_line import command_app, run_app
from slimfleet.compression.edge.logs import LEVELS

ROOT = Path(__file__).parent.parent
APPS = {
    "slimfleet-compress": "slimfleet.compression.cli",
    "slimfleet-coordinator": "slimfleet.coordinator.cli",
    "slimfleet-device": "slimfleet.client.cli",
    "slimfleet-simulate": "slimfleet.simulations.cli",
}

SMALL = ["--rounds", "1", "--devices", "20", "--set", "selection.per_round=5"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        with pytest.raises(SystemExit) as caught:
            import_module(APPS[name]).main()
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return call


def commands() -> Iterator[tuple[str, str, click.Command]]:
    """Every command: its application, the arguments that lead to it, and itself."""
    for name, module in APPS.items():
        home = import_module(module)
        yield from within(name, "", typer.main.get_command(home.app))
        for sub, own in getattr(home, "COMMANDS", {}).items():  # beside a command without a name
            yield from within(name, sub, typer.main.get_command(import_module(own).app))


def within(name: str, words: str, command: click.Command) -> Iterator[tuple[str, str, click.Command]]:
    """A command and all that are in it."""
    yield name, words, command
    for sub, inner in command.commands.items() if isinstance(command, click.Group) else ():
        yield from within(name, f"{words} {sub}".strip(), inner)


ALL = list(commands())


@pytest.mark.parametrize(("name", "sub", "command"), ALL, ids=[f"{name} {sub}" for name, sub, _ in ALL])
def test_the_help_tells_every_argument_and_option_in_full(
    name: str, sub: str, command: click.Command, run: Run
) -> None:
    code, said, _ = run(name, *sub.split(), "-h")
    assert code == 0
    assert f"Usage: {name}" in said
    assert max(len(line) for line in said.splitlines()) <= 80
    words = said.translate(str.maketrans("│", " ")).split()
    for parameter in command.params:
        help_text = getattr(parameter, "help", None)
        assert help_text, f"{name} {sub}: {parameter.name} has no help"
        if getattr(parameter, "hidden", False):
            continue
        for option in parameter.opts if isinstance(parameter, click.Option) else ():
            assert option in words, f"{name} {sub}: {option} is not shown whole"
        missing = [word for word in help_text.replace("\\[", "[").split() if word not in words]
        assert not missing, f"{name} {sub}: {parameter.name} loses {missing}"
        assert "[" not in help_text.replace("\\[", ""), (
            f"{name} {sub}: {parameter.name}: rich takes it for markup"
        )


@pytest.mark.parametrize(("name", "sub", "command"), ALL, ids=[f"{name} {sub}" for name, sub, _ in ALL])
def test_examples_stand_on_lines_of_their_own(name: str, sub: str, command: click.Command, run: Run) -> None:
    _, said, _ = run(name, *sub.split(), "--help")
    examples = [
        line.strip() for line in (command.help or "").splitlines() if line.strip().startswith(f"{name} ")
    ]
    lines = [line.strip() for line in said.splitlines()]
    assert [line for line in examples if line not in lines] == []


SINGLE = [(name, sub, command) for name, sub, command in ALL if not isinstance(command, click.Group)]


@pytest.mark.parametrize(("name", "sub", "command"), SINGLE, ids=[f"{name} {sub}" for name, sub, _ in SINGLE])
def test_every_command_has_the_options_of_every_command(
    name: str, sub: str, command: click.Command, run: Run
) -> None:
    options = {option for each in command.params for option in each.opts}
    assert {"--quiet", "-q", "--verbose", "-v", "--log-level", "--log-json", "--version"} <= options
    code, _, said = run(name, *sub.split(), "--log-level", "loud")
    assert code == 2
    assert said.splitlines() == [
        "error: Invalid value for '--log-level': 'loud' is not one of " + ", ".join(map(repr, LEVELS)) + "."
    ]


@pytest.mark.parametrize(("name", "sub", "command"), ALL, ids=[f"{name} {sub}" for name, sub, _ in ALL])
def test_no_color_is_respected(
    name: str, sub: str, command: click.Command, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("typer.rich_utils.FORCE_TERMINAL", True)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, coloured, _ = run(name, *sub.split(), "--help")
    monkeypatch.setenv("NO_COLOR", "1")
    _, plain, _ = run(name, *sub.split(), "--help")
    assert COLOUR.search(coloured)
    assert not COLOUR.search(plain)


COLOUR = re.compile(r"\x1b\[(\d+;)*(3[0-8]|4[0-8]|9[0-7])(;\d+)*m")


@pytest.mark.parametrize(("name", "sub", "command"), ALL, ids=[f"{name} {sub}" for name, sub, _ in ALL])
def test_the_version(name: str, sub: str, command: click.Command, run: Run) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    code, out, _ = run(name, *sub.split(), "--version")
    assert (code, out.split()[:1]) == (0, ["slimfleet"])
    assert version in out or "not installed" in out


def python(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_package_itself_can_be_run() -> None:
    said = python("-m", "slimfleet", "simulate", "--version")
    assert (said.returncode, said.stdout.split()[0]) == (0, "slimfleet")
    wrong = python("-m", "slimfleet", "simulat")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    assert "simulate,compress,device,coordinator" in wrong.stderr
    assert python("-m", "slimfleet", "--help").returncode == 0


def test_every_script_starts_where_ctrl_c_is_answered() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    entries = import_module("slimfleet.__main__")
    assert scripts.keys() == APPS.keys()
    for name, entry in scripts.items():
        module, _, function = entry.partition(":")
        assert module == "slimfleet.__main__"
        assert callable(getattr(entries, function))
        assert entries.COMMANDS[function] == APPS[name]


def test_ctrl_c_during_imports_ends_with_130_and_without_a_traceback(tmp_path: Path) -> None:
    """Numpy, which the first imports bring, takes long: a stand-in waits in it for as long as it takes."""
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text(
        "import pathlib, time\npathlib.Path(__file__).with_name('here').touch()\nexec('time.sleep(60)')\n"
    )
    path = os.pathsep.join([str(tmp_path), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-m", "slimfleet", "simulate"],
        env=os.environ | {"PYTHONPATH": path},
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs tests in the background makes its children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "numpy" / "here").exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, said) == (130, "interrupted\n")


def complete(name: str, words: str, shell: str = "bash") -> list[str]:
    """What a shell would offer for the last of `words`."""
    short = name.removeprefix("slimfleet-")
    asked = {
        f"_SLIMFLEET_{short.upper()}_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
        "_TYPER_COMPLETE_ARGS": words,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    return python("-m", "slimfleet", short, **asked).stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("slimfleet-simulate fash", ["fashion_mnist"]),
        ("slimfleet-simulate --backend r", ["ray"]),
        ("slimfleet-simulate sw", ["sweep"]),
        ("slimfleet-simulate sweep --jo", ["--jobs"]),
        ("slimfleet-device pol", ["policy"]),
        ("slimfleet-coordinator plan --log-level w", ["warning"]),
        ("slimfleet-compress pack --preset f", ["fast"]),
    ],
)
def test_completion_knows_commands_options_and_their_values(words: str, offered: list[str]) -> None:
    assert complete(words.split(" ")[0], words) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_complete_alike(shell: str) -> None:
    assert "--jobs" in "".join(complete("slimfleet-simulate", "slimfleet-simulate sweep --jo", shell))


def test_bash_takes_the_script_of_a_completion() -> None:
    script = python("-m", "slimfleet", "device", _SLIMFLEET_DEVICE_COMPLETE="source_bash").stdout
    told = subprocess.run(
        ["bash", "-c", f"{script}\ncomplete -p slimfleet-device"], capture_output=True, text=True, check=True
    )
    assert told.stdout.startswith("complete ")


ODD_TEXT = '"57× less – “done” … ▇ ж"'


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp866", "koi8-r", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_replaced(encoding: str) -> None:
    program = (
        "import typer; from rich.console import Console; from rich.table import Table;"
        "from slimfleet.compression import BadInput;"
        "from slimfleet.compression.edge.command_line import command_app, run_app;"
        "app = command_app();\n"
        "@app.command()\ndef go():\n"
        f" table = Table(title={ODD_TEXT}); table.add_column('×'); table.add_row({ODD_TEXT})\n"
        f" Console().print(table); print({ODD_TEXT}); raise BadInput({ODD_TEXT})\n"
        "run_app(app, 'x', 'device')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
        timeout=60,
        check=False,
    )
    out, err = done.stdout.decode(encoding), done.stderr.decode(encoding)
    assert done.returncode == 2, err
    assert len(err.splitlines()) == 1
    assert "less" in out
    assert "57x less" in err or "57× less" in err


@pytest.mark.parametrize("encoding", ["cp437", "koi8-r"])
def test_a_run_does_not_fail_at_its_end_for_want_of_a_character(
    encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streams as a terminal of this encoding gives them; the test before has processes."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, write_through=True) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    monkeypatch.setattr(sys, "argv", ["slimfleet-simulate", *SMALL, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        import_module(APPS["slimfleet-simulate"]).main()
    assert not ended.value.code, err.buffer.getvalue()
    assert "slimfleet" in out.buffer.getvalue().decode(encoding)


def simulate_without(module: str, out: Path) -> subprocess.CompletedProcess[str]:
    small = [*SMALL, "--out", str(out)]
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = ['x', *{small!r}];"
        "from slimfleet.__main__ import simulate; simulate()"
    )
    return python("-c", code)


@pytest.mark.parametrize("module", ["flwr", "sklearn"])
def test_a_missing_package_is_named_with_the_extra_that_has_it(module: str, tmp_path: Path) -> None:
    done = simulate_without(module, tmp_path / "out")
    assert (done.returncode, done.stdout) == (2, "")
    assert "not installed" in done.stderr
    assert "pip install 'slimfleet[simulation]'" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out" / "summary.json").exists()


def test_a_run_without_matplotlib_says_why_its_report_has_no_plots(tmp_path: Path) -> None:
    done = simulate_without("matplotlib", tmp_path / "out")
    assert done.returncode == 0
    assert "matplotlib is not installed: pip install 'slimfleet[" in done.stderr
    assert (tmp_path / "out" / "report.html").exists()


def fails(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    app = command_app()

    @app.command()
    def go() -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["x"])
    with pytest.raises(SystemExit) as caught:
        run_app(app, "x", extra="device")
    return int(caught.value.code or 0)


@pytest.mark.parametrize(
    ("module", "extra"),
    [
        ("torch", "device"),
        ("flwr", "flower"),
        ("prometheus_client", "coordinator"),
        ("optuna", "model"),
        ("ray", "simulation"),
    ],
)
def test_the_smallest_extra_that_brings_a_package_is_named(
    module: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fails(ModuleNotFoundError(name=f"{module}.deeper"), monkeypatch) == 2
    assert capsys.readouterr().err == (
        f"error: {module} is not installed, which this needs: pip install 'slimfleet[{extra}]'\n"
    )


def test_a_module_that_ought_to_be_there_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModuleNotFoundError):
        fails(ModuleNotFoundError(name="slimfleet.nowhere"), monkeypatch)


@pytest.mark.parametrize("where", ["pipe", "full"])
def test_output_that_cannot_be_written_ends_without_a_traceback(where: str) -> None:
    if where == "full" and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    target = "| true" if where == "pipe" else "> /dev/full"
    command = f'"{sys.executable}" -c "import time; time.sleep(0.5)" && "{sys.executable}" -m slimfleet device meters'
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; ({command} --seconds 0.1) {target}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
