"""What a device saves is loaded as it was, and a file that cannot be used costs what it held and nothing more."""

import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from slimfleet.client.state import DeviceState, Residual
from slimfleet.client.store import FolderStore, MemoryStore
from slimfleet.compression.errors import DiskError
from slimfleet.compression.pruning.blueprint import blueprint
from slimfleet.compression.sealed_file import open_sealed, seal_tensors


@pytest.fixture
def folder(tmp_path, architecture):
    return FolderStore(tmp_path, architecture, durable=False)


@pytest.fixture(params=["folder", "memory"])
def store(request, folder):
    return folder if request.param == "folder" else MemoryStore()


@pytest.fixture
def residual(no_residual):
    rng = np.random.default_rng(0)

    def make(round_number):
        before, after = (
            {
                name: np.asarray(rng.normal(size=zeros.shape), np.float32)
                for name, zeros in no_residual.items()
            }
            for _ in range(2)
        )
        return Residual(round_number, before, after)

    return make


@pytest.fixture
def state(residual, published):
    """All that a device may keep: a residual, a narrow model and a full one."""
    return DeviceState(residual(7), (published(7, 0.5).held, published(3, 1.0).held))


def plain(state):
    """A state as values that compare bit by bit."""
    generations = None
    if state.residual is not None:
        kept = state.residual
        tensors = [*kept.before.items(), *kept.after.items()]
        generations = kept.round_number, [(n, t.shape, t.dtype.name, t.tobytes()) for n, t in tensors]
    held = [(h.version, h.channels, h.snapshot.units, h.snapshot.fingerprint) for h in state.held]
    return generations, held


NOTHING = (None, [])


def test_a_device_that_saved_nothing_has_nothing(store):
    assert plain(store.load(7)) == NOTHING


def test_what_is_saved_is_loaded_for_each_device_apart(store, state, residual, published):
    states = {
        1: state,
        2: DeviceState(residual(4)),
        3: DeviceState(held=(published(9, 0.25).held,)),
        4: DeviceState(),
    }
    for device, each in states.items():
        store.save(device, each)
    assert {device: plain(store.load(device)) for device in states} == {
        d: plain(s) for d, s in states.items()
    }


def test_what_is_saved_replaces_what_was(store, state, residual):
    store.save(4, state)
    newer = DeviceState(residual(8), state.held[:1])
    store.save(4, newer)
    assert plain(store.load(4)) == plain(newer)


def test_tensors_keep_their_elements_whatever_their_layout_in_memory(folder, residual):
    kept = residual(1)
    transposed = {name: np.array(tensor, order="F") for name, tensor in kept.after.items()}
    folder.save(1, DeviceState(Residual(1, kept.before, transposed)))
    assert plain(folder.load(1)) == plain(DeviceState(kept))


def test_the_same_state_gives_the_same_bytes(folder, state):
    folder.save(1, state)
    first = folder.path(1).read_bytes()
    folder.save(1, folder.load(1))
    assert folder.path(1).read_bytes() == first


def test_the_file_of_another_device_is_passed_over(folder, state, caplog):
    folder.save(1, state)
    folder.path(1).rename(folder.path(2))
    assert plain(folder.load(2)) == NOTHING
    assert "file of device 1" in caplog.text


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop"])
def test_what_cannot_be_read_is_refused_by_name(folder, kind):
    path = folder.path(3)
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path), "loop": lambda: path.symlink_to(path)}[kind]()
    with pytest.raises(DiskError, match=r"cannot read .*3\.device"):
        folder.load(3)


def test_a_store_without_room_is_refused_in_one_line_and_keeps_the_old_file(folder, state, monkeypatch):
    folder.save(3, state)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DiskError, match=r"cannot write .*3\.device: No space left"):
        folder.save(3, DeviceState())
    monkeypatch.undo()
    assert plain(folder.load(3)) == plain(state)


def test_any_flipped_bit_or_cut_is_a_fresh_start_with_one_error_that_names_the_file(folder, state, caplog):
    folder.save(4, state)
    sound = folder.path(4).read_bytes()
    damages = [b"", sound + b"\0", *(sound[:length] for length in range(0, len(sound), 97))]
    for at in range(0, len(sound), 97):
        flipped = bytearray(sound)
        flipped[at] ^= 16
        damages.append(bytes(flipped))
    for damaged in damages:
        folder.path(4).write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.ERROR):
            assert plain(folder.load(4)) == NOTHING
        (error,) = caplog.messages
        assert str(folder.path(4)) in error
        assert "damaged" in error
    folder.save(4, state)
    assert plain(folder.load(4)) == plain(state), "the next save makes it good"


