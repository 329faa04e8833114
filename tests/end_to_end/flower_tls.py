"""The deployment of "TLS and known devices" in deploy/flower/README.md, by its own commands, on loopback.

Only folders, ports and the names of devices are others'.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from board import BOARD
from flower_processes import APP, connects, environment, eventually, free_ports, running

HERE = Path(__file__).parent
STRANGER = "stranger"


def blocks(section: str) -> list[str]:
    """The commands of a section of the README, block by block."""
    text = (APP / "README.md").read_text().split(f"## {section}")[1].split("\n## ")[0]
    return [re.sub(r"^    ", "", block, flags=re.M) for block in re.findall(r"(?:^    .*\n)+", text, re.M)]


class Deployment:
    """A SuperLink, the gate before it, and devices with keys, in `folder`; as a context, it is at work.

    `names` are the devices: number i holds share i of the data, which has `shares`, and says that it is of class
    `class-i`. The app lies in `folder/app`, together with `modules`.
    """

    def __init__(self, folder: Path, names: tuple[str, ...], modules: tuple[str, ...], shares: int) -> None:
        self.folder, self.names, self.app, self._shares = folder, names, folder / "app", shares
        keys, self._superlink, self._gate, config, self._register, self._node = blocks(
            "TLS and known devices"
        )
        self._inner, self._outer = self.ports = free_ports(2)
        shutil.copytree(APP, self.app, ignore=shutil.ignore_patterns("__pycache__"))
        for module in modules:
            shutil.copy(HERE / module, self.app)
        self.command(f"{keys}\nslimfleet-coordinator pki device pki {STRANGER}")
        for name in (*names, STRANGER):
            shutil.copytree(self.app / "pki" / "devices" / name, folder / "etc" / name)
        for number, name in enumerate((*names, STRANGER)):
            board = replace(BOARD, name=name, device_class=f"class-{number}")
            (folder / "etc" / f"{name}.json").write_text(json.dumps(asdict(board)))
        for made in ("flwr", "var"):
            (folder / made).mkdir()
        (folder / "flwr" / "config.toml").write_text(self._here(config))
        self.killed: list[str] = []
        self._stack = ExitStack()

    def __enter__(self) -> Deployment:
        for name, text in (("superlink", self._superlink), ("gate", self._gate)):
            self._stack.enter_context(self.running(name, f"exec env {text}"))
        both = (self._inner, self._outer)
        eventually(lambda: all(map(connects, both)), "SuperLink and gate listen", self.folder)
        self.command(self._register)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def supernode(self, name: str, until: bool = False) -> ExitStack:
        """A SuperNode at work; with `until`, it is started again for as long as it fails, as systemd would."""
        text, stack = self._node_of(name), ExitStack()
        stack.enter_context(
            self.running(name, f"until {text}\ndo sleep 10; done" if until else f"exec env {text}")
        )
        return stack

    def commands(self, name: str) -> tuple[str, str, str]:
        """SuperLink, gate, and the SuperNode of this name, as they are run in the folder of the app."""
        superlink, gate, node = map(self._here, (self._superlink, self._gate, self._node_of(name)))
        return superlink.strip(), gate.strip(), node.strip()

    def _node_of(self, name: str) -> str:
        (port,) = free_ports(1)
        number = (*self.names, STRANGER).index(name)
        text = (
            self._node.replace("pi-1", name).replace("device.json", f"{name}.json").replace("9094", str(port))
        )
        return text.replace(
            "partition-id=0", f'partition-id={number} num-partitions={self._shares} meter="none"'
        )

    def kill(self, name: str) -> None:
        """End a SuperNode with all that it has started, as a power cut would."""
        found = subprocess.run(["ps", "-wweo", "pid,args"], capture_output=True, text=True, check=True).stdout
        key = str(self.folder / "etc" / name / "flower.key")
        (pid,) = [int(line.split()[0]) for line in found.splitlines() if key in line]
        os.killpg(pid, signal.SIGKILL)
        self.killed.append(name)

    def run(self, name: str, settings: str, task: str, metrics_port: int = 0) -> ExitStack:
        """The run of step 3 at work, with these settings, which leaves its results in the folder of its name."""
        (self.folder / f"{name}.toml").write_text(settings)
        says = (
            f"task.name='{task}' server.settings='{self.folder / name}.toml' server.out='{self.folder / name}' "
            f"server.metrics-port={metrics_port} server.metrics-linger-s=0.0"
        )
        command, home = f'exec flwr run . fleet --stream --run-config "{says}"', str(self.folder / "flwr")
        stack = ExitStack()
        stack.enter_context(self.running(f"run-{name}", command, FLWR_HOME=home))
        return stack

    def await_end(self, name: str, rounds: int) -> None:
        """Wait for round after round of a run, and for its report."""
        for number in range(1, rounds + 1):
            line = f"round {number} of {rounds}"
            eventually(lambda line=line: line in self.log(f"run-{name}"), line, self.folder)
        eventually((self.folder / name / "report.html").exists, "the report is written", self.folder)

    def log(self, name: str) -> str:
        """What a process has said so far."""
        return (self.folder / f"{name}.log").read_text()

    @contextmanager
    def running(self, name: str, text: str, **variables: str) -> Iterator[Path]:
        """A command of the README at work."""
        here = f"cd {self.app}\n{self._here(text)}"
        with running(name, self.folder, "bash", "-ec", here, **variables) as log:
            yield log

    def command(self, text: str) -> str:
        """A command of the README, done; what it prints."""
        done = subprocess.run(
            ["bash", "-ec", self._here(text)], cwd=self.app, env=environment(self.folder / "flwr"),
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def nodes(self) -> dict[str, tuple[int, str]]:
        """Name -> number and status, of the devices that were registered."""
        listed = json.loads(self.command("flwr supernode list fleet --format json"))["nodes"]
        return {each["name"]: (int(each["node-id"]), each["status"]) for each in listed}

    def _here(self, text: str) -> str:
        for theirs, ours in {
            "/var/lib/slimfleet": f"{self.folder}/var", "/etc/slimfleet/pki": f"{self.app}/pki",
            "/etc/slimfleet": f"{self.folder}/etc", "0.0.0.0": "127.0.0.1", "SERVER": "127.0.0.1",
            "8000": str(self._inner), "8443": str(self._outer), "pi-1 pi-2 pi-3 pi-4": " ".join(self.names),
        }.items():  # fmt: skip
            text = text.replace(theirs, ours)
        return text
