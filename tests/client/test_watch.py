"""A device that its own policy stops, before a round or within one: nothing is lost, and what was spent is told."""

from dataclasses import dataclass, field, replace
from datetime import time

import pytest

from slimfleet.client.app import client_app
from slimfleet.client.device import Device
from slimfleet.client.governor import PowerGovernor
from slimfleet.client.ledger import Balance, DeviceLedger
from slimfleet.client.meters import NoMeter
from slimfleet.client.policy import Policy
from slimfleet.client.store import FolderStore
from slimfleet.client.watch import HYSTERESIS_C, LONGEST_COOLING_S, Watch, WatchedLedger
from slimfleet.compression import Budget, Condition, PolicyRefusal
from slimfleet.compression.messages import Spent, parse
from slimfleet.compression.types import Pause
from slimfleet.simulations.ledger import SimulatedLedger

POLICY = Policy(charging_only=True, battery_floor=0.3)


@dataclass
class Plug:
    """Senses of a device that is unplugged once a round has spent so many seconds; `asked` are the moments."""

    after_s: float = float("inf")
    battery: float = 0.9
    asked: list[tuple[int, float]] = field(default_factory=list)

    def __call__(self, round_number: int, spent: Balance) -> tuple[Condition, time]:
        self.asked.append((round_number, spent.time_s))
        return Condition(battery=self.battery, charging=spent.time_s < self.after_s), time(12)


@pytest.fixture
def watched(tmp_path, workbench, architecture, phone):
    """Make a device with a policy, whose steps take 12 virtual milliseconds or so."""

    def make(plug: Plug, policy: Policy = POLICY, folder: str = "state") -> Device:
        store = FolderStore(tmp_path / folder, architecture, durable=False)
        return Device(
            *(2, phone, workbench, store, lambda a: SimulatedLedger(phone, a.budget.power_w, 0.5)),
            watch=Watch(policy, plug),
        )

    return make


def test_what_the_policy_allows_is_done_as_without_one(watched, send) -> None:
    plug = Plug()
    payload, report = watched(plug).do_round(*send(local_steps=4))
    plain = watched(plug, Policy(), "other").do_round(*send(local_steps=4))
    assert payload == plain[0]
    assert report == plain[1]
    assert report.condition == Condition(battery=0.9, charging=True)
    # Before the round, before each step, before the upload, and for the report.
    assert [number for number, _ in plug.asked[: 1 + 4 + 2]] == 7 * [1]


def test_a_registration_states_the_condition(watched) -> None:
    assert watched(Plug(battery=0.1)).registration().condition == Condition(battery=0.1, charging=True)


def test_a_round_that_the_policy_forbids_does_not_begin(watched, send) -> None:
    device = watched(Plug(battery=0.2))
    with pytest.raises(PolicyRefusal, match=r"by its own policy: the battery is at 20%, .*30%") as refused:
        device.do_round(*send())
    assert refused.value.reason == "battery_low"
    spent = refused.value.spent
    assert spent is not None
    assert spent.condition == Condition(battery=0.2, charging=True)
    assert spent.cost.energy_j == spent.cost.radio_j > 0  # the model was received
    assert not device.store.path(2).exists()


def test_unplugging_stops_within_a_step_and_the_next_round_is_as_if_it_had_not_been(watched, send) -> None:
    plug = Plug()
    device, twin = watched(plug), watched(Plug(), folder="twin")
    for each in (device, twin):
        each.do_round(*send(round_number=1))
    kept = device.store.path(2).read_bytes()
    plug.asked.clear()
    device.do_round(*send(round_number=2, plan_id=8, local_steps=40))
    moments = [moment for _, moment in plug.asked]
    device.store.path(2).write_bytes(kept)

    plug.after_s = (moments[10] + moments[11]) / 2  # within a step
    plug.asked.clear()
    with pytest.raises(PolicyRefusal) as refused:
        device.do_round(*send(round_number=2, plan_id=8, local_steps=40))
    assert refused.value.reason == "not_charging"
    asked = [moment for _, moment in plug.asked]
    assert max(asked) == moments[11]  # the end of that step
    spent = refused.value.spent
    assert spent is not None
    assert spent.cost.time_s == moments[11]
    assert spent.cost.uplink_bytes == 0
    assert device.store.path(2).read_bytes() == kept

    plug.after_s = float("inf")
    again = send(round_number=3, plan_id=9, acknowledged_round=1)
    assert device.do_round(*again)[0] == twin.do_round(*again)[0]


def test_a_device_that_is_unplugged_after_its_last_step_does_not_send(watched, send) -> None:
    plug = Plug()
    device = watched(plug)
    device.do_round(*send(local_steps=3))
    plug.after_s = plug.asked[-3][1]  # before the upload
    with pytest.raises(PolicyRefusal):
        device.do_round(*send(local_steps=3, plan_id=8))


def test_no_assignment_overrides_the_policy(watched, send) -> None:
    """Whatever a budget allows, nothing in an assignment reaches the watch."""
    with pytest.raises(PolicyRefusal):
        watched(Plug(after_s=0.0)).do_round(*send(budget=Budget(energy_j=1e6, deadline_s=1e6)))


