"""A SuperLink and twenty SuperNodes on loopback, and runs on them with all devices honest, or two of them silent."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

from flower_processes import APP, eventually, free_ports, logs, running, superlink

from slimfleet.compression import DeviceProfile

DEVICES = 20
SILENT: Mapping[int, str] = {DEVICES - 2: "mute", DEVICES - 1: "hanging"}
"""Number of a device -> how it is silent."""

PATIENCE_S = 900.0
"""A run without a new round for so long has failed."""

POWER_W = 0.15
"""Mean power that devices may take. They draw 2 to 4 W at work and pause for the rest, so that most of a round is sleep
and twenty of them fit on a few cores."""

SETTINGS = f"""round_timeout_s = 240.0
client = {{learning_rate = 0.05}}
budget = {{power_w = {POWER_W}}}
selection = {{policy = "uniform", per_round = 6, min_devices = 15}}
pacing = {{surplus = 2, deadline = "predicted"}}
planner = {{widths = [1.0], local_steps = [8], batch_sizes = [8], nmse = [0.1]}}
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One round of a run. `seconds` is from the end of the round before, or the start of the coordinator."""

    seconds: float
    selected: int
    completed: int
    late: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Federation:
    """The processes, their folder, and the name under which `flwr` knows the SuperLink."""

    folder: Path
    superlink: str = "loopback"

    def run(self, name: str, rounds: int, silent: bool) -> list[Round]:
        """So many more rounds of the federation of this name."""
        for number, kind in SILENT.items():
            if silent:
                self._silence(number).write_text(kind)
        try:
            return self._rounds(name, rounds)
        finally:
            for number in SILENT:
                self._silence(number).unlink(missing_ok=True)

    def _rounds(self, name: str, rounds: int) -> list[Round]:
        settings, out = self.folder / f"{name}.toml", self.folder / "out" / name
        before = len(_rows(out))
        settings.write_text(f"rounds = {before + rounds}\n{SETTINGS}")
        says = f"server.settings='{settings}' server.out='{out}' server.metrics-port=0"
        app = str(self.folder / "app")
        ends = [time.monotonic()]
        with running(
            "flwr", self.folder, "flwr", "run", app, self.superlink, "--stream", "--run-config", says
        ) as log:
            while len(ends) <= rounds:
                if len(rows := _rows(out)) >= before + len(ends):
                    ends.append(time.monotonic())
                    print(
                        f"{name}: round {before + len(ends) - 1} took {ends[-1] - ends[-2]:.1f} s", flush=True
                    )
                elif "Exit Code" in log.read_text(errors="replace"):
                    raise SystemExit(f"{name}: the run has failed\n{logs(self.folder)}")
                elif time.monotonic() - ends[-1] > PATIENCE_S:
                    raise SystemExit(f"{name}: no round has ended for {PATIENCE_S:g} s\n{logs(self.folder)}")
                else:
                    time.sleep(0.5)
            eventually(lambda: _rounds_of(out) == before + rounds, "the run ends", self.folder)
        return [
            Round(end - began, *(int(row[key]) for key in ("selected", "completed", "late", "dropped")))
            for (began, end), row in zip(pairwise(ends), rows[before:], strict=True)
        ]

    def _silence(self, number: int) -> Path:
        return self.folder / f"silence{number}"


@contextmanager
def federation(folder: Path) -> Iterator[Federation]:
    """Start all; end all."""
    link, *ports = free_ports(1 + DEVICES)
    app = folder / "app"
    shutil.copytree(APP, app)
    shutil.copy(Path(__file__).parent / "device.py", app / "fleet_device.py")
    shutil.copy(Path(__file__).parents[2] / "simulations" / "points.py", app)
    _configure(app / "pyproject.toml")
    with ExitStack() as stack:
        stack.enter_context(superlink(folder, link))
        for number, port in enumerate(ports):
            profile = folder / f"device{number}.json"
            profile.write_text(json.dumps(asdict(profile_of(number))))
            says = (
                f"partition-id={number} num-partitions={DEVICES} meter='none' threads=1 "
                f"profile='{profile}' state='{folder / 'residuals'}'"
            )
            # Devices yield to the SuperLink and the coordinator, which in a deployment have a machine of their own.
            stack.enter_context(
                running(
                    f"node{number}", folder, "nice", "-n5", "flower-supernode", "--insecure",
                    f"--superlink=127.0.0.1:{link}", "--host=127.0.0.1", f"--port={port}",
                    "--node-config", says, SILENCE=str(folder / f"silence{number}"),
                )
            )  # fmt: skip
        yield Federation(folder)


def profile_of(number: int) -> DeviceProfile:
    """Devices of uneven power, and so, at one mean power, of uneven speed; the silent ones are of the middle."""
    place = (DEVICES - 1) / 2 if number in SILENT else number
    return DeviceProfile(
        name=f"board-{number:02}", device_class="sbc", ram_bytes=4 * 2**30, train_flops_per_s=1e9, idle_w=1.0,
        train_w=2.0 * 2.0 ** (place / (DEVICES - 1)), uplink_bytes_per_s=1e6, downlink_bytes_per_s=1e6,
        radio_j_per_byte_up=1e-6, radio_j_per_byte_down=1e-6, radio_j_per_burst=0.1,
    )  # fmt: skip


def _configure(pyproject: Path) -> None:
    """The task of the run-config."""
    text = pyproject.read_text()
    text = text.replace('"slimfleet.client.tasks:Digits"', '"points:Points"').replace(
        "partitions = 10", f"partitions = {DEVICES}"
    )
    pyproject.write_text(text)


def _rows(out: Path) -> Sequence[Mapping[str, str]]:
    """The rounds that have been closed so far."""
    if not (out / "rounds.csv").exists():
        return []
    with (out / "rounds.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def _rounds_of(out: Path) -> int:
    """The rounds of the summary that a run writes at its end."""
    return (
        int(json.loads((out / "summary.json").read_text())["rounds"])
        if (out / "summary.json").exists()
        else 0
    )
