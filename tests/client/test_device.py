import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from slimfleet.client.app import client_app
from slimfleet.client.device import Device
from slimfleet.client.governor import PowerGovernor
from slimfleet.client.ledger import DeviceLedger
from slimfleet.client.meters import NoMeter
from slimfleet.client.state import residual_at
from slimfleet.client.store import FolderStore, MemoryStore
from slimfleet.compression import Budget, BudgetExceeded, PayloadError, Report, Training
from slimfleet.compression.codec import decode, encode_change
from slimfleet.compression.messages import Registration, Spent, parse, text_of
from slimfleet.compression.types import Startup
from slimfleet.simulations.grids.flower import context_of, identify_process
from slimfleet.simulations.ledger import SimulatedLedger


@pytest.fixture
def device(tmp_path, workbench, architecture, phone):
    store = FolderStore(tmp_path, architecture, durable=False)
    return Device(2, phone, workbench, store, lambda a: SimulatedLedger(phone, a.budget.power_w, 0.5))


@pytest.fixture
def unsent(device, send, architecture):
    """The residual that holds for the device when a round begins, of one tensor."""

    def at(acknowledged_round, round_number):
        assignment, _ = send(round_number=round_number, acknowledged_round=acknowledged_round)
        kept = device.store.load(device.number).residual
        return residual_at(assignment, kept, architecture.schema)["4.weight"]

    return at


def test_a_device_introduces_itself(device, phone):
    assert device.registration() == Registration(profile=phone, examples=40)


def test_an_accepted_update_keeps_its_residual_and_a_rejected_one_rolls_it_back(device, send, unsent):
    device.do_round(*send(round_number=1))
    first = unsent(1, 2)
    assert first.any()
    device.do_round(*send(round_number=2, acknowledged_round=1, plan_id=8))
    second = unsent(2, 3)
    assert not np.array_equal(second, first)
    # Round 2 was rejected: the coordinator still acknowledges round 1.
    assert np.array_equal(unsent(1, 3), first)


def test_after_a_rejection_the_next_update_is_as_if_it_had_never_been(device, send):
    device.do_round(*send(round_number=1))
    device.do_round(*send(round_number=2, acknowledged_round=1, plan_id=8))
    rejected = device.do_round(*send(round_number=3, acknowledged_round=1, plan_id=9))[0]
    twin = replace(device, store=MemoryStore())
    twin.do_round(*send(round_number=1))
    assert twin.do_round(*send(round_number=3, acknowledged_round=1, plan_id=9))[0] == rejected
    accepted = device.do_round(*send(round_number=4, acknowledged_round=3, plan_id=10))[0]
    assert accepted != twin.do_round(*send(round_number=4, acknowledged_round=1, plan_id=10))[0]


def test_a_device_that_sits_rounds_out_adds_a_residual_that_has_aged(device, send, unsent, architecture):
    """By `feedback_decay` for each round between, and after `feedback_max_age` not at all."""
    training = Training(learning_rate=0.1, feedback_decay=0.5, feedback_max_age=3)

    def sent(round_number, acknowledged_round):
        assignment, payload = send(
            round_number=round_number,
            acknowledged_round=acknowledged_round,
            plan_id=8,
            nmse=0.0,
            training=training,
        )
        update = device.do_round(assignment, payload)[0]
        return decode(update, architecture.schema).tensors["4.weight"]

    device.do_round(*send(round_number=1, training=training, nmse=0.5))
    kept, state = unsent(1, 2), device.store.load(device.number)
    updates = {}
    for round_number in (2, 3, 4, 5):
        device.store.save(device.number, state)
        updates[round_number] = sent(round_number, acknowledged_round=1)
    fresh = updates[5]
    assert kept.any()
    for round_number, share in ((2, 1.0), (3, 0.5), (4, 0.25)):
        np.testing.assert_allclose(updates[round_number] - fresh, share * kept, atol=1e-6)


def test_a_round_done_again_gives_the_same_bytes(device, send):
    """A coordinator that was killed opens the same round once more."""
    device.do_round(*send(round_number=1))
    again = [device.do_round(*send(round_number=2, acknowledged_round=1, plan_id=8)) for _ in range(2)]
    assert again[0] == again[1]


def published_to(send, version, **assignment):
    """An assignment with a model that can be held: one on a grid."""
    return send(**assignment)[0], version.payload


def test_a_refused_round_leaves_everything_kept_as_it_was(device, send, published):
    device.do_round(*published_to(send, published(1)))
    before = device.store.path(2).read_bytes()
    diverges = Training(learning_rate=1e30)
    assignment, payload = published_to(send, published(2), round_number=2, training=diverges)
    for refused in (payload[:-1], payload):
        with pytest.raises(PayloadError):
            device.do_round(assignment, refused)
        assert device.store.path(2).read_bytes() == before


def test_a_lost_or_older_file_is_said_aloud(device, send, caplog):
    """The coordinator knows of a later round than the file does."""
    device.do_round(*send(round_number=1))
    device.do_round(*send(round_number=2, acknowledged_round=1))
    assert not caplog.messages
    device.do_round(*send(round_number=4, acknowledged_round=3))
    device.store.path(2).unlink()
    device.do_round(*send(round_number=5, acknowledged_round=4))
    assert ["round 3 is lost" in text or "round 4 is lost" in text for text in caplog.messages] == [
        True,
        True,
    ]


def test_without_feedback_nothing_is_kept(device, send):
    device.do_round(*send(training=Training(learning_rate=0.1, feedback=False)))
    assert not device.store.path(2).exists()