def test_a_refusal_travels_with_its_reason_and_the_condition(watched, send) -> None:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

    from slimfleet.compression.messages import text_of
    from slimfleet.simulations.grids.flower import context_of, identify_process

    identify_process()
    assignment, payload = send()
    work = RecordDict({"assignment": ConfigRecord({"json": text_of(assignment)})})
    array = Array(dtype="uint8", shape=(len(payload),), stype="", data=payload)
    work["model"] = ArrayRecord({"payload": array})
    device = watched(Plug(after_s=0.6), replace(POLICY, battery_floor=0.0))
    message = Message(work, dst_node_id=3, message_type=MessageType.TRAIN)
    refusal = client_app(lambda _: device)(message, context_of(3, {})).content.config_records["refusal"]
    assert refusal["reason"] == "not_charging"
    assert parse(Spent, str(refusal["spent"])).condition == Condition(battery=0.9, charging=False)


@dataclass
class Oven:
    """A device that warms by a degree in a second of work, and cools by half a degree in one of rest."""

    celsius: float = 30.0
    now: float = 0.0
    cools_by: float = 0.5
    hottest: float = 0.0
    unplugged_at: float = float("inf")

    def sense(self, round_number: int, spent: Balance) -> tuple[Condition, time]:
        return Condition(temperature_c=self.celsius, charging=self.now < self.unplugged_at), time(12)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.celsius -= self.cools_by * seconds

    def works(self, seconds: float) -> None:
        self.now += seconds
        self.celsius += seconds
        self.hottest = max(self.hottest, self.celsius)

    def ledger(self, phone, deadline_s: float | None = None) -> WatchedLedger:
        account = DeviceLedger(phone, PowerGovernor(), NoMeter(), lambda: self.now, self.sleep)
        watch = Watch(Policy(warmest_c=45.0, charging_only=True), self.sense)
        return WatchedLedger(account, watch, 1, deadline_s)


def test_a_device_that_gets_too_warm_pauses_until_it_has_cooled_down(phone) -> None:
    oven = Oven()
    ledger = oven.ledger(phone)
    ledger.download(0)
    resumed = []
    for _ in range(40):
        before = oven.now
        oven.works(1.0)
        ledger.train(1e6)
        if oven.now > before + 1.0:
            resumed.append(oven.celsius)
    # 15 s of work to the limit, and 5 s from where a pause ends.
    assert len(resumed) == 1 + (40 - 16) // 6
    assert all(45.0 - HYSTERESIS_C - 1.0 <= celsius <= 45.0 - HYSTERESIS_C for celsius in resumed)
    assert oven.hottest == 46.0
    ledger.upload(0)
    balance, _ = ledger.close()
    (pause,) = balance.pauses
    assert (pause.reason, pause.times) == ("heat", len(resumed))
    assert pause.time_s == pytest.approx(oven.now - 40.0) == pytest.approx(balance.phases.idle.time_s)
    # Waiting costs nothing above idle.
    assert balance.energy_j - balance.radio_j == pytest.approx(4.0 * 40)


def test_heat_that_does_not_go_away_ends_the_round(phone) -> None:
    oven = Oven(celsius=46.0, cools_by=0.0)
    with pytest.raises(PolicyRefusal, match=r"at 46 °C, warmest_c is 45 °C"):
        oven.ledger(phone).download(0)
    assert LONGEST_COOLING_S - 2 <= oven.now <= LONGEST_COOLING_S


def test_nobody_waits_past_the_deadline_or_off_the_charger_to_cool_down(phone) -> None:
    oven = Oven(celsius=46.0, cools_by=0.01)
    with pytest.raises(PolicyRefusal) as refused:
        oven.ledger(phone, deadline_s=31.0).download(0)
    assert (refused.value.reason, oven.now) == ("too_warm", 30.0)
    oven = Oven(celsius=46.0, cools_by=0.01, unplugged_at=9.0)
    with pytest.raises(PolicyRefusal) as refused:
        oven.ledger(phone).download(0)
    assert (refused.value.reason, oven.now) == ("not_charging", 10.0)


def test_a_device_that_is_cool_enough_between_the_two_limits_does_not_begin_to_wait(phone) -> None:
    oven = Oven(celsius=44.0, cools_by=0.0)
    ledger = oven.ledger(phone)
    ledger.download(0)
    ledger.train(1e6)
    assert oven.now == 0.0


def test_pauses_are_a_part_of_the_report(tmp_path, workbench, architecture, phone, send) -> None:
    """Too warm at the first two looks after the download, then cool: one pause of two looks."""
    temperatures = [44.0, 44.0, 46.0, 42.0] + [39.0] * 20
    oven = Oven()

    def sense(round_number: int, spent: Balance) -> tuple[Condition, time]:
        return Condition(temperature_c=temperatures.pop(0)), time(12)

    def open_ledger(assignment):
        return DeviceLedger(phone, PowerGovernor(), NoMeter(), lambda: oven.now, oven.sleep)

    store = FolderStore(tmp_path / "state", architecture, durable=False)
    watch = Watch(Policy(warmest_c=45.0), sense)
    _, report = Device(2, phone, workbench, store, open_ledger, watch=watch).do_round(*send(local_steps=3))
    assert report.pauses == (Pause(reason="heat", times=1, time_s=4.0),)
    assert report.phases is not None
    assert report.phases.idle.time_s == 4.0
    assert report.gross_j is None
