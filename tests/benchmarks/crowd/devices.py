"""Many devices in one process: each with its own certificate, connection, outbox and share of the data.

    python -m crowd.devices FOLDER PORT FIRST LAST

They are resident as those of `slimfleet-device run` are. Torch draws random numbers for a whole process, so that they
train one at a time.
"""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from crowd.fleet import fleet_of, name_of
from crowd.lossy import Lossy

from slimfleet.client.deployed import deployed_device
from slimfleet.client.device import Device
from slimfleet.client.gateway.backoff import Backoff
from slimfleet.client.gateway.described import Described
from slimfleet.client.gateway.outbox import Outbox
from slimfleet.client.gateway.resident import Resident
from slimfleet.compression import Assignment, Payload, Report
from slimfleet.compression.messages import Registration, text_of
from slimfleet.compression.types import Condition

TURN = threading.Lock()
WRITING = threading.Lock()


class OneAtATime:
    """A device that waits for its turn, and notes what it has trained."""

    def __init__(self, device: Device, note) -> None:
        self._device, self._note = device, note

    def registration(self) -> Registration:
        """Its profile and number of examples."""
        with TURN:
            return self._device.registration()

    def do_round(self, assignment: Assignment, payload: Payload) -> tuple[Payload, Report]:
        """Train."""
        with TURN:
            done = self._device.do_round(assignment, payload)
        self._note("trained", assignment.plan_id)
        return done


def devices_of(folder: Path, state: str, first: int, last: int) -> dict[int, Device]:
    """Devices by number, from `first` to before `last`. They share what does not differ between them."""
    node = {
        "partition_id": first,
        "num_partitions": fleet_of(folder),
        "profile": str(folder / "board.json"),
        "state": str(folder / state),
        "meter": "none",
        "threads": 1,
    }
    one = deployed_device(node, "digits", {})
    return {number: replace(one, number=number, share=number) for number in range(first, last)}


def stay(folder: Path, port: int, device: Device, note) -> None:
    """One device, for as long as the process lives."""
    name = name_of(device.number)
    outbox = folder / "outboxes" / name
    outbox.mkdir(parents=True, exist_ok=True)
    keys = folder / "pki" / "devices" / name
    described = Described(
        node={}, task="digits", options={}, import_from=(), gateway=f"127.0.0.1:{port}", keys=str(keys)
    )
    mine = OneAtATime(device, note)
    Resident(
        Lossy(described.connection(), random.Random(device.number), note),
        text_of(mine.registration()),
        Outbox(outbox),
        lambda: mine,
        lambda: (Condition(battery=0.8), None),
        Backoff(random.Random(device.number), 0.05, 2.0),
        time.sleep,
    ).stay()


def main() -> None:
    """All devices; ends when it is killed."""
    folder, port, first, last = Path(sys.argv[1]), *map(int, sys.argv[2:5])
    with (folder / f"devices-{first}.jsonl").open("a") as file:

        def note(what: str, plan_id: int) -> None:
            with WRITING:
                file.write(json.dumps({"what": what, "plan": plan_id}) + "\n")
                file.flush()

        staying = [
            threading.Thread(target=partial(stay, folder, port, device, note))
            for device in devices_of(folder, f"state-{first}", first, last).values()
        ]
        for each in staying:
            each.start()
        for each in staying:
            each.join()


if __name__ == "__main__":
    main()
