import json
import logging
from dataclasses import replace

import pytest

from slimfleet.compression import BadInput
from slimfleet.coordinator.checkpoint import checkpoints

ADAM = {"optimizer": "fedadam", "learning_rate": 0.02, "averaging": 0.5}
AVERAGED = {"momentum": 0.5}


def bare(rows):
    return [replace(row, wall_time_s=0.0) for row in rows]


@pytest.mark.parametrize("server", [AVERAGED, ADAM], ids=["fedavg", "fedadam"])
def test_a_resumed_run_ends_with_the_same_bytes(federate, tmp_path, server):
    whole, killed = federate(server=server, state="whole"), federate(server=server, state="killed")
    whole.run(5)
    killed.run(3)
    killed.save(tmp_path / "checkpoint")
    killed.work(killed.plan().dispatches[0])  # killed within round 4: a device has done its part already
    resumed = federate(server=server, state="killed")
    resumed.restore(tmp_path / "checkpoint")
    assert resumed.state.next_round == 4
    resumed.run(2)
    assert resumed.state_bytes() == whole.state_bytes()
    assert bare(resumed.state.rows) == bare(whole.state.rows)
    for attribute in ("registry", "calibration", "totals", "sizes"):
        assert getattr(resumed.state, attribute) == getattr(whole.state, attribute)


@pytest.fixture
def saved(federate, tmp_path):
    """Checkpoints of three rounds, and what the state was after each."""
    root, federation, states = tmp_path / "checkpoint", federate(), []
    for _ in range(3):
        federation.run()
        federation.save(root)
        states.append(federation.state_bytes())
    return root, states


def test_only_the_last_two_are_kept(saved):
    assert [folder.name for folder in checkpoints(saved[0])] == ["round-000002", "round-000003"]


def test_what_is_not_finished_is_not_looked_at(saved, federate):
    root, states = saved
    (root / "round-000004.partial").mkdir()
    (root / "round-000004.partial" / "state.json").write_text("{")
    (root / "round-notes").mkdir()
    fresh = federate()
    fresh.restore(root)
    assert fresh.state_bytes() == states[2]


@pytest.mark.parametrize("name", ["state.json", "server.safetensors"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", None])
def test_a_torn_checkpoint_is_passed_over_with_a_warning(saved, federate, name, damage, caplog):
    root, states = saved
    file = root / "round-000003" / name
    file.unlink() if damage is None else file.write_bytes(damage(file.read_bytes()))
    fresh = federate()
    with caplog.at_level(logging.WARNING):
        fresh.restore(root)
    assert fresh.state.next_round == 3
    assert fresh.state_bytes() == states[1]
    assert "round-000003 is damaged" in caplog.text


def test_files_of_different_rounds_are_not_mixed(saved, federate, caplog):
    root, states = saved
    older, newest = checkpoints(root)
    (newest / "server.safetensors").write_bytes((older / "server.safetensors").read_bytes())
    fresh = federate()
    fresh.restore(root)
    assert fresh.state_bytes() == states[1]
    assert "do not belong together" in caplog.text


def test_an_edited_value_is_noticed(saved, federate, caplog):
    root, states = saved
    file = checkpoints(root)[-1] / "state.json"
    values = json.loads(file.read_text())
    values["rows"][0]["energy_j"] += 1.0
    file.write_text(json.dumps(values))
    fresh = federate()
    fresh.restore(root)
    assert fresh.state_bytes() == states[1]
    assert "is damaged" in caplog.text


def test_a_leftover_of_a_killed_save_is_replaced(saved, federate):
    root, _ = saved
    fresh = federate()
    fresh.restore(root)
    fresh.run()
    (root / "round-000004.partial").mkdir()
    (root / "round-000004.partial" / "junk").write_text("junk")
    folder = fresh.save(root).folder
    names = {path.name for path in folder.iterdir() if not path.name.startswith("version-")}
    assert names == {"server.safetensors", "state.json"}
    assert not (root / "round-000004.partial").exists()


def test_nothing_to_resume_is_bad_input(federate, tmp_path):
    with pytest.raises(BadInput, match="no sound checkpoint"):
        federate().restore(tmp_path / "nowhere")


@pytest.mark.parametrize(("key", "value"), [("format", 1), ("format", None), ("schema", "00" * 8)])
def test_a_foreign_checkpoint_is_bad_input(saved, federate, key, value):
    root, _ = saved
    for folder in checkpoints(root):
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(state | {key: value}))
    with pytest.raises(BadInput, match=f"{key}.*{value}"):
        federate().restore(root)


def test_another_optimiser_is_bad_input(saved, federate):
    with pytest.raises(BadInput, match="optimiser fedavg, expected is fedadam"):
        federate(server=ADAM).restore(saved[0])
