"""What a run demands of its folder: one run at a time, a disk that takes it, and the scenario that it began with."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from slimfleet.compression.errors import BadInput, DiskError
from slimfleet.compression.files import locked
from slimfleet.simulations import cli, load_scenario, simulate
from slimfleet.simulations.run import resumed_scenario

TINY = {"rounds": "2", "fleet.devices": "6", "selection.per_round": "2", "planner.widths": "[0.5]"}


def tiny(**changes):
    return load_scenario("digits", TINY | {key.replace("__", "."): value for key, value in changes.items()})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    simulate(tiny(), out)
    return out


@pytest.fixture
def run(finished, tmp_path):
    """A copy of a finished run, to be spoiled."""
    return shutil.copytree(finished, tmp_path / "out")


def says(capsys, monkeypatch, *arguments):
    """The one line of a command that is refused."""
    monkeypatch.setattr(sys, "argv", ["slimfleet-simulate", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2, said
    assert len(said.splitlines()) == 1, said
    return said


FOLDERS = {
    "a file": ("afile", "afile: Not a directory"),
    "below a file": ("afile/out", "afile/out: Not a directory"),
    "where none can be made": ("/proc/slimfleet", "/proc/slimfleet: No such file"),
    "a dangling link": ("link", "link is a link to nowhere"),
    "a loop": ("loop", "loop"),
    "a name too long": ("x" * 300, "File name too long"),
    "in use for other things": ("used", "used is not empty"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_cannot_be_used_gives_one_line(kind, tmp_path, monkeypatch, capsys):
    name, expected = FOLDERS[kind]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "afile").write_text("")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "letter.txt").write_text("")
    assert expected in says(capsys, monkeypatch, "--out", name)
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["letter.txt"]


HOLDS = """
import sys, time
from pathlib import Path
from slimfleet.compression.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_in_one_folder_is_refused_until_the_first_has_ended_however_it_ends(
    run, monkeypatch, capsys
):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(run)], stdout=subprocess.PIPE, text=True
    ) as first:
        try:
            assert first.stdout.readline() == "held\n"
            said = says(capsys, monkeypatch, "--resume", run)
            assert f"{run} is in use by process {first.pid} on " in said
            with pytest.raises(BadInput, match="in use by process"):
                simulate(tiny(), run, resume=True)
            first.send_signal(signal.SIGKILL)
            first.wait(timeout=20)
        finally:
            first.kill()
    simulate(tiny(), run, resume=True)


def test_two_runs_that_begin_at_once_do_not_share_a_folder(tmp_path):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"), pytest.raises(BadInput, match=f"in use by process {os.getpid()}"):
        simulate(tiny(), tmp_path / "out")
    simulate(tiny(), tmp_path / "out")


