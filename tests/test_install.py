"""Installations by role: each extra brings what its role needs, and what it lacks is named in one line.

An environment is a folder of links: slimfleet's four parts, and the packages of this environment that pyproject.toml
asks for on behalf of the role, with what these ask for in turn. Python starts in it without any other package.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slimfleet.compression.edge.extras import EXTRAS, what_to_install
from slimfleet.coordinator.gateway import Gateway, GatewaySettings
from slimfleet.coordinator.pki import PkiFolder

ROOT = Path(__file__).parent.parent
PARTS = ("client", "compression", "coordinator", "simulations")
COMMANDS = ("compress", "device", "coordinator", "simulate")
EXAMPLE = ROOT / "docs" / "examples" / "own_task"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_DEVELOPERS = {"bench", "dev", "zoo"}
OF_FLOWER = {"cryptography", "grpc_health", "h11", "tomli_w"}
"""What flwr brings, too."""
HEAVY = {module for modules in EXTRAS.values() for module in modules} - OF_FLOWER
MOST_RESIDENT_MB = 60

Run = Callable[..., subprocess.CompletedProcess[str]]


def asked_for(extra: str) -> list[str]:
    """What pyproject.toml asks for on behalf of a role, extras of its own replaced by what is in them."""
    found = []
    for line in PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]:
        own = re.fullmatch(r"slimfleet\[(.+)\]", line)
        found += [each for name in own[1].split(",") for each in asked_for(name)] if own else [line]
    return found


def packages_of(lines: list[str]) -> set[str]:
    """Names of the packages that `lines` ask for on this machine, and of all that these need."""
    found: set[str] = set()
    ahead = [Requirement(line) for line in lines]
    seen: set[tuple[str, frozenset[str]]] = set()
    while ahead:
        each = ahead.pop()
        key = (canonicalize_name(each.name), frozenset(each.extras))
        if key in seen or (each.marker is not None and not each.marker.evaluate()):
            continue
        seen.add(key)
        found.add(key[0])
        for line in distribution(each.name).requires or ():
            needed = Requirement(line)
            environments = [{"extra": extra} for extra in ("", *each.extras)]
            if needed.marker is None or any(needed.marker.evaluate(one) for one in environments):
                needed.marker = None
                ahead.append(needed)
    return found


def linked(folder: Path, extra: str) -> Path:
    """An environment for a role."""
    for name in packages_of([*asked_for(""), *(asked_for(extra) if extra else [])]):
        files = distribution(name)
        for top in {path.parts[0] for path in files.files or ()} - {"..", "__pycache__"}:
            target = folder / top
            if not target.exists():
                target.symlink_to(Path(str(files.locate_file(top))))
    (folder / "slimfleet.dist-info").mkdir()
    (folder / "slimfleet.dist-info" / "METADATA").write_text(
        f"Name: slimfleet\nVersion: {PROJECT['version']}\n"
    )
    (folder / "slimfleet").mkdir()
    for part in PARTS:
        (folder / "slimfleet" / part).symlink_to(ROOT / part / "slimfleet" / part)
    (folder / "slimfleet" / "__main__.py").symlink_to(ROOT / "simulations" / "slimfleet" / "__main__.py")
    return folder


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def environment(extra: str) -> Path:
        if extra not in made:
            made[extra] = linked(tmp_path_factory.mktemp(extra or "light"), extra)
        return made[extra]

    return environment


@pytest.fixture
def run(environments: Callable[[str], Path], tmp_path: Path) -> Run:
    """Run Python code where only a role's packages are installed."""

    def call(extra: str, code: str) -> subprocess.CompletedProcess[str]:
        start = f"import sys; sys.path.insert(0, {str(environments(extra))!r})\n"
        return subprocess.run(
            [sys.executable, "-I", "-S", "-c", start + code],
            cwd=tmp_path,
            env=os.environ | {"COLUMNS": "80"},
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
        )

    return call


def commands(*lines: str) -> str:
    """Code that runs commands one after another and tells how each ended, and with what on stderr."""
    return f"""
import contextlib, io, slimfleet.__main__ as entries
for line in {lines!r}:
    name, *sys.argv[1:] = line.split()
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        try:
            getattr(entries, name)()
        except SystemExit as error:
            code = error.code
    print(code, repr(said.getvalue()))
"""


def outcomes(done: subprocess.CompletedProcess[str]) -> Iterator[tuple[int, str]]:
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        code, _, said = line.partition(" ")
        yield int(code), said.strip("'\"")


def test_the_table_of_extras_is_that_of_pyproject() -> None:
    modules = {
        "grpcio": "grpc", "grpcio-health-checking": "grpc_health", "prometheus-client": "prometheus_client",
        "scikit-learn": "sklearn", "tomli-w": "tomli_w",
    }  # fmt: skip
    assert EXTRAS.keys() == PROJECT["optional-dependencies"].keys() - FOR_DEVELOPERS
    for extra, brought in EXTRAS.items():
        wanted = [Requirement(line) for line in asked_for(extra)]
        names = {modules.get(each.name, each.name) for each in wanted}
        names |= {"ray" for each in wanted if each.name == "flwr" and "simulation" in each.extras}
        assert set(brought) == names, extra


def test_a_command_prefers_the_extra_of_its_own_role() -> None:
    assert what_to_install("torch", "simulation") == "simulation"
    assert what_to_install("flwr", "coordinator") == "flower"
    assert what_to_install("ray", "device") == "simulation"
    assert what_to_install("json", "device") is None


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_a_role_has_its_packages_and_no_other_heavy_one(extra: str, run: Run) -> None:
    code = f"from importlib.util import find_spec\nprint(*[n for n in {sorted(HEAVY)!r} if find_spec(n)])"
    assert set(run(extra, code).stdout.split()) == HEAVY & set(EXTRAS.get(extra, ()))