def test_without_feedback_models_are_held_and_an_older_residual_stays(device, send, published, unsent):
    off = Training(learning_rate=0.1, feedback=False)
    device.do_round(*published_to(send, published(1), round_number=1))
    left = unsent(1, 2)
    device.do_round(*published_to(send, published(2), round_number=2, training=off, acknowledged_round=1))
    assert left.any()
    assert np.array_equal(unsent(1, 2), left)
    assert [held.version for held in device.store.load(2).held] == [2, 1]


def test_a_round_may_send_the_change_of_a_model_that_the_device_holds(device, send, published):
    one = published(1)
    two = published(2, before=one.full)
    change = encode_change(
        two.held.snapshot, one.full, two.others, two.index_map.schema, base_version=1, side=two.held.channels
    )
    assignment, _ = send(round_number=2)
    with pytest.raises(PayloadError) as refusal:
        device.do_round(assignment, change)
    assert refusal.value.reason == "stale"
    device.do_round(*published_to(send, one))
    twin = replace(device, store=MemoryStore())
    twin.store.save(2, device.store.load(2))
    assert device.do_round(assignment, change)[0] == twin.do_round(assignment, two.payload)[0]


def test_a_store_in_memory_serves_as_well_as_one_on_disk(device, send, published):
    twin = replace(device, store=MemoryStore())
    for number in (1, 2, 3):
        sent = published_to(
            send,
            published(number),
            round_number=number,
            plan_id=number,
            acknowledged_round=number - 1 or None,
        )
        assert device.do_round(*sent)[0] == twin.do_round(*sent)[0]


def test_the_meter_is_stopped_whatever_happens(device, send, phone):
    class Watched(NoMeter):
        def __init__(self):
            self.seen = []

        def start(self):
            self.seen.append("start")

        def stop(self):
            self.seen.append("stop")

    meter = Watched()
    open_ledger = lambda a: DeviceLedger(phone, PowerGovernor(), meter, lambda: 0.0, lambda s: None)  # noqa: E731
    assignment, payload = send()
    with pytest.raises(PayloadError):
        replace(device, open_ledger=open_ledger).do_round(assignment, payload[:-1])
    assert meter.seen == ["start", "stop"]


def test_a_refused_round_tells_what_it_had_spent(device, send, phone):
    budget = Budget(energy_j=0.1)
    with pytest.raises(BudgetExceeded) as refusal:
        device.do_round(*send(budget=budget))
    _, payload = send(budget=budget)
    spent = refusal.value.spent
    assert spent.cost.energy_j == spent.cost.radio_j == pytest.approx(0.5 + 5e-6 * len(payload))
    assert spent.cost.downlink_bytes == len(payload)
    assert spent.startup == Startup(time_s=0.5, energy_j=0.0)


def test_training_leaves_the_threads_of_torch_as_they_were(device, send):
    """Whether it ends well or not; in the round it has the threads that the device was given."""
    seen = []

    class Watching(type(device.workbench.task)):
        def load(self, partition):
            seen.append(torch.get_num_threads())
            return super().load(partition)

    def watched(threads=1):
        # Examples that have been loaded are kept, for a task.
        return replace(device, workbench=replace(device.workbench, task=Watching()), threads=threads)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        watched().do_round(*send())
        watched(threads=3).do_round(*send(round_number=2))
        with pytest.raises(BudgetExceeded):
            watched().do_round(*send(budget=Budget(energy_j=0.1)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 3, 1]


@pytest.fixture
def ask(device):
    """Send a Flower message to the device's app."""
    identify_process()
    app = client_app(lambda context: device)

    def send_message(content, kind=MessageType.TRAIN):
        message = Message(content, dst_node_id=3, message_type=kind)
        return app(message, context_of(3, {}))

    return send_message


def work(assignment_text, payload):
    array = Array(dtype="uint8", shape=(len(payload),), stype="slimfleet.payload", data=payload)
    model = ArrayRecord({"payload": array})
    return RecordDict({"model": model, "assignment": ConfigRecord({"json": assignment_text})})


def test_the_app_registers_the_device(ask, device):
    reply = ask(RecordDict({}), MessageType.QUERY)
    assert parse(Registration, reply.content["registration"]["json"]) == device.registration()


def test_the_app_answers_with_update_and_report(ask, send, architecture):
    assignment, payload = send()
    content = ask(work(text_of(assignment), payload)).content
    update = content["update"]["payload"].data
    report = parse(Report, content["report"]["json"])
    assert report.spent.uplink_bytes == len(update)
    assert decode(update, architecture.schema).header.plan_id == assignment.plan_id


@pytest.mark.parametrize(
    ("budget", "cut", "reason"),
    [
        (Budget(energy_j=0.1), None, "energy_j"),
        (Budget(memory_bytes=1), None, "memory_bytes"),
        (Budget(), -1, "truncated"),
    ],
)
def test_the_app_refuses_with_a_reason(ask, send, budget, cut, reason):
    assignment, payload = send(budget=budget)
    content = ask(work(text_of(assignment), payload[:cut])).content
    assert list(content) == ["refusal"]
    assert parse(Spent, content["refusal"]["spent"]).startup == Startup(time_s=0.5, energy_j=0.0)
    assert content["refusal"]["reason"] == reason
    assert content["refusal"]["message"]


def test_the_app_refuses_an_assignment_out_of_bounds(ask, send):
    assignment, payload = send()
    fields = json.loads(text_of(assignment))
    fields["plan"]["width"] = 2.0
    content = ask(work(json.dumps(fields), payload)).content
    assert content["refusal"]["reason"] == "message"
    assert "width" in content["refusal"]["message"]