def test_a_lock_is_no_way_to_another_file(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(DiskError, match=r"cannot write .*\.lock"):
        simulate(tiny(), tmp_path / "out")
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("full_at", [".device", "round-000002", "rounds.csv", "model.safetensors"])
def test_a_full_disk_ends_a_run_in_one_line_and_the_run_can_be_resumed(
    full_at, finished, tmp_path, monkeypatch
):
    out, fine, written = tmp_path / "out", os.replace, []

    def full(source, target):
        if str(target).endswith(full_at):
            written.append(target)
            if len(written) > (full_at == ".device"):  # let one device save
                raise OSError(28, "No space left on device")
        fine(source, target)

    with monkeypatch.context() as disk:
        disk.setattr(os, "replace", full)
        disk.setattr(os, "rename", full)
        with pytest.raises(DiskError) as refused:
            simulate(tiny(), out)
    line = str(refused.value)
    assert "No space left on device" in line
    assert f"--resume {out}" in line
    assert len(line.splitlines()) == 1
    simulate(tiny(), out, resume=True)
    assert (out / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()


EDITS = {
    "seed": ("seed = 0", "seed = 7", "seed is 7"),
    "a learning rate": ("[client]\n", "[client]\nlearning_rate = 0.5\n", "client.learning_rate is 0.5"),
    "devices": ("devices = 6", "devices = 7", "fleet.devices is 7"),
    "a removed key": ("[server]\n", "[server]\nabsent_weight = 0.75\n", "server.absent_weight is 0.75"),
    "the mix": ("pi_5 = 2.0", "pi_5 = 3.0", "fleet.mix.pi_5 is 3.0"),
}


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    key = new.splitlines()[-1].split(" = ")[0]
    if old.endswith("]\n"):  # a table: the key in it is replaced
        head, _, tail = text.partition(old)
        table, *others = tail.split("\n[", 1)
        kept = "\n".join(line for line in table.splitlines() if not line.startswith(f"{key} ="))
        text = "\n[".join([head + new + kept + "\n", *others])
    else:
        text = text.replace(old, new)
    path.write_text(text)


@pytest.mark.parametrize("kind", EDITS)
def test_an_edited_scenario_is_refused_by_the_name_of_the_key(kind, run, monkeypatch, capsys):
    old, new, expected = EDITS[kind]
    edit(run / "scenario.toml", old, new)
    before = (run / "model.safetensors").read_bytes()
    said = says(capsys, monkeypatch, "--resume", run)
    assert expected in said
    assert "the run began with" in said
    assert (run / "model.safetensors").read_bytes() == before


def test_a_run_may_be_given_more_rounds_and_keeps_them(run):
    simulate(resumed_scenario(run, 3), run, resume=True)
    assert resumed_scenario(run).coordinator.rounds == 3
    simulate(resumed_scenario(run), run, resume=True)
    with pytest.raises(BadInput, match="has 3 rounds already"):
        simulate(resumed_scenario(run, 2), run, resume=True)


def test_another_scenario_is_refused_by_the_name_of_the_key(run):
    other = replace(tiny(), coordinator=replace(tiny().coordinator, seed=3))
    with pytest.raises(BadInput, match="seed is 3"):
        simulate(other, run, resume=True)


def test_a_lost_copy_of_the_scenario_is_named(run):
    (run / "checkpoint" / "scenario.toml").unlink()
    with pytest.raises(BadInput, match=r"checkpoint/scenario\.toml is missing"):
        simulate(tiny(), run, resume=True)


SPOILT = {
    "every checkpoint": lambda run: [
        (f / "state.json").write_text("[]") for f in run.glob("checkpoint/round-*")
    ],
    "a file for the checkpoints": lambda run: (
        shutil.rmtree(run / "checkpoint"),
        (run / "checkpoint").write_text(""),
    ),
    "a folder for the scenario": lambda run: (
        (run / "scenario.toml").unlink(),
        (run / "scenario.toml").mkdir(),
    ),
    "a pipe for the scenario": lambda run: (
        (run / "scenario.toml").unlink(),
        os.mkfifo(run / "scenario.toml"),
    ),
    "bytes for the scenario": lambda run: (run / "scenario.toml").write_bytes(b"\xff\0"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_cannot_be_resumed_gives_one_line(kind, run, monkeypatch, capsys):
    SPOILT[kind](run)
    assert str(run) in says(capsys, monkeypatch, "--resume", run)


def test_damage_to_the_newest_checkpoint_is_said_aloud_and_undone(run, finished, monkeypatch, capsys):
    """At the default log level of the command; the round that is lost is run again."""
    state = run / "checkpoint" / "round-000002" / "state.json"
    state.write_bytes(state.read_bytes().replace(b"1", b"2", 1))
    command = [sys.executable, "-m", "slimfleet.simulations.cli", "--resume", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert "round-000002 is damaged" in done.stderr
    assert "going back to round-000001" in done.stderr
    assert (run / "model.safetensors").read_bytes() == (finished / "model.safetensors").read_bytes()
