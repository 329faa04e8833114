"""Runs of one device over the thin link."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from subprocess import Popen

from flower_processes import logs
from gateway_processes import Fleet, at_work, ended
from thin_link import network

PATIENCE_S = 600.0
"""For a run, and for what a cut waits for."""

SETTINGS = """rounds = {rounds}
round_timeout_s = 500.0
evaluate_every = 1000
task = {task}
gateway = {{host = "0.0.0.0", out = "{out}", idle_s = {idle_s}}}
client = {{learning_rate = 0.05}}
selection = {{policy = "uniform", per_round = 1, min_devices = 1}}
planner = {{widths = [1.0], local_steps = [8], batch_sizes = [16], nmse = [{nmse}]}}
codec = {{downlink_bits = {bits}}}
"""
WAYS: Mapping[str, Mapping[str, str]] = {
    "compressed": {"nmse": "0.1", "bits": "6"},
    "float32": {"nmse": "0.0", "bits": "32"},
}
SMALL, LARGE = "cnn", "lenet-300-100"
"""Models: of 101,682 parameters, whose rounds are timed, and of 266,610, whose upload is cut."""
IDLE_S = 6.0
"""After which the gateway gives up a call that does not move; a link is down for longer."""

THERE = re.compile(r"(\d+) of (\d+) bytes of its update are there")


@dataclass(frozen=True, slots=True)
class Round:
    """One round: seconds from the plan to the end, and bytes of payloads."""

    seconds: float
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class Cut:
    """An upload that was cut."""

    how: str
    at_bytes: int
    """That had come when the upload went on."""


def fleet(folder: Path) -> Fleet:
    """One device, which finds its gateway over the link."""
    options = {"model": SMALL, "evaluation_examples": 100}
    return Fleet(folder, ("pi-1",), network.PORT, network.SERVER_ADDRESS, "fashion-mnist", options=options)


def run(
    own: Fleet,
    way: str,
    name: str,
    rounds: int,
    model: str,
    beside: Callable[[Path], None] = lambda log: None,
) -> list[Round]:
    """A run of a device that has just been installed; `beside` is called meanwhile with its log."""
    own, folder = replace(own, options={**own.options, "model": model}), own.folder
    settings, events = folder / f"{name}.toml", folder / f"{name}.jsonl"
    settings.write_text(
        SETTINGS.format(rounds=rounds, out=name, idle_s=IDLE_S, task=own.task_table(), **WAYS[way])
    )
    server = [sys.executable, "-m", "noting_server", str(settings), str(events)]
    device = own.device(0, folder / f"state-{name}", "--log-level=debug")
    device[device.index("--num-partitions=1")] = "--num-partitions=100"
    log = folder / f"{name}-device.log"
    path = os.pathsep.join(sys.path)
    with ExitStack() as stack:
        serving = stack.enter_context(
            at_work(network.there(network.SERVER, server), folder / f"{name}-server.log", PYTHONPATH=path)
        )
        at_home: Popen[bytes] = stack.enter_context(at_work(network.there(network.DEVICE, device), log))
        beside(log)
        ended(serving, [at_home], PATIENCE_S, folder)
    return rounds_of(events.read_text().splitlines(), (folder / name / "rounds.csv").read_text().splitlines())


def rounds_of(events: Sequence[str], csv: Sequence[str]) -> list[Round]:
    """The rounds from what the server has noted, and from its table."""
    noted = [json.loads(line) for line in events]
    begun = [each["at"] for each in noted if "given" in each]
    closed = [each["at"] for each in noted if "closed" in each]
    head, *rows = [line.split(",") for line in csv]
    up, down = head.index("uplink_bytes"), head.index("downlink_bytes")
    return [
        Round(end - begin, int(row[up]), int(row[down]))
        for begin, end, row in zip(begun, closed, rows, strict=True)
    ]


def cutting(hows: Sequence[str], cuts: list[Cut], sent: list[int]) -> Callable[[Path], None]:
    """Cut the upload in these ways, each once a quarter of it has gone over the link since it began or went on.

    What came of it is added to `cuts`, and to `sent` the bytes on the link from the upload's begin to its end.
    """

    def cut(log: Path) -> None:
        _, size = _there(log, 1)
        first = network.sent_bytes()
        for number, how in enumerate(hows, start=1):
            begin = network.sent_bytes()
            _until(lambda begin=begin: network.sent_bytes() - begin >= size / 4, "a quarter passes", log)
            if how == "reset":
                network.reset(1.0)
            else:
                network.unplug(2 * IDLE_S)
            there, _ = _there(log, number + 1)
            cuts.append(Cut(how, there))
        published = log.parent / log.name.removesuffix("-device.log") / "model.safetensors"
        _until(published.exists, "the run ends", log)
        sent.append(network.sent_bytes() - first)

    return cut


def _there(log: Path, times: int) -> tuple[int, int]:
    """Bytes of the update that had come, and its size, as the device has been told so many times."""
    _until(lambda: len(THERE.findall(log.read_text())) >= times, "an upload begins", log)
    there, size = THERE.findall(log.read_text())[times - 1]
    return int(there), int(size)


def _until(holds: Callable[[], bool], what: str, log: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while not log.exists() or not holds():
        if time.monotonic() > until:
            raise SystemExit(f"{what}: not after {PATIENCE_S:g} s\n{logs(log.parent)}")
        time.sleep(0.05)


def same_model(folder: Path, one: str, other: str) -> bool:
    """Whether two runs have published the same bytes."""
    models = [(folder / each / "model.safetensors").read_bytes() for each in (one, other)]
    return models[0] == models[1]
