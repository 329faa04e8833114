"""The set-up of "TLS and known devices" in deploy/flower, and what a stranger who has ca.crt can do to it."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from flower_processes import APP, BIN, connects, environment, eventually, free_ports, logs, running

from slimfleet.coordinator.pki import PkiFolder

ADDRESS = "127.0.0.1"


@dataclass(frozen=True)
class Server:
    """A SuperLink on `inner`, where only its own machine reaches it, and the gate on `outer`, where everybody does."""

    folder: Path
    inner: int
    outer: int

    def flwr(self, port: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command of someone who reaches this port and has ca.crt."""
        home = self.folder / f"flwr-{port}"
        home.mkdir(exist_ok=True)
        (home / "config.toml").write_text(
            f'[superlink.fleet]\naddress = "{ADDRESS}:{port}"\n'
            f'root-certificates = "{self.folder / "pki" / "ca.crt"}"\n'
        )
        return subprocess.run(
            [BIN / "flwr", *arguments], env=environment(home), cwd=home, capture_output=True, text=True, timeout=90
        )  # fmt: skip

    def runs(self) -> list[object]:
        """What the SuperLink has ever been told to run."""
        listed = self.flwr(self.inner, "list", "fleet", "--format", "json")
        assert listed.returncode == 0, listed.stderr
        found: list[object] = json.loads(listed.stdout)["runs"]
        return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("gate")
    pki = PkiFolder(folder / "pki")
    pki.init("test", 10)
    pki.add_server([ADDRESS], 10)
    for name in ("known", "stranger"):
        pki.add_device(name, 10)
    inner, outer = free_ports(2)
    shutil.copy(APP / "fleet_gate.py", folder)
    with ExitStack() as stack:
        stack.enter_context(
            running(
                "superlink", folder, "flower-superlink", f"--host={ADDRESS}", f"--port={inner}",
                f"--ssl-ca-certfile={pki.ca_crt}", f"--ssl-certfile={pki.server_crt}",
                f"--ssl-keyfile={pki.server_key}", "--enable-supernode-auth",
                f"--database={folder / 'state.db'}", "--disable-runtime-dependency-installation",
            )
        )  # fmt: skip
        stack.enter_context(
            running(
                "gate", folder, "uvicorn", "fleet_gate:app", f"--app-dir={folder}", f"--host={ADDRESS}",
                f"--port={outer}", f"--ssl-certfile={pki.server_crt}", f"--ssl-keyfile={pki.server_key}",
                SUPERLINK=f"https://{ADDRESS}:{inner}", SUPERLINK_CA=str(pki.ca_crt),
            )
        )  # fmt: skip
        eventually(lambda: connects(inner) and connects(outer), "SuperLink and gate listen", folder)
        yield Server(folder, inner, outer)


def posted(server: Server, path: str, method: str = "POST") -> int:
    """The status of a call through the gate."""
    context = ssl.create_default_context(cafile=server.folder / "pki" / "ca.crt")
    call = urllib.request.Request(
        f"https://{ADDRESS}:{server.outer}{path}", data=b"" if method == "POST" else None, method=method,
        headers={"Content-Type": "application/protobuf"},
    )  # fmt: skip
    try:
        with urllib.request.urlopen(call, timeout=30, context=context) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


def supernode(server: Server, name: str, key: Path) -> ExitStack:
    """A SuperNode that comes through the gate."""
    (port,) = free_ports(1)
    stack = ExitStack()
    stack.enter_context(
        running(
            name, server.folder, "flower-supernode", f"--root-certificates={server.folder / 'pki' / 'ca.crt'}",
            f"--auth-supernode-private-key={key}", f"--superlink={ADDRESS}:{server.outer}", f"--host={ADDRESS}",
            f"--port={port}", "--max-retries=1", "--node-config", "partition-id=0",
        )
    )  # fmt: skip
    return stack


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_gate_lets_known_devices_in_and_nobody_start_an_app(server: Server) -> None:
    keys = server.folder / "pki" / "devices"
    known, stranger = keys / "known" / "flower.key", keys / "stranger" / "flower.key"

    attack = server.flwr(server.outer, "run", str(APP), "fleet")
    assert attack.returncode != 0, attack.stdout
    enrolment = server.flwr(
        server.outer, "supernode", "register", str(stranger.with_suffix(".key.pub")), "fleet"
    )
    assert enrolment.returncode != 0, enrolment.stdout
    assert server.runs() == []

    made = server.flwr(server.inner, "supernode", "register", str(known.with_suffix(".key.pub")), "fleet")
    assert made.returncode == 0, made.stdout + made.stderr
    with supernode(server, "known", known), supernode(server, "stranger", stranger):

        def online() -> int:
            listed = server.flwr(server.inner, "supernode", "list", "fleet", "--format", "json")
            return sum(node["status"] == "online" for node in json.loads(listed.stdout)["nodes"])

        eventually(lambda: online() == 1, "the known device is online", server.folder)
        eventually(
            lambda: "SuperNode ID" in (server.folder / "known.log").read_text(), "it has its number", server.folder
        )  # fmt: skip
        assert "SuperNode ID" not in (server.folder / "stranger.log").read_text(), logs(server.folder)
        assert online() == 1


@pytest.mark.slow
@pytest.mark.timeout(500)
@pytest.mark.parametrize(
    "path",
    [
        "/v1/control/start-run", "/v1/control/list-runs", "/v1/control/register-node", "/v1/runtime/acquire-task",
        "/v1/runtime/create-task", "/docs", "/openapi.json", "/", "/v1/fleet/", "/v1/fleet/..%2fcontrol%2fstart-run",
        "/v1/fleet/../control/start-run", "/v1/fleet/%2e%2e/control/start-run", "//v1/control/start-run",
        "/V1/control/start-run", "/v1/fleet/..", "/v1/fleet/x%0d%0a", "/v1/fleet/pull-messages/../../control/list-runs",
    ],
)  # fmt: skip
def test_the_gate_passes_nothing_but_the_fleet_interface(server: Server, path: str) -> None:
    assert posted(server, path) == 404


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_call_without_a_devices_key_is_turned_away_behind_the_gate(server: Server) -> None:
    assert posted(server, "/v1/fleet/pull-messages") in (400, 401, 403, 422)
    assert posted(server, "/v1/fleet/pull-messages", "GET") == 405
