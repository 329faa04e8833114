import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from slimfleet.compression import BadInput
from slimfleet.compression.errors import DiskError
from slimfleet.compression.sealed_file import open_sealed, seal_tensors
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
    assert list(resumed.state.registry) == list(whole.state.registry)
    for attribute in ("calibration", "totals", "sizes"):
        assert getattr(resumed.state, attribute) == getattr(whole.state, attribute)


@pytest.fixture(scope="module")
def three_rounds(federate_in, tmp_path_factory):
    """A folder of devices and checkpoints of three rounds, and what the state was after each."""
    folder, states = tmp_path_factory.mktemp("three"), []
    federation = federate_in(folder)()
    for _ in range(3):
        federation.run()
        federation.save(folder / "checkpoint")
        states.append(federation.state_bytes())
    return folder, states


@pytest.fixture
def saved(three_rounds, tmp_path):
    """Checkpoints of three rounds, to be spoiled, and what the state was after each."""
    folder, states = three_rounds
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return tmp_path / "checkpoint", states


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
    names = {path.name for path in folder.iterdir() if not path.name.startswith(("version-", "best-"))}
    assert names == {"server.safetensors", "state.json"}
    assert not (root / "round-000004.partial").exists()


def test_nothing_to_resume_is_bad_input(federate, tmp_path):
    with pytest.raises(BadInput, match="no sound checkpoint"):
        federate().restore(tmp_path / "nowhere")


def edited(folder, change=lambda values: None, arrays=lambda tensors: None):
    """Change what a checkpoint holds, and seal it anew as if it had been written so."""
    values = json.loads((folder / "state.json").read_text())
    text = json.dumps(change(values) or values)
    tensors, seal = open_sealed((folder / "server.safetensors").read_bytes())
    arrays(tensors)
    seal |= {"state.json": xxhash.xxh3_64_hexdigest(text.encode())}
    (folder / "state.json").write_text(text)
    (folder / "server.safetensors").write_bytes(seal_tensors(tensors, seal))


@pytest.mark.parametrize(("key", "value"), [("format", 1), ("format", "null"), ("schema", "00" * 8)])
def test_a_foreign_checkpoint_is_bad_input(saved, federate, key, value):
    for folder in checkpoints(saved[0]):
        edited(folder, lambda values: values | {key: None if value == "null" else value})
    with pytest.raises(BadInput, match=f"{key}.*{value}"):
        federate().restore(saved[0])


def fell_back(saved, federate, caplog) -> str:
    """The log of a resumption that must take the second newest checkpoint; the command line shows its level."""
    root, states = saved
    fresh = federate()
    with caplog.at_level(logging.ERROR):
        fresh.restore(root)
    assert fresh.state_bytes() == states[1]
    (line,) = caplog.messages
    assert "round-000003 is damaged" in line
    assert "going back to round-000002" in line
    assert len(line.splitlines()) == 1
    fresh.run()
    fresh.save(root)
    assert [folder.name for folder in checkpoints(root)] == ["round-000002", "round-000003"]
    assert fresh.state_bytes() == states[2], "the round that was lost is run again to the same state"
    return line


