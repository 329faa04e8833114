"""Rounds of a Flower SuperNode, which starts a process for every message, on loopback."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

from board import BOARD
from flower_processes import APP, BIN, end, environment, eventually, free_ports, running, superlink
from second_round.moments import marks, waits
from second_round.settings import SETTINGS

RECEIVES = b"Receiving: train message"


def rounds_of_a_supernode(folder: Path, rounds: int) -> list[float]:
    """Seconds from a message's arrival to its first step, round by round."""
    link, port = free_ports(2)
    app, steps, arrived = folder / "app", folder / "steps", []
    shutil.copytree(APP, app, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(Path(__file__).parent / "clocked_digits.py", app)
    pyproject = app / "pyproject.toml"
    pyproject.write_text(
        pyproject.read_text().replace("slimfleet.client.tasks:Digits", "clocked_digits:ClockedDigits")
    )
    (folder / "board.json").write_text(json.dumps(asdict(BOARD)))
    settings = folder / "federation.toml"
    settings.write_text(f"rounds = {rounds}\n{SETTINGS}")
    says = f"partition-id=0 num-partitions=1 meter='none' threads=1 profile='{folder / 'board.json'}' "
    node = [
        str(BIN / "flower-supernode"), "--insecure", f"--superlink=127.0.0.1:{link}", "--host=127.0.0.1",
        f"--port={port}", "--node-config", f"{says} state='{folder / 'state'}'",
    ]  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(superlink(folder, link))
        stack.enter_context(_listened_to(node, folder, arrived, MARKS=str(steps)))
        run = (
            f"server.settings='{settings}' server.out='{folder / 'out'}' "
            "server.metrics-port=0 server.metrics-linger-s=0.0"
        )
        stack.enter_context(
            running("flwr", folder, "flwr", "run", str(app), "loopback", "--stream", "--run-config", run)
        )
        eventually((folder / "out" / "model.safetensors").exists, "the model is published", folder)
    return waits(arrived, marks(steps))


@contextmanager
def _listened_to(command: list[str], folder: Path, arrived: list[float], **variables: str) -> Iterator[None]:
    """The SuperNode at work. Its log has no times: those at which a message is told are added to `arrived`."""
    home = folder / "node"
    home.mkdir()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=home,
        env=environment(home) | variables,
        start_new_session=True,
    )

    def listen() -> None:
        assert process.stdout is not None
        with (folder / "node.log").open("wb") as log:
            for line in process.stdout:
                if RECEIVES in line:
                    arrived.append(time.time())
                log.write(line)
                log.flush()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        end(process)
        listener.join(10)
