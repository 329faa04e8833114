"""A deployed device that is killed in mid-round: its state is that of before the round or of after it, and the round
can be done again as if nothing had been."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from slimfleet.client.deployed import deployed_device
from slimfleet.client.device import Device
from slimfleet.compression import Assignment, Budget, Payload, Plan, Training
from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.pruning import pack_channels, select_channels
from slimfleet.compression.tensors import tensors_of
from slimfleet.compression.wire import Envelope, PayloadKind

FORK = multiprocessing.get_context("fork")
ROUNDS = 3


def sent(device: Device, number: int) -> tuple[Assignment, Payload]:
    """What a coordinator sends to a device whose update of the round before was accepted."""
    architecture = device.workbench.blueprint
    channels = select_channels(architecture.groups, 1.0, "prefix")
    envelope = Envelope(
        kind=PayloadKind.MODEL, base_version=number, side=pack_channels(architecture.groups, channels)
    )
    payload = encode(
        tensors_of(architecture.model), architecture.schema, CodecSpec(bits=32), envelope=envelope
    )
    assignment = Assignment(
        round_number=number,
        plan_id=number,
        plan=Plan(width=1.0, local_steps=5, batch_size=8, nmse=0.3),
        budget=Budget(),
        training=Training(learning_rate=0.05),
        acknowledged_round=number - 1 if number > 1 else None,
    )
    return assignment, payload.payload


@pytest.fixture
def device_in(tmp_path: Path, phone: Any) -> Callable[[str], Device]:
    """The deployed device, with its state in a folder of that name."""
    profile = tmp_path / "phone.json"
    profile.write_text(json.dumps(asdict(phone)))

    def make(folder: str) -> Device:
        config = {"partition-id": 1, "profile": str(profile), "state": str(tmp_path / folder)}
        return deployed_device(config | {"threads": 1, "meter": "none"}, "digits", {})

    return make


def dies_at(call: str, before: bool) -> None:
    """Let this process be killed right before or after the first call of a function of `os`."""
    kept = getattr(os, call)

    def killed(*arguments: Any, **keywords: Any) -> Any:
        if not before:
            kept(*arguments, **keywords)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(os, call, killed)


def test_a_kill_at_any_moment_loses_nothing_but_the_open_round(
    device_in: Callable[[str], Device], tmp_path: Path
) -> None:
    steady = device_in("steady")
    answers, states = [], []
    for number in range(1, ROUNDS + 1):
        began = time.monotonic()
        answers.append(steady.do_round(*sent(steady, number))[0])
        round_s = time.monotonic() - began
        states.append(steady.store.path(1).read_bytes())
    assert len(set(states)) == ROUNDS

    rng = random.Random(4)
    killed = device_in("killed")
    deaths: list[tuple[str, bool] | float] = [
        ("fsync", True), ("fsync", False), ("replace", True), ("replace", False),
        *(rng.uniform(0, 1.2 * round_s) for _ in range(4)),
    ]  # fmt: skip
    found = []
    for death in deaths:
        shutil.rmtree(tmp_path / "killed")
        shutil.copytree(tmp_path / "steady", tmp_path / "killed")
        killed.store.path(1).write_bytes(states[0])
        child = FORK.Process(target=_works, args=(killed, death))
        child.start()
        if isinstance(death, float):
            time.sleep(death)
            child.kill()
        child.join(60)
        assert child.exitcode in (-signal.SIGKILL, 0)
        state = killed.store.path(1).read_bytes()
        assert state in states[:2], "neither the state before the round nor the one after it"
        found.append(state == states[1])
        # The coordinator has had no answer: it asks for the round once more, and then goes on.
        for number in (2, 3):
            assert killed.do_round(*sent(killed, number))[0] == answers[number - 1]
        assert killed.store.path(1).read_bytes() == states[2]
    assert found[:4] == [False, False, False, True]


def _works(device: Device, death: tuple[str, bool] | float) -> None:
    if not isinstance(death, float):
        dies_at(*death)
    device.do_round(*sent(device, 2))
