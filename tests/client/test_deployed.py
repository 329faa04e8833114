"""A real device from its node-config: two processes share nothing but the disk."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Message, MessageType, RecordDict

from slimfleet.client.app import deployed_client_app
from slimfleet.client.deployed import deployed_device
from slimfleet.compression import BadInput, DeviceProfile
from slimfleet.compression.messages import Registration, parse
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
    assert device.registration() == shares[1] == Registration(profile=phone, examples=shares[1].examples)
    # 360 of the 1797 digits are held out.
    assert sum(share.examples for share in shares) == pytest.approx(1437, abs=5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"partition-id": 4}, ["partition-id = 4", "num-partitions = 4"]),
        ({"partition-id": -1}, ["partition_id = -1"]),
        ({"partition-id": "one"}, ["partition_id", "integer"]),
        ({"profile": None}, ["profile is missing"]),
        ({"state": None}, ["state is missing"]),
        ({"profile": "absent.json"}, ["absent.json", "No such file"]),
        ({"meter": "magic"}, ["'magic'", "power-supply"]),
        ({"meter": "simulated"}, ["'simulated'", "none"]),
        ({"metre": "none"}, ["'metre'", "did you mean 'meter'"]),
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
    assert registration == deployed_device(node_config, "digits", {"alpha": 1.0}).registration()
    context.run_config = {"task.alpha": 1.0}
    with pytest.raises(BadInput, match=r"task\.name is missing"):
        deployed_client_app()(query, context)
