"""A real device from its node-config: two processes share nothing but the disk."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, RecordDict

from slimfleet.client.app import deployed_client_app
from slimfleet.client.deployed import deployed_device
from slimfleet.client.figures import cores
from slimfleet.client.startup import Began
from slimfleet.compression import Assignment, BadInput, Budget, DeviceProfile, Plan, Report, Training
from slimfleet.compression.codec import CodecSpec, encode
from slimfleet.compression.messages import Registration, parse, text_of
from slimfleet.compression.pruning import pack_channels, select_channels
from slimfleet.compression.tensors import tensors_of
from slimfleet.compression.types import Startup
from slimfleet.compression.wire import Envelope, PayloadKind
from slimfleet.simulations.grids.flower import context_of, identify_process


@pytest.fixture
def node_config(tmp_path: Path, phone: DeviceProfile) -> dict[str, Any]:
    profile = tmp_path / "phone.json"
    profile.write_text(json.dumps(asdict(phone)))
    return {"partition-id": 1, "num-partitions": 4, "profile": str(profile), "state": str(tmp_path / "state")}


def test_a_device_is_what_its_profile_says_and_holds_its_share(
    node_config: dict[str, Any], phone: DeviceProfile
) -> None:
    device = deployed_device(node_config, "digits", {"alpha": 1.0})
    assert device.number == 1
    assert device.store.root == Path(node_config["state"])
    shares = [
        deployed_device(node_config | {"partition-id": n}, "digits", {"alpha": 1.0}).registration()
        for n in range(4)
    ]
    assert {share.profile for share in shares} == {phone}
    assert device.registration().examples == shares[1].examples
    # 360 of the 1797 digits are held out.
    assert sum(share.examples for share in shares) == pytest.approx(1437, abs=5)


def test_a_device_keeps_its_share_and_its_state_when_others_join(node_config: dict[str, Any]) -> None:
    """The number of shares belongs to the data: numbers past the last one begin again with the first."""

    def held(number: int, **changes: Any) -> Any:
        config = node_config | {"partition-id": number, **changes}
        device = deployed_device(config, "digits", {"alpha": 1.0, **({} if changes else {"partitions": 3})})
        return device, device.workbench.task.load(device.share).inputs

    for changes in ({}, {"num-partitions": 2}):
        shares = changes.get("num-partitions", 3)
        if not changes:
            del node_config["num-partitions"]
        first, joined = held(0, **changes), held(shares, **changes)
        assert first[1].equal(joined[1])
        assert first[0].store.path(first[0].number) != joined[0].store.path(joined[0].number)
        assert not held(1, **changes)[1].equal(first[1])
    assert len(held(2)[1]) == pytest.approx(1437 / 3, abs=250)
    default = deployed_device(node_config | {"partition-id": 12}, "digits", {})
    assert (default.number, default.share, default.workbench.task.partitions) == (12, 2, 10)


def test_a_registration_states_the_startup_of_its_process(node_config: dict[str, Any]) -> None:
    def said(waited_s: float, worked_s: float) -> Startup:
        now = Began.now()
        earlier = Began(now.clock_s - waited_s, now.cpu_s - worked_s)
        return deployed_device(node_config, "digits", {}, lambda: earlier).registration().startup

    short, long = said(0.0, 0.0), said(100.0, 50.0)
    assert 0 < short.energy_j <= 4.0 * short.time_s
    assert long.time_s >= 100.0
    assert long.energy_j >= 4.0 * 50.0


def test_the_folder_of_the_state_is_made(node_config: dict[str, Any], tmp_path: Path) -> None:
    deployed_device(node_config | {"state": str(tmp_path / "var" / "lib" / "slimfleet")}, "digits", {})
    assert (tmp_path / "var" / "lib" / "slimfleet").is_dir()


def test_threads_are_all_cores_or_what_the_operator_says(node_config: dict[str, Any]) -> None:
    assert deployed_device(node_config, "digits", {}).threads == cores()
    assert deployed_device(node_config | {"threads": 3}, "digits", {}).threads == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num-partitions": 0}, ["num_partitions = 0", "1"]),
        ({"threads": 0}, ["threads = 0", "1"]),
        ({"state": __file__}, ["state = ", "test_deployed.py", "File exists"]),
        ({"partition-id": -1}, ["partition_id = -1"]),
        ({"partition-id": "one"}, ["partition_id", "integer"]),
        ({"profile": None}, ["profile is missing"]),
        ({"state": None}, ["state is missing"]),
        ({"profile": "absent.json"}, ["absent.json", "No such file"]),
        ({"meter": "magic"}, ["'magic'", "power-supply"]),
        ({"meter": "simulated"}, ["'simulated'", "none"]),
        ({"meters": "none"}, ["'meters'", "did you mean 'meter'"]),
    ],
)
def test_what_is_wrong_with_a_node_config_is_named(
    node_config: dict[str, Any], change: dict[str, Any], words: list[str]
) -> None:
    changed = {key: value for key, value in (node_config | change).items() if value is not None}
    with pytest.raises(BadInput) as refused:
        deployed_device(changed, "digits", {})
    for word in words:
        assert word in str(refused.value)


def test_a_meter_without_a_sensor_leaves_energy_estimated(node_config: dict[str, Any], send: Any) -> None:
    device = deployed_device(node_config | {"meter": "none"}, "digits", {})
    ledger = device.open_ledger(send()[0])
    ledger.download(1_000)
    assert ledger.close()[1] == "estimated"


def test_the_app_of_a_supernode_answers_for_the_device_of_its_configs(
    node_config: dict[str, Any], phone: DeviceProfile
) -> None:
    identify_process()
    context = context_of(3, node_config)
    context.run_config = {"task.name": "slimfleet.client.tasks:Digits", "task.alpha": 1.0}
    query = Message(RecordDict({}), dst_node_id=3, message_type=MessageType.QUERY)
    reply = deployed_client_app()(query, context)
    registration = parse(Registration, str(reply.content.config_records["registration"]["json"]))
    expected = deployed_device(node_config, "digits", {"alpha": 1.0}).registration()
    assert (registration.profile, registration.examples) == (phone, expected.examples)


def test_what_is_wrong_with_a_config_is_the_answer_and_stands_in_the_nodes_log(
    node_config: dict[str, Any], send: Any, caplog: pytest.LogCaptureFixture
) -> None:
    identify_process()
    context = context_of(3, node_config)
    context.run_config = {"task.alpha": 1.0}
    assignment, payload = send()
    work = RecordDict({"assignment": ConfigRecord({"json": text_of(assignment)})})
    work["model"] = ArrayRecord(
        {"payload": Array(dtype="uint8", shape=(len(payload),), stype="", data=payload)}
    )
    for content, kind in ((RecordDict({}), MessageType.QUERY), (work, MessageType.TRAIN)):
        message = Message(content, dst_node_id=3, message_type=kind)
        refusal = deployed_client_app()(message, context).content.config_records["refusal"]
        assert refusal["reason"] == "refused"
        assert str(refusal["message"]).startswith("run-config: task.name is missing")
    assert caplog.text.count("task.name is missing") == 2
    assert "round 1 is refused (refused)" in caplog.text


def test_every_round_is_a_line_in_the_nodes_log(
    node_config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    identify_process()
    context = context_of(3, node_config)
    context.run_config = {"task.name": "slimfleet.client.tasks:Digits"}
    device = deployed_device(node_config, "digits", {})
    model, schema = tensors_of(device.workbench.blueprint.model), device.workbench.blueprint.schema
    groups = device.workbench.blueprint.groups
    envelope = Envelope(
        kind=PayloadKind.MODEL, side=pack_channels(groups, select_channels(groups, 1.0, "prefix"))
    )
    payload = encode(model, schema, CodecSpec(bits=32), envelope=envelope).payload
    plan = Plan(width=1.0, local_steps=2, batch_size=8, nmse=0.1)
    assignment = Assignment(
        round_number=7, plan_id=1, plan=plan, budget=Budget(), training=Training(learning_rate=0.1)
    )
    work = RecordDict({"assignment": ConfigRecord({"json": text_of(assignment)})})
    work["model"] = ArrayRecord(
        {"payload": Array(dtype="uint8", shape=(len(payload),), stype="", data=payload)}
    )
    message = Message(work, dst_node_id=3, message_type=MessageType.TRAIN)
    reply = deployed_client_app()(message, context)
    report = parse(Report, str(reply.content.config_records["report"]["json"]))
    assert 0 < report.startup.energy_j < report.spent.energy_j
    assert 0 < report.startup.time_s < report.spent.time_s
    (line,) = [record.getMessage() for record in caplog.records if "round 7" in record.getMessage()]
    assert "2 of 2 steps" in line
    assert " s: startup " in line
    assert ", encode " in line
