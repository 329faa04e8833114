"""What a device may draw and hold: mean power by a closed loop over a meter, memory by canned control groups."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from slimfleet.client.device import Device
from slimfleet.client.governor import PowerGovernor, free_memory_bytes, within_memory
from slimfleet.client.ledger import DeviceLedger
from slimfleet.client.meters import SampledMeter, Sensor
from slimfleet.client.meters.sampled import trapezoid
from slimfleet.client.store import FolderStore
from slimfleet.client.watch import Watch
from slimfleet.compression import Budget, BudgetExceeded, Condition
from slimfleet.simulations.ledger import SimulatedLedger

IDLE_W = 0.3  # of the profile in conftest.py


class Plant:
    """A device whose power changes all the time, on a clock of its own; a meter may sample it ten times a second."""

    def __init__(self, work_w: float = 6.0) -> None:
        self.now, self.joules, self.watts, self.work_w = 0.0, 0.0, IDLE_W, work_w
        self.rng, self.threads = random.Random(2), 4
        self.sample = lambda: None
        self.ticks = 0

    def clock(self) -> float:
        return self.now

    def sampler(self, sample, interval_s):
        self.sample = sample
        return lambda: None

    def meter(self) -> SampledMeter[float]:
        sensor = Sensor("plant", lambda: self.watts, trapezoid, 0.0)
        return SampledMeter(lambda: sensor, clock=self.clock, sampler=self.sampler)

    def sleep(self, seconds: float) -> None:
        self._runs(seconds, IDLE_W)

    def work(self, seconds: float) -> None:
        self._runs(seconds, IDLE_W + self.work_w * self.rng.uniform(0.7, 1.3))

    def set_threads(self, count: int) -> None:
        self.work_w *= count / self.threads
        self.threads = count

    def above_idle_w(self) -> float:
        return (self.joules - IDLE_W * self.now) / self.now

    def _runs(self, seconds: float, watts: float) -> None:
        until, self.watts = self.now + seconds, watts
        while (tick := (self.ticks + 1) * 0.1) <= until:
            self.joules += watts * (tick - self.now)
            self.now, self.ticks = tick, self.ticks + 1
            self.sample()
        self.joules += watts * (until - self.now)
        self.now = until


def trained(plant: Plant, profile, power_w, meter, step_s: float, steps: int = 300) -> DeviceLedger:
    governor = PowerGovernor(power_w, plant.threads, plant.set_threads)
    ledger = DeviceLedger(profile, governor, meter, plant.clock, plant.sleep)
    plant.work(1.0)
    ledger.download(1_000)
    for _ in range(steps):
        plant.work(step_s * plant.rng.uniform(0.5, 1.5))
        ledger.train(1e6)
    ledger.upload(500)
    return ledger


@pytest.mark.parametrize("nominal_w", [2.0, 6.0, 15.0])
@pytest.mark.parametrize("step_s", [0.03, 0.37, 4.0])
def test_half_the_power_of_an_unconstrained_round_is_kept_whatever_the_profile_says(phone, nominal_w, step_s):
    profile = replace(phone, train_w=nominal_w)
    free = Plant()
    trained(free, profile, None, free.meter(), step_s)
    held = Plant()
    held.threads = 1
    ledger = trained(held, profile, free.above_idle_w() / 2, held.meter(), step_s)
    assert held.above_idle_w() == pytest.approx(free.above_idle_w() / 2, rel=0.05)
    balance, source = ledger.close()
    assert source == "measured"
    (pause,) = balance.pauses
    assert (pause.reason, pause.time_s) == ("power", pytest.approx(balance.phases.idle.time_s))
    assert pause.time_s == pytest.approx(held.now / 2, rel=0.1)
    assert 0 < pause.times <= 302
    assert balance.gross_j == pytest.approx(held.joules, rel=0.02)
    assert balance.energy_j - balance.radio_j == pytest.approx(held.joules - IDLE_W * held.now, rel=0.05)


def test_without_a_meter_the_profile_is_believed(phone):
    plant = Plant(work_w=4.0)
    plant.threads = 1
    ledger = trained(plant, phone, 1.0, SampledMeter(lambda: None), 0.4)
    assert plant.above_idle_w() == pytest.approx(1.0, rel=0.05)
    balance, source = ledger.close()
    assert (source, balance.gross_j) == ("estimated", None)


def test_long_pauses_give_up_threads_and_the_mean_is_kept(phone):
    plant = Plant(work_w=8.0)
    trained(plant, phone, 1.5, plant.meter(), 0.4)
    assert plant.threads == 1
    assert plant.above_idle_w() == pytest.approx(1.5, rel=0.05)
    enough = Plant(work_w=2.0)
    trained(enough, phone, 1.5, enough.meter(), 0.4)
    assert enough.threads == 4


def test_a_wait_that_saved_power_needs_no_pause():
    governor = PowerGovernor(2.0)
    assert governor.pause_s(spent_j=8.0, elapsed_s=1.0) == 3.0
    assert governor.pause_s(spent_j=10.0, elapsed_s=20.0) == 0.0
    assert PowerGovernor().pause_s(spent_j=1e9, elapsed_s=0.0) == 0.0


MIB = 2**20


def machine(root: Path, available: int, groups: str = "", **files: str) -> Path:
    """A root with so many bytes available, of which the process holds 100 MiB, and files below sys/fs/cgroup."""
    for name, text in {
        "proc/meminfo": f"MemTotal: 999999 kB\nMemAvailable: {available // 1024} kB\n",
        "proc/self/status": f"RssAnon:\t{100 * 1024} kB\n",
        "proc/self/cgroup": groups,
        **{f"sys/fs/cgroup/{name}": text for name, text in files.items()},
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


def group(folder: str, limit: int | str, used: int, pages: int) -> dict[str, str]:
    """Files of a group in v2, or in v1 below `memory`."""
    names = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes")
        if folder.startswith("memory")
        else (
            "memory.max",
            "memory.current",
        )
    )
    prefix = "total_" if folder.startswith("memory") else ""
    stat = f"cache 1\n{prefix}inactive_file {pages - MIB}\n{prefix}active_file {MIB}\nhierarchical_memory_limit x"
    return {
        f"{folder}/{names[0]}": str(limit),
        f"{folder}/{names[1]}": str(used),
        f"{folder}/memory.stat": stat,
    }


V1, V2 = "5:cpu,memory:/box/device\n4:cpu:/other", "0::/box/device"
UNLIMITED_V1 = 9223372036854771712


@pytest.mark.parametrize(
    ("groups", "files", "left"),
    [
        ("", {}, 800 * MIB),
        (V2, group("box/device", "max", 0, 2 * MIB), 800 * MIB),
        (V2, group("box/device", 512 * MIB, 300 * MIB, 50 * MIB), 262 * MIB),
        (V2, group("box/device", 512 * MIB, 5 * MIB, 50 * MIB), 512 * MIB),
        (V2, group("box", 256 * MIB, 300 * MIB, 100 * MIB) | group("box/device", "max", 0, 2 * MIB), 56 * MIB),
        (V2, group("box/device", 4096 * MIB, 0, 2 * MIB), 800 * MIB),
        (V2, group(".", 512 * MIB, 300 * MIB, 50 * MIB), 262 * MIB),  # in a container
        ("0::/../../box", group(".", 512 * MIB, 300 * MIB, 50 * MIB), 262 * MIB),
        (V1, group("memory/box/device", UNLIMITED_V1, 0, 2 * MIB), 800 * MIB),
        (V1, group("memory/box/device", 512 * MIB, 300 * MIB, 50 * MIB), 262 * MIB),
        (V1, group("memory/box", 512 * MIB, 300 * MIB, 50 * MIB), 262 * MIB),
        (V1, group("box/device", 512 * MIB, 300 * MIB, 50 * MIB), 800 * MIB),  # v2 has no memory controller here
        (f"{V1}\n{V2}", group("memory/box", 512 * MIB, 0, 2 * MIB) | group("box", 64 * MIB, 0, 2 * MIB), 64 * MIB),
        ("nonsense\n7:memory", {}, 800 * MIB),
    ],
)  # fmt: skip
def test_free_memory_is_the_least_of_every_limit_and_what_is_held(tmp_path, groups, files, left):
    root = machine(tmp_path, 800 * MIB, groups, **files)
    assert free_memory_bytes(root) == left + 100 * MIB


def test_the_reserve_is_the_systems(tmp_path):
    root = machine(tmp_path, 200 * MIB, V2, **group("box/device", 150 * MIB, 0, 2 * MIB))
    assert free_memory_bytes(root, 30 * MIB) == 250 * MIB
    assert free_memory_bytes(root, 80 * MIB) == 220 * MIB
    assert free_memory_bytes(root, 900 * MIB) == 0
    assert free_memory_bytes(tmp_path / "absent") is None


def test_a_budget_gets_no_more_memory_than_there_is():
    assert within_memory(Budget(memory_bytes=7), 9) == Budget(memory_bytes=7)
    assert within_memory(Budget(memory_bytes=9), 7) == Budget(memory_bytes=7)
    assert within_memory(Budget(energy_j=1.0), 7) == Budget(energy_j=1.0, memory_bytes=7)
    assert within_memory(Budget(energy_j=1.0), None) == Budget(energy_j=1.0)


@pytest.mark.parametrize("narrow", [False, True])
def test_a_round_that_does_not_fit_what_is_left_is_refused_before_it_trains(
    tmp_path, workbench, architecture, phone, send, narrow
):
    """A plan that fitted when it was made: other programs have taken the memory since."""
    needed = 44_000_000

    def sense(round_number, spent):
        return Condition(free_memory_bytes=needed + 10**6 if narrow else needed), None

    device = Device(
        *(0, phone, workbench, FolderStore(tmp_path, architecture, durable=False)),
        lambda a: SimulatedLedger(phone, None, 0.5),
        watch=Watch(sense=sense),
    )
    assignment = send(budget=Budget(memory_bytes=10**9))
    if narrow:
        assert device.do_round(*assignment)[1].spent.memory_bytes <= needed + 10**6
    else:
        with pytest.raises(BudgetExceeded, match=f"allow {needed}: plan a narrower model") as refused:
            device.do_round(*assignment)
        assert refused.value.constraint == "memory_bytes"
        assert refused.value.spent is not None
