"""What our grids rely on in Flower's internals. If a Flower release breaks one, this says which."""

from __future__ import annotations

import inspect

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from slimfleet.simulations.grids import flower
from slimfleet.simulations.grids.flower import EngineGrid, answer, context_of, give_id, rebuilt
from slimfleet.simulations.grids.local import LocalEngine
from slimfleet.simulations.virtual_devices import DeviceLost


def echo() -> ClientApp:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return Message(RecordDict({}), reply_to=message)

    return app


def raising(error: Exception) -> ClientApp:
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        raise error

    return app


def query_to(node: int) -> Message:
    flower.identify_process()
    return Message(RecordDict({}), dst_node_id=node, message_type="query")


def test_a_grid_has_the_methods_that_flower_asks_for() -> None:
    abstract = {
        name for name, member in inspect.getmembers(Grid) if getattr(member, "__isabstractmethod__", False)
    }
    assert abstract <= set(dir(EngineGrid))
    assert not EngineGrid.__abstractmethods__


def test_a_process_can_be_given_its_identity() -> None:
    flower.identify_process()
    assert (TaskIdentity.run_id, TaskIdentity.node_id) == (flower.RUN_ID, flower.SERVER_NODE)


def test_an_id_given_to_a_message_is_the_one_its_reply_names() -> None:
    message = query_to(7)
    given = give_id(message)
    reply = answer(echo(), message, context_of(7, {"partition-id": 6}))
    assert message.metadata.message_id == given
    assert reply.metadata.reply_to_message_id == given
    assert reply.metadata.src_node_id == 7
    assert not reply.has_error()


def test_a_message_can_be_put_together_again_from_its_parts() -> None:
    message = query_to(3)
    give_id(message)
    again = rebuilt(message.metadata, message.content)
    assert again.metadata.message_id == message.metadata.message_id
    assert again.content == message.content


@pytest.mark.parametrize(
    ("error", "code"), [(RuntimeError("broken"), flower.APP_RAISED), (DeviceLost("gone"), flower.NODE_GONE)]
)
def test_what_a_device_raises_becomes_an_error_reply(error: Exception, code: int) -> None:
    message = query_to(3)
    give_id(message)
    reply = answer(raising(error), message, context_of(3, {"partition-id": 2}))
    assert reply.has_error()
    assert reply.error.code == code
    assert str(error) in str(reply.error.reason)
    assert reply.metadata.src_node_id == 3


def test_a_grid_returns_each_answer_once() -> None:
    grid = EngineGrid([1, 2, 3], LocalEngine(echo()))
    ids = grid.push_messages([query_to(node) for node in grid.get_node_ids()])
    first = grid.pull_messages(ids)
    rest = [reply for _ in range(5) for reply in grid.pull_messages(ids)]
    assert [reply.metadata.src_node_id for reply in [*first, *rest]] == [1, 2, 3]
    assert [node.node_id for node in grid.get_nodes()] == [1, 2, 3]


def test_send_and_receive_waits_for_all() -> None:
    grid = EngineGrid([1, 2], LocalEngine(echo()))
    assert len(grid.send_and_receive([query_to(1), query_to(2)], timeout=10)) == 2
