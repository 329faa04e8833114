import gzip
import struct

import numpy as np
import pytest
import torch

from slimfleet.client.tasks import FashionMnist
from slimfleet.client.tasks.fashion_mnist import DEBIAN_FOLDER, ENVIRONMENT
from slimfleet.client.tasks.idx import read_idx
from slimfleet.compression.errors import BadInput

HAVE_DATA = DEBIAN_FOLDER.is_dir()


def idx(array):
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()


@pytest.fixture
def folder(tmp_path):
    """Sixty training and twenty test images; the training images plain, the rest gzipped."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("t10k", 20)):
        images = idx(rng.integers(0, 256, (count, 28, 28)))
        labels = idx(np.arange(count) % 10)
        if part == "train":
            (tmp_path / "train-images-idx3-ubyte").write_bytes(images)
        else:
            (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    return tmp_path


def test_a_folder_of_idx_files_plain_or_gzipped_is_read(folder):
    task = FashionMnist(3, alpha=0.5, seed=0, root=str(folder))
    shares = [task.load(partition) for partition in range(3)]
    assert sum(map(len, shares)) == 60
    assert min(map(len, shares)) >= 10
    assert sorted(torch.cat([share.targets for share in shares]).tolist()) == sorted(list(range(10)) * 6)
    assert 0 <= task.evaluate(task.build_model()).accuracy <= 1


def test_pixels_are_normalised(folder):
    (folder / "train-images-idx3-ubyte").write_bytes(idx(np.full((60, 28, 28), 255)))
    inputs = FashionMnist(1, root=folder).load(0).inputs
    assert inputs.shape == (60, 1, 28, 28)
    assert torch.allclose(inputs, torch.full_like(inputs, (1 - 0.2860) / 0.3530))


def test_evaluation_takes_a_seeded_sample(folder):
    same, again, other = (FashionMnist(2, seed=s, root=folder, evaluation_examples=8) for s in (0, 0, 1))
    assert len(same._test) == 8
    assert torch.equal(same._test.pixels, again._test.pixels)
    assert not torch.equal(same._test.pixels, other._test.pixels)
    with pytest.raises(BadInput, match="evaluation_examples is 0"):
        FashionMnist(2, root=folder, evaluation_examples=0)


def test_absent_data_gives_one_line_that_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(tmp_path / "nowhere"))
    with pytest.raises(BadInput) as error:
        FashionMnist(10)
    message = str(error.value)
    assert "\n" not in message
    assert "apt-get install dataset-fashion-mnist" in message
    assert "nowhere" in message
    assert ENVIRONMENT in message


def test_an_incomplete_folder_names_the_missing_file(folder):
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(BadInput, match="no t10k-labels-idx1-ubyte"):
        FashionMnist(10, root=folder)


def test_the_environment_names_the_folder_and_the_argument_wins(folder, tmp_path_factory, monkeypatch):
    monkeypatch.setenv(ENVIRONMENT, str(folder))
    assert len(FashionMnist(1).load(0)) == 60
    with pytest.raises(BadInput):
        FashionMnist(1, root=tmp_path_factory.mktemp("empty"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1], "holds 47039 bytes of data, its header says 47040"),
        (lambda raw: raw + b"x", "holds 47041 bytes of data"),
        (lambda raw: b"PNG!" + raw[4:], "is not an IDX file"),
        (lambda raw: b"", "is not an IDX file"),
        (lambda raw: raw[:4] + b"\xff" * 12 + raw[16:], "its header says"),
    ],
)
def test_damaged_files_are_named(folder, damage, message):
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=message) as error:
        FashionMnist(1, root=folder).load(0)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:40], lambda raw: b"x" + raw, lambda raw: raw[:30] + b"!!" + raw[32:]]
)
def test_damaged_gzip_files_are_named(folder, damage):
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match=path.name):
        read_idx(path, dimensions=3)


def test_images_and_labels_must_agree(folder):
    (folder / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((59, 28, 28))))
    with pytest.raises(BadInput, match=r"holds images \[59, 28, 28\] for 60 labels"):
        FashionMnist(1, root=folder).load(0)


def test_the_model_has_101682_parameters(folder):
    model = FashionMnist(1, root=folder).build_model()
    assert sum(parameter.numel() for parameter in model.parameters()) == 101_682
    assert [name for name, _ in model.named_children()] == ["conv1", "conv2", "fc1", "fc2"]


@pytest.mark.skipif(
    not HAVE_DATA, reason="dataset-fashion-mnist is not installed: apt-get install dataset-fashion-mnist"
)
def test_the_real_data():
    task = FashionMnist(100, alpha=0.5, seed=0, root=DEBIAN_FOLDER, evaluation_examples=500)
    sizes = [len(index) for index in task._indices]
    assert sum(sizes) == 60_000
    assert min(sizes) >= 10
    pixels = task._train.pixels.to(torch.float32) / 255
    assert pixels.mean().item() == pytest.approx(task._train.mean, abs=1e-4)
    assert pixels.std().item() == pytest.approx(task._train.std, abs=1e-4)
    assert np.bincount(task._train.labels.numpy()).tolist() == [6000] * 10
    assert len(task._test) == 500
