import logging
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfleet.client.state import ResidualStore
from slimfleet.compression.schema import ModelSchema

SHAPES = {"conv": (4, 1, 3, 3), "scale": (), "fc": (10, 16)}
SCHEMA = ModelSchema.of({name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}, SHAPES)


def residual(value):
    return {name: np.full(shape, value, np.float32) for name, shape in SHAPES.items()}


def value_of(tensors):
    """The one value that all elements have."""
    (value,) = {float(v) for tensor in tensors.values() for v in tensor.ravel()}
    return value


@pytest.fixture
def store(tmp_path):
    return ResidualStore(tmp_path, SCHEMA, decay=0.5, max_age=4, fsync=False)


def test_an_unknown_device_starts_with_zeros_in_full_shapes(store):
    tensors = store.load(7, None, 1)
    assert {name: tensor.shape for name, tensor in tensors.items()} == SHAPES
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float32)}
    assert value_of(tensors) == 0.0


def test_an_accepted_round_leaves_what_was_unsent(store):
    store.save(7, 3, residual(1), residual(2))
    assert value_of(store.load(7, 3, 4)) == 2


def test_a_rejected_or_lost_update_rolls_back(store):
    store.save(7, 3, residual(8), residual(2))
    assert value_of(store.load(7, 1, 4)) == 4
    assert value_of(store.load(7, None, 4)) == 4


def test_a_rerun_of_the_same_round_starts_from_the_same_residual_and_writes_the_same_bytes(store):
    store.save(7, 2, residual(0), residual(3))

    def run_round_three():
        before = store.load(7, 2, 3)
        store.save(7, 3, before, {name: tensor * 0.25 for name, tensor in before.items()})
        return before, store.path(7).read_bytes()

    first, first_bytes = run_round_three()
    again, again_bytes = run_round_three()
    assert value_of(first) == value_of(again) == 3
    assert first_bytes == again_bytes


def test_a_residual_ages_while_it_waits_and_is_dropped_when_too_old(store):
    store.save(7, 10, residual(64), residual(64))
    accepted = [value_of(store.load(7, 10, r)) for r in (11, 12, 13, 14, 15)]
    rolled_back = [value_of(store.load(7, 9, r)) for r in (10, 11, 12, 13, 14, 15)]
    assert accepted == [64, 32, 16, 8, 0]
    assert rolled_back == [64, 32, 16, 8, 4, 0]


def test_a_file_from_a_later_round_belongs_to_another_run(store):
    store.save(7, 30, residual(1), residual(2))
    assert value_of(store.load(7, None, 2)) == 0


def test_what_is_loaded_may_be_changed(store):
    store.save(7, 1, residual(1), residual(2))
    store.load(7, 1, 2)["fc"][:] = 9
    assert value_of(store.load(7, 1, 2)) == 2


@settings(max_examples=40, deadline=None)
@given(position=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_any_flipped_bit_is_a_fresh_start(tmp_path_factory, position, bit):
    store = ResidualStore(tmp_path_factory.mktemp("flip"), SCHEMA, fsync=False)
    store.save(1, 1, residual(1), residual(2))
    content = bytearray(store.path(1).read_bytes())
    content[position % len(content)] ^= 1 << bit
    store.path(1).write_bytes(content)
    assert value_of(store.load(1, 1, 2)) == 0


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:20], lambda c: c[:-1], lambda c: c + b"\0"])
def test_a_damaged_file_is_a_fresh_start_with_a_warning_that_names_it(store, damage, caplog):
    store.save(7, 1, residual(1), residual(2))
    store.path(7).write_bytes(damage(store.path(7).read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert value_of(store.load(7, 1, 2)) == 0
    assert str(store.path(7)) in caplog.text


def test_a_file_of_another_model_is_a_fresh_start_with_a_warning(store, tmp_path, caplog):
    other = ModelSchema.of({"conv": np.zeros((4, 1, 3, 3), np.float32)}, ["conv"])
    ResidualStore(tmp_path, other).save(7, 1, residual(1), residual(2))
    assert value_of(store.load(7, 1, 2)) == 0
    assert "another model" in caplog.text


def test_a_wrong_shape_is_refused_and_leaves_the_file_alone(store):
    store.save(7, 1, residual(1), residual(2))
    with pytest.raises(ValueError, match="'fc' is missing"):
        store.save(7, 2, residual(1), {name: v for name, v in residual(3).items() if name != "fc"})
    with pytest.raises(ValueError, match=r"'scale' has shape \[1\]"):
        store.save(7, 2, residual(1) | {"scale": np.zeros(1, np.float32)}, residual(3))
    assert value_of(store.load(7, 1, 2)) == 2


KILLED = """
import os, sys
from pathlib import Path
import numpy as np
from slimfleet.client.state import ResidualStore
from slimfleet.compression.schema import ModelSchema

zeros = {"w": np.zeros(1000, np.float32)}
store = ResidualStore(Path(sys.argv[1]), ModelSchema.of(zeros, zeros), fsync=True)
store.save(1, 1, zeros, {"w": zeros["w"] + 1})
os.replace = lambda source, target: os._exit(9)
store.save(1, 2, zeros, {"w": zeros["w"] + 2})
"""


def test_a_kill_between_write_and_rename_leaves_the_old_file(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == 9
    zeros = {"w": np.zeros(1000, np.float32)}
    store = ResidualStore(tmp_path, ModelSchema.of(zeros, zeros))
    assert len(list(tmp_path.iterdir())) == 2, "the killed process got as far as writing"
    assert store.load(1, 1, 2)["w"].tolist() == [1.0] * 1000
    store.save(1, 2, zeros, {"w": zeros["w"] + 2})
    assert store.load(1, 2, 3)["w"].tolist() == [2.0] * 1000


def test_a_failed_write_leaves_no_litter(store, monkeypatch):
    store.save(7, 1, residual(1), residual(2))

    def full_disk(source, target):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        store.save(7, 2, residual(1), residual(3))
    assert [path.name for path in store.root.iterdir()] == ["7.residual"]


def test_old_files_are_forgotten(store):
    for device_id, round_number in ((1, 3), (2, 5), (3, 4)):
        store.save(device_id, round_number, residual(0), residual(1))
    assert store.forget_older_than(5) == 2
    assert [path.name for path in store.root.iterdir()] == ["2.residual"]
