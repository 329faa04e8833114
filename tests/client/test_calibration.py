"""Calibration: the fit of the memory model, rounds in processes of their own, the links, and the command."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

from slimfleet.client import cli
from slimfleet.client.benchmark import Benchmark
from slimfleet.client.calibration import link, point, speed
from slimfleet.client.calibration.link import downlink_bytes_per_s, uplink_bytes_per_s
from slimfleet.client.calibration.memory import fitted, plans_to_measure
from slimfleet.client.calibration.point import Peak, Point, measured_peak
from slimfleet.client.calibration.speed import Speed
from slimfleet.client.child import asked
from slimfleet.client.commands.calibrate import SHARES as CALIBRATED_SHARES
from slimfleet.compression import BadInput, SlimfleetError
from slimfleet.compression.cost import RUNTIMES, Runtime
from slimfleet.compression.edge.input_files import read_profile

pytestmark = pytest.mark.filterwarnings("ignore:.*will be removed in Click 9:DeprecationWarning")

TRUE = Runtime("torch", base_bytes=180_000_000, fixed_bytes=60_000_000, activation_factor=2.2)


def peak_at(width: float, activation_bytes: float, noise: float = 0.0) -> Peak:
    parameters = round(4e6 * width**2)
    peak = TRUE.base_bytes + TRUE.fixed_bytes + 3 * parameters + TRUE.activation_factor * activation_bytes
    return Peak(
        base_bytes=TRUE.base_bytes,
        peak_bytes=round(peak * (1 + noise)),
        predicted_bytes=0,
        parameter_bytes=parameters,
        activation_bytes=activation_bytes,
    )


def test_the_fit_finds_the_memory_model_of_the_device() -> None:
    rng = np.random.default_rng(0)
    peaks = [peak_at(w, a * 1e6, rng.normal(0, 0.002)) for w in (1.0, 0.5) for a in (1, 8, 40)]
    fit = fitted(peaks, RUNTIMES["torch"])
    assert fit.factor_measured
    assert fit.runtime.activation_factor == pytest.approx(TRUE.activation_factor, rel=0.05)
    assert fit.runtime.base_bytes == TRUE.base_bytes
    assert fit.runtime.fixed_bytes == pytest.approx(TRUE.fixed_bytes, rel=0.03)
    assert fit.worst_error < 0.01


def test_activations_that_hardly_differ_show_no_factor() -> None:
    fit = fitted([peak_at(1.0, a * 1e6) for a in (0.1, 0.4, 2.0)], RUNTIMES["torch"])
    assert not fit.factor_measured
    assert fit.runtime.activation_factor == RUNTIMES["torch"].activation_factor
    assert fit.runtime.fixed_bytes == pytest.approx(TRUE.fixed_bytes, rel=0.05)


@pytest.mark.parametrize(
    ("activations", "examples", "room", "batches"),
    [
        (135e3, 6_000, 1e9, {8, 53, 355}),  # 48 MB
        (135e3, 6_000, 27e6, {8, 40, 200}),
        (135e3, 90, 1e9, {8, 27, 90}),
        (1e3, 6_000, 1e9, {8, 91, 1_024}),
        (30e6, 6_000, 1e9, {1}),
        (1e6, 6_000, -5e6, {1}),
    ],
)
def test_the_rounds_that_are_measured_fit_the_device(
    activations: float, examples: int, room: float, batches: set[int]
) -> None:
    plans = plans_to_measure(activations, examples, room)
    assert {batch for width, batch in plans if width == 1.0} == batches
    assert {batch for width, batch in plans if width == 0.5} == {min(batches), max(batches)}


@pytest.fixture
def node_config(tmp_path: Path, phone: Any) -> dict[str, Any]:
    from dataclasses import asdict

    profile = tmp_path / "phone.json"
    profile.write_text(json.dumps(asdict(phone)))
    return {"partition-id": 0, "profile": str(profile), "state": str(tmp_path), "meter": "none", "threads": 1}


def test_a_round_in_a_process_of_its_own_tells_its_peak(node_config: dict[str, Any]) -> None:
    plan = Point(
        task="digits", options={}, import_from=(), node_config=node_config, width=0.5, batch_size=16, steps=2
    )
    peak = measured_peak(plan)
    assert 5e7 < peak.base_bytes < peak.peak_bytes < 3 * peak.base_bytes
    assert 0 < 3 * peak.parameter_bytes < 1e6
    assert peak.predicted_bytes > RUNTIMES["torch"].base_bytes + RUNTIMES["torch"].fixed_bytes


SPEED, POINT = speed.__name__, point.__name__


def test_what_goes_wrong_in_another_process_is_one_line_here() -> None:
    about = {"task": "digit", "options": {}, "import_from": [], "shares": 1, "meter": "none", "seconds": 1}
    with pytest.raises(BadInput, match="did you mean 'digits'"):
        asked(SPEED, about, "measuring the speed", 120)

    def ends(code: str, longest_s: float = 60.0) -> None:
        asked(POINT, {}, "the round", longest_s, lambda command: [sys.executable, "-c", code])

    with pytest.raises(SlimfleetError, match=r"^the round ended with exit code -9: it said nothing$"):
        ends("import os; os.kill(os.getpid(), 9)")
    with pytest.raises(SlimfleetError, match=r"^the round ended with exit code 1: RuntimeError: no memory$"):
        ends("raise RuntimeError('no memory')")
    with pytest.raises(SlimfleetError, match="took more than"):
        ends("import time; time.sleep(60)", 0.2)


class Server(BaseHTTPRequestHandler):
    """Sends as many bytes as its path says, and takes what is posted anywhere but at /full."""

    def do_GET(self) -> None:
        size = int(self.path[1:])
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(bytes(size))

    def do_POST(self) -> None:
        received = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(507 if self.path == "/full" else 204)
        self.send_header("X-Received", str(len(received)))
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    thread = Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()


def seconds(*moments: float) -> Callable[[], float]:
    """A clock that shows these moments, and then the last one."""
    left = list(moments)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def test_rates_are_bytes_over_seconds(server: str) -> None:
    # The first 64 KiB come before the clock starts.
    received = 2**20 - link.WARM_UP_BYTES
    assert downlink_bytes_per_s(f"{server}/{2**20}", seconds(10.0, 12.0)) == received / 2
    assert uplink_bytes_per_s(f"{server}/", seconds(10.0, 14.0)) == 2**20 / 4
    assert downlink_bytes_per_s(f"{server}/{2**20}") > 1e5
    # Ten seconds end a slow download.
    slow = downlink_bytes_per_s(f"{server}/{2**20}", seconds(0.0, 1.0, 11.0))
    assert slow == 2 * link.PIECE_BYTES / 11


@pytest.mark.parametrize(
    ("measure", "url", "words"),
    [
        (downlink_bytes_per_s, "{}/1000", r"has at most \d+ bytes: a file of 262144 or more is needed"),
        (downlink_bytes_per_s, "file:///etc/hostname", "begins with http:// or https://"),
        (uplink_bytes_per_s, "ftp://127.0.0.1/", "begins with http:// or https://"),
        (uplink_bytes_per_s, "{}/full", "cannot send to .*507"),
        (downlink_bytes_per_s, "http://127.0.0.1:9/x", "cannot receive from .*refused"),
    ],
)
def test_a_link_that_cannot_be_measured_is_refused_in_one_line(
    measure: Callable[[str], float], url: str, words: str, server: str
) -> None:
    with pytest.raises(BadInput, match=words):
        measure(url.format(server))


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command with a device that was measured elsewhere: exit code, stdout, stderr."""
    found = Speed(
        benchmark=Benchmark((1e9, 2e9, 3e9), 100, 15.0, 300_000_000, None, 2),
        power={},
        examples=500,
        activation_bytes=135e3,
    )
    peaks = lambda plan, wrap=tuple: peak_at(plan.width, 135e3 * plan.batch_size)  # noqa: E731
    monkeypatch.setattr(speed, "measured_speed", lambda about: replace(found, power=powers))
    monkeypatch.setattr(point, "measured_peak", peaks)
    monkeypatch.setenv("COLUMNS", "160")
    powers: dict[str, float | None] = {}

    def call(*arguments: object, power: dict[str, float | None] | None = None) -> tuple[int, str, str]:
        powers.clear()
        powers.update(power or {})
        monkeypatch.setattr(sys, "argv", ["slimfleet-device", "calibrate", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        return int(caught.value.code or 0), output.out, output.err

    return call


def test_the_profile_that_a_device_wrote_of_itself_can_be_read_back(
    run: Run, tmp_path: Path, server: str
) -> None:
    out = tmp_path / "device.json"
    code, said, _ = run(
        *("digits", "--out", out, "--name", "bench", "--meter", "hwmon"),
        *("--download-from", f"{server}/{2**20}"),
        power={"idle_w": 2.5, "train_w": 4.0},
    )
    assert code == 0
    profile = read_profile(out)
    assert (profile.name, profile.train_flops_per_s, profile.idle_w, profile.train_w) == (
        "bench",
        2e9,
        2.5,
        4.0,
    )
    assert profile.uplink_bytes_per_s == 2.5e6 != profile.downlink_bytes_per_s
    runtime = RUNTIMES["torch"].on(profile)
    assert runtime.base_bytes == TRUE.base_bytes
    assert runtime.activation_factor == pytest.approx(TRUE.activation_factor, rel=0.01)
    assert runtime.fixed_bytes == pytest.approx(TRUE.fixed_bytes, rel=0.01)
    assert "on 2 threads" in said
    assert "meter=hwmon" in said
    assert "Not measured: the uplink, without --gateway or --upload-to." in said
    assert "downlink" not in said.partition("Written")[0].partition("Not measured")[2]


def test_power_that_no_meter_read_must_be_given_before_the_minutes_that_memory_takes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point, "measured_peak", lambda plan: pytest.fail("it measured memory"))
    code, out, err = run("digits", "--out", tmp_path / "device.json")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "--idle-w and --train-w" in err
    assert not (tmp_path / "device.json").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gateway", "h:1"], "--gateway and --keys go together"),
        (["--keys", "k"], "--gateway and --keys go together"),
        (["--gateway", "h:1", "--keys", "k", "--upload-to", "http://h/"], "--gateway measures both links"),
        (["--gateway", "h:1", "--keys", "nowhere"], "nowhere/ca.crt"),
    ],
)
def test_options_of_links_that_do_not_fit_are_refused(
    options: list[str], words: str, run: Run, tmp_path: Path
) -> None:
    code, out, err = run("digits", "--out", tmp_path / "device.json", "--like", "pi_zero_2w", *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_figures_that_the_device_cannot_tell_stay_those_of_the_tables(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point, "measured_peak", lambda plan: peak_at(plan.width, 1e3 * plan.batch_size))
    out = tmp_path / "device.json"
    code, said, _ = run("digits", "--out", out, "--like", "pi_zero_2w")
    profile = read_profile(out)
    assert code == 0
    assert profile.runtime_activation_factor is None
    assert "Not measured: k" in said
    assert "Not measured: watts" in said
    code, said, _ = run("digits", "--out", out, "--like", "pi_zero_2w", "--quiet")
    assert (code, "Not measured" in said) == (0, False)


@pytest.mark.parametrize("arguments", [("--meter", "battery"), ("--out", "."), ("--like", "pi_zero_3w")])
def test_bad_input_is_refused_before_anything_is_measured(
    run: Run, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "measured_speed", lambda about: pytest.fail("it measured"))
    code, out, err = run("digits", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)


def test_neither_meters_nor_policy_nor_what_calibrates_loads_torch() -> None:
    code = (
        "import sys; import slimfleet.client.commands.calibrate, slimfleet.client.calibration.speed;"
        "from slimfleet.client import cli, governor, tables;"
        "sys.argv = ['slimfleet-device', 'meters', '--seconds', '0.1'];"
        "import atexit; atexit.register(lambda: print('torch' in sys.modules)); cli.main()"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "Meters" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "False"


def test_a_deployed_device_splits_its_data_as_a_calibration_did() -> None:
    from slimfleet.client.deployed import SHARES

    assert CALIBRATED_SHARES == SHARES
