"""slimfleet-device as a person calls it, on the machine that runs the tests."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from slimfleet.client import cli
from slimfleet.client.anatomy import at_width, whole_tensors
from slimfleet.client.benchmark import measure_training, measured_power
from slimfleet.client.figures import Figure, profile_figures, profile_like, profile_of
from slimfleet.client.meters import Meter, NoMeter, Reading, SampledMeter
from slimfleet.client.meters.power_supply import find_gauges
from slimfleet.client.tables import benchmark_text
from slimfleet.client.tasks import Digits
from slimfleet.client.tasks.packaged import DataPackage
from slimfleet.compression import BadInput, DeviceProfile
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.edge.command_line import json_text
from slimfleet.compression.pruning.blueprint import blueprint

# Flower holds typer at a version that uses names which Click has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click 9:DeprecationWarning")

Run = Callable[..., tuple[int, str, str]]

GRU_TASK = """
import torch
from torch import nn
from slimfleet.compression import Examples

class Net(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.gru, self.out = nn.GRU(3, hidden, batch_first=True), nn.Linear(hidden, 2)
    def forward(self, x):
        return self.out(self.gru(x)[0][:, -1])

class Sums:
    name, partitions = "sums", 1
    def __init__(self, partitions, seed, hidden=8):
        self.hidden = hidden
    def build_model(self):
        return Net(self.hidden)
    def example_inputs(self):
        return (torch.zeros(1, 5, 3),)
    def load(self, partition):
        x = torch.randn(40, 5, 3, generator=torch.Generator().manual_seed(0))
        return Examples(x, (x.sum((1, 2)) > 0).long())
    def loss(self, outputs, targets):
        return nn.functional.cross_entropy(outputs, targets)
    def evaluate(self, model):
        raise NotImplementedError
"""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["slimfleet-device", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return run


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "sums_task.py").write_text(GRU_TASK)
    return tmp_path


def test_inspect_counts_what_shrinks_of_the_users_own_task(device: Run, own: Path) -> None:
    code, out, _ = device("inspect", "sums_task:Sums", "--import-from", own, "--width", 1, "--width", 0.5)
    assert code == 0
    assert "Whole at every width: out.bias" in out
    # GRU of 8 units over 3 inputs: 3·8·(3 + 8 + 2), and a linear layer of 8·2 + 2; of 4 units likewise.
    assert "330" in out
    assert "118" in out


def test_options_reach_the_task(device: Run, own: Path) -> None:
    code, out, _ = device(
        "inspect", "sums_task:Sums", "--import-from", own, "--option", "hidden=4", "--width", 1
    )
    assert code == 0
    assert "118" in out
    assert "330" not in out


def test_a_built_in_task_needs_no_data_to_be_inspected(device: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DataPackage, "file", lambda *arguments: pytest.fail("data were asked for"))
    code, out, _ = device("inspect", "spoken-digits", "--option", "model=lstm", "--width", 0.5, "--json")
    assert code == 0
    assert [(group["name"], group["size"]) for group in json.loads(out)["groups"]] == [("recurrent", 96)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["spoken-digit"], "did you mean 'spoken-digits'?"),
        (["spoken-digits", "--option", "modle=lstm"], "has no option modle (did you mean 'model'?)"),
        (["spoken-digits", "--option", "model=ltsm"], "model is 'ltsm' (did you mean 'lstm'?)"),
    ],
)
def test_the_nearest_task_option_and_model_are_named(device: Run, arguments: list[str], message: str) -> None:
    code, _, err = device("inspect", *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_a_narrow_model_costs_less_of_everything() -> None:
    task = Digits(1)
    architecture = blueprint(task, seed=0)
    wide, narrow = (at_width(task, architecture, width, RUNTIMES["lite"], 16) for width in (1.0, 1e-9))
    assert wide.work.parameters == 7570
    assert narrow.channels == sum(group.min_channels for group in architecture.groups)
    assert narrow.peak_bytes <= wide.peak_bytes
    assert whole_tensors(architecture) == ["fc.bias"]


def test_a_profile_of_this_machine_as_json_and_toml(device: Run) -> None:
    options = ("--seconds", 0.2, "--idle-w", 2, "--train-w", 3.5, "--name", "bench", "--meter", "none")
    code, out, err = device("profile", "digits", *options, "--json")
    profile = DeviceProfile(**json.loads(out))
    assert code == 0
    assert (profile.name, profile.idle_w, profile.train_w, profile.battery_j) == ("bench", 2.0, 3.5, None)
    assert profile.train_flops_per_s > 1e6
    assert profile.ram_bytes > 2**28
    assert "assumed" in err
    assert "uplink_bytes_per_s" in err
    assert "train_w" not in err
    code, out, _ = device("profile", "digits", *options, "--battery-j", 4e4, "--toml")
    assert (code, tomllib.loads(out)["battery_j"]) == (0, 4e4)


def test_power_without_a_reading_must_be_given_and_is_never_guessed(device: Run) -> None:
    code, out, _ = device("profile", "--seconds", 0.1, "--meter", "none")
    assert code == 0
    assert "give --train-w" in out
    code, out, err = device("profile", "--seconds", 0.1, "--meter", "none", "--idle-w", 1, "--json")
    assert (code, out) == (2, "")
    assert "--train-w" in err
    assert "--idle-w" not in err


def test_meters_lists_the_real_ones(device: Run) -> None:
    code, out, _ = device("meters", "--seconds", 0.1)
    assert code == 0
    assert "power-supply" in out
    assert "charge-counter" in out
    assert "simulated" not in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("inspect", "digit"), "'digits'"),
        (("inspect", "absent_module:Task"), "absent_module"),
        (("inspect", "digits", "--import-from", "nowhere"), "nowhere"),
        (("inspect", "digits", "--width", "0"), "width"),
        (("inspect", "digits", "--option", "alpha"), "key=value"),
        (("inspect", "digits", "--option", "size=3"), "size"),
        (("inspect", "digits", "--runtime", "jax"), "jax"),
        (("profile", "--meter", "battery"), "battery"),
        (("profile", "--like", "pi_zero"), "pi_zero_2w"),
        (("profile", "--seconds", "soon"), "soon"),
        (
            ("profile", "--seconds", "0.1", "--meter", "none", "--idle-w", "1", "--train-w", "0", "--json"),
            "train_w",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(device: Run, arguments: tuple[str, ...], word: str) -> None:
    code, out, err = device(*arguments)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert word in err


def test_bad_input_ends_a_real_process_with_2_and_one_line() -> None:
    command = [sys.executable, "-m", "slimfleet.client.cli", "inspect", "digits", "--runtime", "jax"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "jax" in done.stderr


def test_policy_shows_the_condition_and_what_a_file_says_of_it(device: Run, tmp_path: Path) -> None:
    battery = tmp_path / "sys/class/power_supply/battery"
    battery.mkdir(parents=True)
    for name, value in {"type": "Battery", "capacity": "74", "status": "Discharging"}.items():
        (battery / name).write_text(f"{value}\n")
    policy = tmp_path / "policy.toml"
    policy.write_text("battery_floor = 0.75\n")
    code, out, _ = device("policy", "--root", tmp_path)
    assert code == 0
    assert "74%" in out
    assert out.count("unknown") == 3
    code, out, _ = device("policy", policy, "--root", tmp_path)
    assert code == 0
    assert f"{policy} forbids work now (battery_low): the battery is at 74%, battery_floor is 75%" in out
    code, out, _ = device("policy", policy, "--root", tmp_path, "--metered", "--json")
    found = json.loads(out)
    assert (found["refusal"], found["condition"]["metered"]) == ("battery_low", True)
    policy.write_text("battery_floor = 0.74\n")
    assert "allows work now" in device("policy", policy, "--root", tmp_path)[1]
    policy.write_text("battery_flor = 0.74\n")
    code, out, err = device("policy", policy)
    assert (code, out) == (2, "")
    assert "did you mean 'battery_floor'" in err


@pytest.mark.parametrize("command", [(), ("inspect",), ("profile",), ("meters",), ("policy",)])
def test_help_needs_no_heavy_library(command: tuple[str, ...]) -> None:
    code = (
        "import sys; from slimfleet.client.cli import app;"
        f"app([*{command!r}, '--help'], standalone_mode=False);"
        "print(sorted({'torch', 'flwr', 'sklearn'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Usage" in said
    assert said.splitlines()[-1] == "[]"


def test_a_benchmark_counts_the_examples_it_trained_on() -> None:
    """The clock moves by a second a look: as the run of 20 s begins, before each step, and after each stretch.

    So a stretch of 4 s has three steps in 5 s.
    """
    looks = iter(range(1000))
    state = torch.get_rng_state()
    found = measure_training(Digits(1), 16, 20.0, NoMeter(), clock=lambda: float(next(looks)))
    work = at_width(Digits(1), blueprint(Digits(1), 0), 1.0, RUNTIMES["torch"], 16).work
    assert (found.steps, found.seconds) == (12, 20.0)
    assert found.speeds == pytest.approx([work.flops_per_example * 16 * 3 / 5] * 4)
    assert found.flops_per_s == pytest.approx(found.speeds[0])
    assert found.reading is None
    assert torch.equal(state, torch.get_rng_state())


def test_a_speed_is_the_median_of_stretches_and_their_spread_is_shown() -> None:
    """One stretch of the five stands still for as long as the others together."""
    now, looks = 0.0, 0

    def clock() -> float:
        nonlocal now, looks
        looks += 1
        now += 4.0 if looks == 8 else 0.1
        return now

    found = measure_training(Digits(1), 16, 5.0, NoMeter(), clock=clock)
    assert found.speeds == tuple(sorted(found.speeds))
    assert found.speeds[0] < 0.6 * found.flops_per_s
    text = benchmark_text(found, cores=4)
    for speed in (found.speeds[0], found.flops_per_s, found.speeds[-1]):
        assert f"{speed / 1e9:.3g}" in text
    assert "GFLOP/s" in text


def test_a_step_longer_than_the_whole_benchmark_is_still_a_measurement() -> None:
    """Three looks while warming up, then as it begins, before its only step, after that, and at the end."""
    times = iter([0.0, 0.0, 0.0, 0.0, 0.01, 100.0, 200.0])
    found = measure_training(Digits(1), 16, 1.0, NoMeter(), clock=lambda: float(next(times)))
    assert (found.steps, len(found.speeds)) == (1, 1)


def test_power_of_training_is_what_the_meter_shows_above_idle(tmp_path: Path) -> None:
    battery = tmp_path / "BAT0"
    battery.mkdir()
    for name, text in (("type", "Battery"), ("status", "Discharging"), ("power_now", "4000000")):
        (battery / name).write_text(text)
    now = iter(range(100))

    def at_once(sample: Callable[[], None], interval_s: float) -> Callable[[], None]:
        for _ in range(20):
            sample()
        return lambda: None

    meter = SampledMeter(partial(find_gauges, tmp_path), clock=lambda: float(next(now)), sampler=at_once)

    def power(training: Reading | None, meter: Meter = meter) -> dict[str, float | None]:
        return measured_power(training, meter, 1.0, sleep=lambda _: None)

    hard, easy = (Reading(energy_j, 10.0, "measured", 100) for energy_j in (70.0, 30.0))
    assert power(hard) == {"idle_w": pytest.approx(4.0), "train_w": pytest.approx(3.0)}
    assert power(easy) == {"idle_w": pytest.approx(4.0), "train_w": None}
    assert power(None) == power(hard, NoMeter()) == {}


def test_what_is_given_comes_before_what_is_measured_and_that_before_what_is_assumed() -> None:
    measured = {"name": "here", "ram_bytes": 10**9, "train_flops_per_s": 1e9, "idle_w": None}
    given = {"device_class": "sbc", "train_flops_per_s": 2e9, "train_w": 3.0, "idle_w": None}
    figures = profile_figures(given, measured)
    assert {name: figure.origin for name, figure in figures.items()} == {
        "name": "measured", "device_class": "given", "ram_bytes": "measured", "train_flops_per_s": "given",
        "idle_w": "unknown", "train_w": "given", "uplink_bytes_per_s": "assumed",
        "downlink_bytes_per_s": "assumed", "radio_j_per_byte_up": "assumed", "radio_j_per_byte_down": "assumed",
        "radio_j_per_burst": "assumed", "battery_j": "assumed", "bfloat16": "assumed",
        "runtime_base_bytes": "assumed", "runtime_fixed_bytes": "assumed", "runtime_activation_factor": "assumed",
    }  # fmt: skip
    assert figures["train_flops_per_s"].value == 2e9
    with pytest.raises(BadInput, match="idle_w could not be measured"):
        profile_of(figures)
    assert profile_figures({}, measured)["device_class"] == Figure("device", "assumed")


def test_what_is_unknown_comes_from_a_device_of_the_table() -> None:
    measured = {"name": "here", "ram_bytes": 10**9, "train_flops_per_s": 1e9}
    figures = profile_figures({"train_w": 3.0}, measured, profile_like("pi_zero_2w"))
    assert {figure.origin for figure in figures.values()} == {"given", "measured", "table"}
    assert figures["idle_w"] == Figure(0.6, "table")
    assert figures["train_w"] == Figure(3.0, "given")
    found = profile_of(figures)
    assert (found.device_class, found.battery_j) == ("sbc-low", None)


def test_the_table_of_figures_has_units_and_origins(device: Run) -> None:
    code, out, _ = device("profile", "--seconds", 0.1, "--meter", "none", "--like", "phone_mid_2019")
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line.startswith(" ") and line.strip()}
    for name, unit in (
        ("ram_bytes", "GB"),
        ("train_flops_per_s", "GFLOP/s"),
        ("idle_w", "W"),
        ("uplink_bytes_per_s", "MB/s"),
        ("radio_j_per_byte_up", "J/MB"),
        ("battery_j", "kJ"),
    ):
        assert f" {unit} " in rows[name]
    assert "measured" in rows["ram_bytes"]
    assert "table" in rows["device_class"]
    code, out, _ = device("profile", "--seconds", 0.1, "--meter", "none", "--like", "pi_zero_2w", "--json")
    assert (code, json.loads(out)["idle_w"]) == (0, 0.6)


DEEP_TASK = """
import torch
from sums_task import Sums
from torch import nn

class Deep(Sums):
    def build_model(self):
        layers = [each for _ in range(12) for each in (nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())]
        model = nn.Sequential(nn.Conv2d(1, 8, 3), *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        for name in ("block", "a_part_with_quite_a_long_name", "and_one_more_that_is_longer", "encoder"):
            model, inner = nn.Sequential(), model
            model.add_module(name, inner)
        return model
    def example_inputs(self):
        return (torch.zeros(1, 1, 8, 8),)
"""


def test_inspect_has_one_line_a_group_in_80_columns(
    device: Run, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    (own / "deep_task.py").write_text(DEEP_TASK)
    arguments = ("inspect", "deep_task:Deep", "--import-from", own, "--width", 0.5)
    _, out, _ = device(*arguments, "--json")
    groups = json.loads(out)["groups"]
    assert len(groups) == 13
    assert groups[0]["size"] == 8
    code, short, _ = device(*arguments)
    assert code == 0
    assert max(map(len, short.splitlines())) <= 80
    assert len(short.splitlines()) <= len(groups) + 20
    for group in groups:
        assert group["name"][-20:] in short
        assert group["tensors"][-1] not in short
    _, full, _ = device(*arguments, "--verbose")
    told = "".join(full.split())
    for group in groups:
        assert group["name"] in told
        assert all(tensor in told for tensor in group["tensors"])


def test_inspects_json_has_plain_numbers_for_every_width(device: Run, own: Path) -> None:
    code, out, err = device("inspect", "sums_task:Sums", "--import-from", own, "--width", 0.5, "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    group, tensors = found["groups"][0], found["tensors"]
    members = group.pop("members")
    assert group == {
        "name": "gru",
        "size": 8,
        "least": 1,
        "tensors": ["gru.weight_ih_l0", "gru.weight_hh_l0", "gru.bias_ih_l0", "gru.bias_hh_l0", "out.weight"],
    }
    rows = [[k, k + 8, k + 16] for k in range(8)]
    assert members[0] == {"tensor": "gru.weight_ih_l0", "dim": 0, "positions": rows}
    assert [tensor["name"] for tensor in tensors] == [*group["tensors"], "out.bias"]
    assert {(tensor["dtype"], tensor["kind"]) for tensor in tensors} == {("float32", "weight")}
    assert found["whole_tensors"] == ["out.bias"]
    assert {"name", "size", "reason"} >= {key for whole in found["whole"] for key in whole}
    (width,) = found["widths"]
    assert {key: type(value) for key, value in width.items()} == {
        "width": float, "channels": int, "parameters": int, "flops": int, "activation_bytes": int,
        "peak_memory_bytes": int,
    }  # fmt: skip
    assert (width["width"], width["channels"], width["parameters"]) == (0.5, 4, 118)


def test_json_is_strict() -> None:
    numbers = {"a": float("nan"), "b": [float("inf"), 1.5], "c": (None, True, "x")}
    assert json.loads(json_text(numbers)) == {"a": None, "b": [None, 1.5], "c": [None, True, "x"]}


def test_every_command_prints_json(device: Run) -> None:
    code, out, _ = device("inspect", "digits", "--width", 1, "--json")
    assert (code, json.loads(out)["widths"][0]["parameters"]) == (0, 7570)
    code, out, _ = device("meters", "--seconds", 0.1, "--json")
    assert (code, set(json.loads(out))) == (0, {"batteries", "meters"})