@pytest.fixture
def wider(task):
    """The blueprint of another model."""

    class Wider(type(task)):
        def build_model(self):
            model = super().build_model()
            model.append(type(model[4])(2, 2))
            return model

    return blueprint(Wider(), 1)


def test_the_file_of_another_model_is_passed_over_with_an_error(folder, state, wider, tmp_path, caplog):
    folder.save(4, state)
    with caplog.at_level(logging.ERROR):
        assert plain(FolderStore(tmp_path, wider).load(4)) == NOTHING
    assert "another model" in caplog.text


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda tensors, fields: fields.update(format="slimfleet device 0"), "slimfleet device 0"),
        (lambda tensors, fields: fields.clear(), "None"),
        (lambda tensors, fields: fields.update(device="5"), "file of device 5"),
        (lambda tensors, fields: fields.update(round="seven"), "seven"),
        (lambda tensors, fields: fields.pop("held"), "lacks 'held'"),
        (lambda tensors, fields: tensors.pop("after/4.bias"), "lacks 'after/4.bias'"),
        (lambda tensors, fields: tensors.update({"after/4.bias": np.zeros(1)}), "'4.bias' has shape [1]"),
        (lambda tensors, fields: tensors.pop("held/7/channels"), "lacks 'held/7/channels'"),
        (lambda tensors, fields: tensors.update({"held/7/channels": np.uint8([255, 255])}), "channel masks"),
        (lambda tensors, fields: tensors.update({"held/7/channels": np.uint8([255])}), "shapes of version 7"),
    ],
)
def test_a_sealed_file_that_does_not_fit_is_passed_over_with_an_error(folder, state, change, word, caplog):
    folder.save(4, state)
    tensors, fields = open_sealed(folder.path(4).read_bytes())
    change(tensors, fields)
    folder.path(4).write_bytes(seal_tensors(tensors, fields))
    with caplog.at_level(logging.ERROR):
        assert plain(folder.load(4)) == NOTHING
    assert word in caplog.text


def test_what_does_not_fit_the_model_is_refused_and_leaves_the_file_alone(folder, state, residual, published):
    folder.save(7, state)
    before, after = residual(8).before, residual(8).after
    lacking = {name: tensor for name, tensor in after.items() if name != "4.bias"}
    with pytest.raises(ValueError, match=r"'4\.bias' is missing"):
        folder.save(7, DeviceState(Residual(8, before, lacking)))
    with pytest.raises(ValueError, match=r"'4\.bias' has shape \[1\], the schema says \[2\]"):
        folder.save(7, DeviceState(Residual(8, before | {"4.bias": np.zeros(1, np.float32)}, after)))
    with pytest.raises(ValueError, match="3 models"):
        folder.save(7, DeviceState(held=tuple(published(n).held for n in (1, 2, 3))))
    assert plain(folder.load(7)) == plain(state)


KILLED = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from slimfleet.client.state import DeviceState, Residual
from slimfleet.client.store import FolderStore
from slimfleet.compression import ModelSchema

zeros = {"w": np.zeros(1000, np.float32)}
store = FolderStore(Path(sys.argv[1]), SimpleNamespace(schema=ModelSchema.of(zeros, zeros)))

def save(round_number):
    store.save(1, DeviceState(Residual(round_number, zeros, {"w": zeros["w"] + round_number})))

def loaded():
    residual = store.load(1).residual
    return residual.round_number, set(residual.after["w"].tolist())
"""


def killed(folder, then):
    """Run the program above and what follows it; the exit code."""
    return subprocess.run(
        [sys.executable, "-c", KILLED + then, str(folder)], check=False, timeout=60
    ).returncode


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path):
    assert killed(tmp_path, "save(1); os.replace = lambda source, target: os._exit(9); save(2)") == 9
    assert len(list(tmp_path.iterdir())) == 2, "the killed process got as far as writing"
    assert killed(tmp_path, "assert loaded() == (1, {1.0}); save(2); assert loaded() == (2, {2.0})") == 0


def test_a_failed_write_leaves_no_litter_and_the_old_file(folder, state, monkeypatch):
    folder.save(7, state)

    def full_disk(source, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        folder.save(7, DeviceState())
    assert [path.name for path in folder.root.iterdir()] == ["7.device"]
    assert plain(folder.load(7)) == plain(state)