def test_any_flipped_bit_in_any_file_falls_back(saved, federate, caplog):
    root, states = saved
    newest = checkpoints(root)[-1]
    assert len([path for path in newest.iterdir() if path.name.startswith("version-")]) > 1
    for path in newest.iterdir():
        sound = path.read_bytes()
        for at in range(0, len(sound), len(sound) // 7):
            path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
            fresh = federate()
            caplog.clear()
            fresh.restore(root)
            assert fresh.state_bytes() == states[1], f"bit 0 of byte {at} in {path.name}"
            assert "round-000003 is damaged" in caplog.text
        path.write_bytes(sound)


def is_version(path):
    return path.name.startswith("version-")


@pytest.mark.parametrize(
    "take", ["missing", "renumbered", "of another round", "folder", "pipe", "dangling link"]
)
def test_a_version_that_is_not_the_one_that_was_saved_falls_back(saved, federate, caplog, take):
    first, *_, last = sorted(filter(is_version, checkpoints(saved[0])[-1].iterdir()))
    other = last.read_bytes()
    if take != "renumbered":
        first.unlink()
    match take:
        case "renumbered":
            first.rename(first.with_name(first.name.replace("000001", "000009")))
        case "of another round":
            first.write_bytes(other)
        case "folder":
            first.mkdir()
        case "pipe":
            os.mkfifo(first)
        case "dangling link":
            first.symlink_to("nowhere")
    assert first.name in fell_back(saved, federate, caplog)


def test_files_with_odd_names_are_nobodys(saved, federate):
    root, states = saved
    newest = checkpoints(root)[-1]
    for name in ("version-x.safetensors", "version-", ".DS_Store", "state.json~"):
        (newest / name).write_bytes(b"odd")
    for name in ("round-", "round-\u00b2\u00b2", "round-99", "round-0000x9"):
        (root / name).mkdir()
    fresh = federate()
    fresh.restore(root)
    assert fresh.state_bytes() == states[2]


NO_STATE = ["[]", "null", "3", "[" * 100_000, "{}", "\ufeff{", '{"format": ' + "9" * 5_000 + "}"]


@pytest.mark.parametrize("content", NO_STATE, ids=range(len(NO_STATE)))
def test_what_is_no_state_falls_back(saved, federate, caplog, content):
    (checkpoints(saved[0])[-1] / "state.json").write_text(content)
    fell_back(saved, federate, caplog)


def without(key):
    return lambda values: {name: value for name, value in values.items() if name != key}


CHANGES = {
    "a missing key": without("totals"),
    "an extra key": lambda values: values | {"more": 1},
    "a value of another kind": lambda values: values | {"rows": {}},
    "an environment of another kind": lambda values: values | {"environment": []},
    "another round": lambda values: values | {"rows": values["rows"][:-1]},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_state_that_does_not_fit_falls_back(saved, federate, caplog, change):
    edited(checkpoints(saved[0])[-1], change)
    fell_back(saved, federate, caplog)


TENSORS = {
    "missing": lambda t: t.pop("model/0.weight"),
    "misshapen": lambda t: t.update({"model/0.bias": t["model/0.bias"][:1]}),
    "of another type": lambda t: t.update({"model/0.bias": t["model/0.bias"].astype("f8")}),
    "extra": lambda t: t.update({"more": t["steps"]}),
    "a slot of nothing": lambda t: t.update({"optimizer/9.weight/momentum_buffer": t["steps"]}),
    "a misshapen slot": lambda t: t.update({"optimizer/0.weight/momentum_buffer": t["model/0.bias"]}),
}


@pytest.mark.parametrize("change", TENSORS.values(), ids=TENSORS)
def test_tensors_that_do_not_fit_fall_back(saved, federate, caplog, change):
    edited(checkpoints(saved[0])[-1], arrays=change)
    fell_back(saved, federate, caplog)


@pytest.mark.parametrize("kind", ["copy of the one before", "file", "link to nowhere", "empty"])
def test_a_checkpoint_that_is_none_falls_back(saved, federate, caplog, kind):
    before, newest = checkpoints(saved[0])
    shutil.rmtree(newest)
    match kind:
        case "copy of the one before":
            shutil.copytree(before, newest)
        case "file":
            newest.write_bytes(b"")
        case "link to nowhere":
            newest.symlink_to("nowhere")
        case "empty":
            newest.mkdir()
    fell_back(saved, federate, caplog)


def test_where_every_checkpoint_is_damaged_one_line_names_what_is_wrong(saved, federate, caplog):
    for folder in checkpoints(saved[0]):
        (folder / "server.safetensors").unlink()
    with pytest.raises(BadInput) as refused:
        federate().restore(saved[0])
    assert "round-000003: server.safetensors: No such file" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert not caplog.messages


def test_what_may_not_be_read_is_refused_and_not_passed_over(saved, federate, monkeypatch):
    newest = checkpoints(saved[0])[-1]
    read = Path.read_bytes

    def refusing(path):
        if path.parent == newest:
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    with pytest.raises(BadInput, match=r"cannot read .*round-000003/state\.json: Permission denied"):
        federate().restore(saved[0])


def test_a_file_in_place_of_the_folder_is_refused(federate, tmp_path):
    (tmp_path / "checkpoint").write_text("")
    with pytest.raises(DiskError, match="checkpoint: Not a directory"):
        federate().restore(tmp_path / "checkpoint")
    with pytest.raises(DiskError, match=r"cannot write .*checkpoint"):
        federate().save(tmp_path / "checkpoint")


def test_a_version_is_written_twice_and_shared_with_every_other_checkpoint(saved, federate):
    """Neighbours share no file: one that is damaged on the disk harms one of the two that are kept."""

    def inodes(folder):
        return {path.name: path.stat().st_ino for path in filter(is_version, folder.iterdir())}

    root, _ = saved
    older, newer = map(inodes, checkpoints(root))
    assert older.keys() & newer.keys()
    assert not set(older.values()) & set(newer.values())
    fresh = federate()
    fresh.restore(root)
    fresh.run()
    latest = inodes(fresh.save(root).folder)
    assert set(older.values()) <= set(latest.values())
    assert not set(newer.values()) & set(latest.values())


def test_another_optimiser_is_bad_input(saved, federate):
    with pytest.raises(BadInput, match="optimiser fedavg, expected is fedadam"):
        federate(server=ADAM).restore(saved[0])