def test_without_extras_every_part_can_be_imported_and_every_help_is_shown(run: Run) -> None:
    code = "".join(f"import slimfleet.{part}\n" for part in PARTS)
    code += "import slimfleet.compression.codec, slimfleet.client.meters, slimfleet.client.policy\n"
    done = run("", code + commands(*(f"{name} --help" for name in COMMANDS)))
    assert list(outcomes(done)) == [(0, "")] * len(COMMANDS)


def test_without_extras_a_device_tells_its_condition_and_codes_updates(run: Run, tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(40, 30)).astype(np.float32)
    np.savez(tmp_path / "update.npz", weight=weights)
    done = run(
        "",
        commands(
            "device policy",
            "device meters --seconds 0.1",
            "compress update update.npz --nmse 0.01 --save update.bin",
            "compress inspect update.bin",
            "compress decode update.bin --like update.npz --out again.npz",
            "compress pack update.npz --lossless -o update.slim -q",
            "compress unpack update.slim -o again.safetensors -q",
        ),
    )
    assert list(outcomes(done)) == [(0, "")] * 7
    error = np.load(tmp_path / "again.npz")["weight"] - weights
    assert 0 < (error**2).sum() / (weights**2).sum() <= 0.01


def test_without_extras_a_command_that_trains_says_what_to_install(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "net.npz", weight=np.zeros((2, 2), np.float32))
    (tmp_path / "pi.json").write_text("{}")
    asked = {
        "device inspect digits": "device",
        "device profile digits": "device",
        "compress model net.npz --task digits --out small": "model",
        "coordinator plan --task digits --profile pi.json": "coordinator",
        "simulate digits --out run": "simulation",
        "simulate compare run run": "simulation",
    }
    for (code, said), extra in zip(outcomes(run("", commands(*asked))), asked.values(), strict=True):
        assert (code, said.count("\\n")) == (2, 1)
        assert re.fullmatch(
            rf"error: \w+ is not installed, which this needs: pip install 'slimfleet\[{extra}\]'\\n", said
        )


def test_without_extras_a_device_calls_its_gateway_over_https(run: Run, tmp_path: Path) -> None:
    pki = PkiFolder(tmp_path / "pki")
    pki.init("test", 1)
    pki.add_server(["127.0.0.1"], 1)
    pki.add_device("pi-1", 1)
    calls = """
from pathlib import Path
from slimfleet.client.gateway.calling import Keys
from slimfleet.client.gateway.connection import Connection
from slimfleet.client.gateway.transports import transport_to
connection = Connection(transport_to("127.0.0.1:{port}", Keys.of(Path("pki/devices/pi-1"))))
print(connection.check_in("", "").wait.seconds)
connection.close()
"""
    with Gateway(GatewaySettings(port=0, hold_s=0, wait_s=7), pki) as gateway:
        done = run("", calls.format(port=gateway.port))
    assert done.stdout == "7.0\n", done.stderr
    grpc = "device run digits --gateway 127.0.0.1:1 --keys pki/devices/pi-1 --transport grpc"
    ((code, said),) = outcomes(run("", commands(grpc)))
    assert (code, "pip install 'slimfleet[grpc]'" in said) == (2, True)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_an_idle_device_stays_small_without_torch(run: Run) -> None:
    code = commands("device --help") + "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    (*_, kib) = run("", code).stdout.split()
    assert int(kib) * 1024 / 1e6 <= MOST_RESIDENT_MB


def test_a_device_with_torch_trains_and_does_not_simulate(run: Run) -> None:
    inspect = f"device inspect thermostat:Thermostat --import-from {EXAMPLE} --width 0.5"
    done = run("device", "import slimfleet.client.round\n" + commands(inspect, "simulate --out run"))
    (fine, _), (code, said) = outcomes(done)
    assert (fine, code) == (0, 2)
    assert "pip install 'slimfleet[simulation]'" in said


def test_a_device_on_flower_has_its_app(run: Run) -> None:
    assert (
        run("flower", "from slimfleet.client import deployed_client_app; deployed_client_app()").returncode
        == 0
    )


def test_a_coordinator_plans_without_flower(run: Run, tmp_path: Path) -> None:
    board = {"name": "board", "device_class": "board", "ram_bytes": 10**9, "train_flops_per_s": 1e9}
    board |= {"idle_w": 1.0, "train_w": 2.0, "uplink_bytes_per_s": 1e6, "downlink_bytes_per_s": 1e6}
    board |= {"radio_j_per_byte_up": 1e-6, "radio_j_per_byte_down": 1e-6, "radio_j_per_burst": 0.1}
    (tmp_path / "board.json").write_text(json.dumps(board))
    plan = f"coordinator plan --task thermostat:Thermostat --import-from {EXAMPLE} --profile board.json"
    assert list(outcomes(run("coordinator", commands(plan)))) == [(0, "")]


def test_the_toolbox_has_what_it_imports(run: Run) -> None:
    done = run(
        "model", "import optuna, slimfleet.compression.model.compress\n" + commands("compress techniques")
    )
    assert list(outcomes(done)) == [(0, "")]


def test_a_simulation_runs_with_its_extra_alone(run: Run, tmp_path: Path) -> None:
    small = "simulate -q --rounds 1 --devices 10 --set selection.per_round=2 --out run"
    assert list(outcomes(run("simulation", commands(small)))) == [(0, "")]
    assert (tmp_path / "run" / "summary.json").exists()
