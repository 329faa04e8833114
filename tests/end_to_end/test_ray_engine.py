"""The Ray engine by itself: how much it hands out, and what it gives up."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from ray._private.worker import global_worker

from slimfleet.simulations.carried_states import CarriedStates
from slimfleet.simulations.grids.flower import WORKER_CRASHED, give_id, identify_process
from slimfleet.simulations.grids.ray import RayEngine
from slimfleet.simulations.settings import RunSettings

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_running")]

DEADLY = 7
"""The node whose work ends its worker."""
MEGABYTE = 1 << 20


def make_app(states: CarriedStates) -> ClientApp:
    """Devices that answer with what they were sent."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        if context.node_id == DEADLY and "deadly" in message.content:
            os._exit(1)
        return Message(RecordDict({"model": message.content["model"]}), reply_to=message)

    return app


def message(node: int, model: ArrayRecord, **more: ConfigRecord) -> Message:
    made = Message(RecordDict({"model": model, **more}), dst_node_id=node, message_type=MessageType.TRAIN)
    give_id(made)
    return made


def payload(size: int) -> ArrayRecord:
    return ArrayRecord({"payload": Array(dtype="uint8", shape=(size,), stype="x", data=os.urandom(size))})


@pytest.fixture(scope="module")
def engine(ray_running: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayEngine]:
    identify_process()
    settings = RunSettings(workers=2, attempts=2, device_timeout_s=120)
    engine = RayEngine(make_app, tmp_path_factory.mktemp("states"), settings)
    yield engine
    engine.close()


def answers_of(engine: RayEngine, number: int) -> Iterator[Message]:
    came = 0
    while came < number:
        for reply in engine.collect(0.1):
            came += 1
            yield reply


def test_no_more_leaves_the_driver_than_workers_can_soon_do(engine: RayEngine) -> None:
    """60 devices with a model each, of 20 more two have one: Ray never holds more than a few of them."""
    before = len(global_worker.core_worker.get_all_reference_counts())
    engine.submit([message(100 + number, payload(MEGABYTE)) for number in range(60)])
    shared = [payload(MEGABYTE) for _ in range(20)]
    engine.submit([message(200 + number, shared[number % 20]) for number in range(40)])
    most = 0
    for _ in answers_of(engine, 100):
        most = max(most, len(global_worker.core_worker.get_all_reference_counts()) - before)
    engine.collect(0.0)
    # Of two pieces of work at either worker, what was sent and what comes back; and the shelf of shared models.
    assert 0 < most <= 2 * 2 * 2 + 8 + 2
    assert len(global_worker.core_worker.get_all_reference_counts()) <= before


def test_a_device_over_which_workers_die_is_given_up_and_the_others_are_heard(engine: RayEngine) -> None:
    small = payload(10)
    engine.submit([message(node, small, deadly=ConfigRecord({})) for node in range(1, 13)])
    replies = {reply.metadata.src_node_id: reply for reply in answers_of(engine, 12)}
    assert replies.keys() == set(range(1, 13))
    assert {node for node, reply in replies.items() if reply.has_error()} == {DEADLY}
    assert replies[DEADLY].error.code == WORKER_CRASHED
    assert replies[DEADLY].error.reason == "2 workers died over it"
