"""A deployed device over 200 rounds on a false sysfs: its policy holds against the coordinator, and nothing is lost."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from slimfleet.client.deployed import deployed_device
from slimfleet.client.device import Device
from slimfleet.client.tasks import TASKS
from slimfleet.compression import PolicyRefusal
from slimfleet.compression.edge.task_loader import load_task, make_importable
from slimfleet.compression.messages import text_of
from slimfleet.compression.profiles import load_profiles
from slimfleet.coordinator import Coordinator, WallEnvironment
from slimfleet.coordinator.settings import settings_of

ROUNDS = 200
FLOOR = 0.30
POLICY = f"battery_floor = {FLOOR}\ncharging_only = true\nwarmest_c = 45\nunmetered_only = true\n"
NAME, TASK = "points:Points", {"partitions": 4, "alpha": 10.0}
SETTINGS: dict[str, Any] = {
    "rounds": ROUNDS,
    "evaluate_every": ROUNDS,
    "selection": {"per_round": 2, "policy_pause_s": 0.0, "policy": "uniform", "battery_floor": 0.0},
    "planner": {"widths": [0.25], "local_steps": [4], "batch_sizes": [2], "nmse": [0.2]},
    "client": {"learning_rate": 0.02},
    "codec": {"preset": "fast"},
}
"""One candidate plan: what a device does when it may does not depend on what it has stated."""


@dataclass
class Phone:
    """The false sysfs of a device, and a clock that only its steps move."""

    root: Path
    step_s: float = 0.2
    now_s: float = 1_000.0
    steps: list[tuple[float, float, bool]] = field(default_factory=list)
    """Moment at which each step began, and the charge and the charger then."""
    unplug_at: int | None = None
    """The step of this round within which the charger is pulled out."""
    unplugged_s: float | None = None
    done: int = 0

    def show(self, level: int, charging: bool, celsius: float = 35.0) -> None:
        """Write the files as the kernel would."""
        battery, charger = (
            self.root / "sys/class/power_supply/battery",
            self.root / "sys/class/power_supply/usb",
        )
        zone = self.root / "sys/class/thermal/thermal_zone0"
        for folder in (battery, charger, zone):
            folder.mkdir(parents=True, exist_ok=True)
        status = "Charging" if charging else "Discharging"
        (battery / "type").write_text("Battery\n")
        (battery / "capacity").write_text(f"{level}\n")
        (battery / "status").write_text(f"{status}\n")
        (charger / "type").write_text("USB\n")
        (charger / "online").write_text(f"{int(charging)}\n")
        (zone / "temp").write_text(f"{int(1000 * celsius)}\n")
        self.level, self.charging, self.celsius = level / 100, charging, celsius

    def begin(self, unplug_at: int | None) -> None:
        """A round comes, ten minutes after the last."""
        self.now_s += 600.0
        self.unplug_at, self.unplugged_s, self.done = unplug_at, None, 0

    def step(self) -> None:
        """A step is done; within it, the charger may be pulled out."""
        self.steps.append((self.now_s, self.level, self.charging))
        if self.done == self.unplug_at:
            self.unplugged_s = self.now_s + self.step_s / 2
            self.show(round(100 * self.level), charging=False)
        self.now_s += self.step_s
        self.done += 1


@dataclass(frozen=True)
class Stepping:
    """A task whose every training step is told to a phone."""

    task: Any
    phone: Phone

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def loss(self, outputs: Any, targets: Any) -> Any:
        self.phone.step()
        return self.task.loss(outputs, targets)


@pytest.fixture(autouse=True, scope="module")
def _points() -> None:
    make_importable([str(Path(__file__).parent.parent / "simulations")])


@pytest.fixture
def node_config(tmp_path: Path) -> dict[str, Any]:
    # Without a capacity, the coordinator does not pace the battery: budgets do not depend on what was stated.
    profile = replace(load_profiles()[8].profile, battery_j=None)
    (tmp_path / "phone.json").write_text(json.dumps(asdict(profile)))
    (tmp_path / "policy.toml").write_text(POLICY)
    return {"profile": str(tmp_path / "phone.json"), "meter": "none", "threads": 1}


def device_of(config: Mapping[str, Any], number: int, state: Path, phone: Phone | None = None) -> Device:
    own = {**config, "partition-id": number, "state": str(state)}
    if phone is None:
        return deployed_device(own, NAME, TASK, root=state)
    policy = str(Path(config["profile"]).parent / "policy.toml")
    own |= {"policy": policy, "metered": False}
    device = deployed_device(own, NAME, TASK, root=phone.root, clock=lambda: phone.now_s)
    stepping = Stepping(device.workbench.task, phone)
    return replace(device, workbench=replace(device.workbench, task=stepping))


def coordinator_of(devices: Mapping[int, Device], clock: Callable[[], float]) -> Coordinator:
    """A coordinator in wall-clock time, with which these devices have registered."""
    task = load_task(NAME, TASKS, partitions=4, seed=0, options=TASK)
    coordinator = Coordinator(task, settings_of(SETTINGS, "the test"), WallEnvironment(clock))
    for node, device in devices.items():
        said = device.registration()
        coordinator.state.registry.register(node, said.profile, said.examples)
        coordinator.state.registry[node].hear(said.condition, clock())
    return coordinator


def model_of(coordinator: Coordinator) -> bytes:
    return b"".join(array.tobytes() for array in coordinator.state.server.state().values())


def test_a_device_keeps_to_its_policy_over_200_rounds(tmp_path: Path, node_config: dict[str, Any]) -> None:
    """`control` is a coordinator that gets the same answers, and none where the device refused."""
    rng = random.Random(3)
    phone = Phone(tmp_path)
    phone.show(60, charging=True)
    watched = device_of(node_config, 0, tmp_path / "watched", phone)
    devices = {1: watched, 2: device_of(node_config, 1, tmp_path / "plain")}
    coordinator, control = (coordinator_of(devices, lambda: phone.now_s) for _ in range(2))
    expected: Counter[str] = Counter()
    file = watched.store.path(0)
    level, used, stopped = 60, 0, 0
    for number in range(1, ROUNDS + 1):
        level = min(max(level + rng.randint(-12, 12), 5), 100)
        phone.step_s = rng.choice([0.05, 0.2, 3.0])
        phone.show(level, charging=rng.random() < 0.9, celsius=rng.choice([30.0, 44.0, 44.0, 46.0]))
        phone.begin(unplug_at=rng.randrange(4) if rng.random() < 0.5 else None)
        before = "battery_low" if level < 100 * FLOOR else None
        before = before or (None if phone.charging else "not_charging")
        before = before or ("too_warm" if phone.celsius > 45 else None)
        kept, began, refused = file.read_bytes() if file.exists() else None, len(phone.steps), ""
        both = [each.plan(phone.now_s, 2).dispatches for each in (coordinator, control)]
        for dispatch, twin in zip(*both, strict=True):
            assert text_of(dispatch.assignment) == text_of(twin.assignment)
            assert dispatch.payload == twin.payload
            try:
                payload, report = devices[dispatch.node].do_round(dispatch.assignment, dispatch.payload)
            except PolicyRefusal as refusal:
                assert dispatch.node == 1
                refused = refusal.reason
                coordinator.fail(dispatch.plan_id, refused, str(refusal), refusal.spent)
                control.fail(twin.plan_id, "dropout")
            else:
                for each, plan_id in ((coordinator, dispatch.plan_id), (control, twin.plan_id)):
                    assert each.receive(plan_id, payload, text_of(report)).verdict == "accepted"
        steps = phone.steps[began:]
        if refused:
            expected[refused] += 1
            stated = coordinator.state.registry[1].stated
            assert (stated.battery, stated.charging) == (phone.level, phone.charging)
            assert (file.read_bytes() if file.exists() else None) == kept
        used += not refused
        if before is not None:
            assert (refused, steps) == (before, [])
        if phone.unplugged_s is not None:
            # Within one second or one step, whichever is longer; what was over by then is used.
            last_s = max(moment for moment, _, _ in steps)
            assert last_s - phone.unplugged_s <= max(1.0, phone.step_s)
            assert refused == "not_charging" or phone.now_s - phone.unplugged_s <= 1.0
            stopped += bool(refused)
        for each in (coordinator, control):
            each.step()
        assert model_of(coordinator) == model_of(control), f"round {number}"
    assert coordinator.state.totals.failed == dict(expected)
    assert set(expected) == {"battery_low", "not_charging", "too_warm"}
    assert coordinator.state.registry[1].participations == used == ROUNDS - sum(expected.values())
    assert used > ROUNDS // 10
    assert stopped > ROUNDS // 20
    assert all(charge >= FLOOR for _, charge, _ in phone.steps)
