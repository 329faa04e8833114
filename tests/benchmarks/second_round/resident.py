"""Rounds of a resident device at a gateway, on loopback."""

from __future__ import annotations

import json
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

from flower_processes import PATIENCE_S, free_ports
from gateway_processes import Fleet, at_work, ended
from second_round.moments import marks, waits
from second_round.settings import SETTINGS

HERE = Path(__file__).parent


def rounds_of_a_resident(folder: Path, rounds: int) -> list[float]:
    """Seconds from a plan's arrival to its first step, round by round, of a device that has just been started."""
    (port,) = free_ports(1)
    fleet = Fleet(folder, ("pi-1",), port, task="clocked_digits:ClockedDigits", import_from=HERE)
    fleet.make_keys()
    settings, steps, log = folder / "served.toml", folder / "steps", folder / "device.log"
    settings.write_text(
        f'rounds = {rounds}\ngateway = {{out = "out"}}\ntask = {fleet.task_table()}\n{SETTINGS}'
    )
    with ExitStack() as stack:
        server = stack.enter_context(at_work(fleet.serving(settings), folder / "server.log"))
        # What it logs has the time by its own clock.
        command = fleet.device(0, folder / "state", "--log-level=debug", "--log-json")
        device = stack.enter_context(at_work(command, log, MARKS=str(steps)))
        ended(server, [device], PATIENCE_S, folder)
    return waits(_arrivals(log), marks(steps))


def _arrivals(log: Path) -> list[float]:
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [
        datetime.fromisoformat(line["time"]).timestamp()
        for line in lines
        if line["message"].endswith("has come")
    ]
