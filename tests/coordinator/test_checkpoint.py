import json
import logging
from dataclasses import replace

import pytest

from slimfleet.compression import BadInput
from slimfleet.coordinator.checkpoint import checkpoints, restore_checkpoint, save_checkpoint
from slimfleet.coordinator.learning.server_optimizer import ServerSettings
from slimfleet.coordinator.settings import CoordinatorSettings

ADAM = ServerSettings(optimizer="fedadam", learning_rate=0.02, averaging=0.5)
AVERAGED = ServerSettings(momentum=0.5)


def bare(rows):
    return [replace(row, wall_time_s=0.0) for row in rows]


@pytest.mark.parametrize("server", [AVERAGED, ADAM], ids=lambda s: s.optimizer)
def test_a_resumed_run_ends_with_the_same_bytes(federate, tmp_path, server):
    whole, killed = federate(server=server, state="whole"), federate(server=server, state="killed")
    whole.run(5)
    killed.run(3)
    save_checkpoint(tmp_path / "checkpoint", killed.coordinator)
    lost = killed.open()  # killed within round 4: some devices have already done their part
    lost.receive(*killed.answer(lost.dispatches[0]))
    resumed = federate(server=server, state="killed")
    restore_checkpoint(tmp_path / "checkpoint", resumed.coordinator)
    assert resumed.coordinator.next_round == 4
    resumed.run(2)
    assert resumed.state_bytes() == whole.state_bytes()
    assert bare(resumed.coordinator.rows) == bare(whole.coordinator.rows)
    for attribute in ("registry", "calibration", "totals"):
        ours, theirs = (getattr(f.coordinator, attribute).to_json() for f in (resumed, whole))
        assert ours == theirs
    assert resumed.coordinator.cost_model.sizes == whole.coordinator.cost_model.sizes


@pytest.fixture
def saved(federate, tmp_path):
    """Checkpoints of three rounds, and what the state was after each."""
    root, federation, states = tmp_path / "checkpoint", federate(), []
    for _ in range(3):
        federation.run()
        save_checkpoint(root, federation.coordinator)
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
    restore_checkpoint(root, fresh.coordinator)
    assert fresh.state_bytes() == states[2]


@pytest.mark.parametrize("name", ["state.json", "server.safetensors"])
@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", None])
def test_a_torn_checkpoint_is_passed_over_with_a_warning(saved, federate, name, damage, caplog):
    root, states = saved
    file = root / "round-000003" / name
    file.unlink() if damage is None else file.write_bytes(damage(file.read_bytes()))
    fresh = federate()
    with caplog.at_level(logging.WARNING):
        restore_checkpoint(root, fresh.coordinator)
    assert fresh.coordinator.next_round == 3
    assert fresh.state_bytes() == states[1]
    assert "round-000003 is damaged" in caplog.text


def test_a_leftover_of_a_killed_save_is_replaced(saved, federate):
    root, _ = saved
    fresh = federate()
    restore_checkpoint(root, fresh.coordinator)
    fresh.run()
    (root / "round-000004.partial").mkdir()
    (root / "round-000004.partial" / "junk").write_text("junk")
    folder = save_checkpoint(root, fresh.coordinator)
    names = {path.name for path in folder.iterdir() if not path.name.startswith("version-")}
    assert names == {"server.safetensors", "state.json"}
    assert not (root / "round-000004.partial").exists()


def test_nothing_to_resume_is_bad_input(federate, tmp_path):
    with pytest.raises(BadInput, match="no sound checkpoint"):
        restore_checkpoint(tmp_path / "nowhere", federate().coordinator)


@pytest.mark.parametrize(("key", "value"), [("format", 1), ("format", None), ("schema", "00" * 8)])
def test_a_foreign_checkpoint_is_bad_input(saved, federate, key, value):
    root, _ = saved
    for folder in checkpoints(root):
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(state | {key: value}))
    with pytest.raises(BadInput, match=f"{key}.*{value}"):
        restore_checkpoint(root, federate().coordinator)


def test_another_optimiser_is_bad_input(saved, federate):
    with pytest.raises(BadInput, match="optimiser fedavg, expected is fedadam"):
        restore_checkpoint(saved[0], federate(server=ADAM).coordinator)


def test_settings_have_defaults_that_run():
    assert CoordinatorSettings(rounds=1).budget_of("any") == CoordinatorSettings(rounds=1).budget
