"""Checkpoints of every kind go into a slim file and come out as safetensors; what is wrong is said in a line."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from torch import nn

from slimfleet.compression.codec.native.library import load
from slimfleet.compression.errors import BadInput
from slimfleet.compression.packing import Lossless, SlimFile, ToError, ToRate, pack_file, unpack_file

COMMAND = [sys.executable, "-m", "slimfleet.compression.cli"]


def state():
    """Every type that a checkpoint has."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(16 * 36, 40))
    return {
        **model.state_dict(),
        "embedding": (table := torch.randn(50, 16)),
        "head": table,
        "half": torch.randn(20, 30).half(),
        "brain": torch.randn(20, 30).bfloat16(),
        "eighth": torch.randn(7).to(torch.float8_e4m3fn),
        "double": torch.randn(5, dtype=torch.float64),
        "scale": torch.tensor(0.5),
        "positions": torch.arange(64)[None],
        "mask": torch.rand(9) > 0.5,
        "none": torch.zeros(0, 4),
        "transposed": torch.randn(12, 9).T,
    }


def save(tensors, path):
    if path.suffix == ".pt":
        torch.save({"model": tensors, "epoch": 3}, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        plain = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        safetensors.torch.save_file(plain, path, {"format": "pt", "note": "größer"})
    return path


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
def test_a_checkpoint_comes_back_bit_for_bit(suffix, tmp_path):
    tensors = state()
    if suffix == ".npz":
        tensors = {
            name: t for name, t in tensors.items() if t.dtype not in (torch.bfloat16, torch.float8_e4m3fn)
        }
    source = save(tensors, tmp_path / f"model{suffix}")
    seen = []
    summary = pack_file(source, tmp_path / "a.slim", Lossless(), progress=lambda *at: seen.append(at))
    assert summary.bytes == (tmp_path / "a.slim").stat().st_size < source.stat().st_size
    assert summary.nmse == 0
    assert seen[-1][0] == seen[-1][1] == summary.tensor_bytes
    count = unpack_file(tmp_path / "a.slim", tmp_path / "again.safetensors")
    again = safetensors.torch.load_file(tmp_path / "again.safetensors")
    assert count == len(again) == len(tensors)
    for name, tensor in tensors.items():
        assert (again[name].dtype, again[name].shape) == (tensor.dtype, tensor.shape), name
        as_bytes = [t.contiguous().reshape(-1).view(torch.uint8) for t in (again[name], tensor)]
        assert torch.equal(*as_bytes), name
    with SlimFile.open(tmp_path / "a.slim") as slim:
        assert slim.tied["head"] == "embedding"


def test_a_safetensors_file_comes_back_whole(tmp_path):
    source = save(state(), tmp_path / "model.safetensors")
    pack_file(source, tmp_path / "a.slim", Lossless())
    unpack_file(tmp_path / "a.slim", tmp_path / "again.safetensors")
    metadata = safetensors.safe_open(tmp_path / "again.safetensors", "numpy").metadata()
    assert metadata == {"format": "pt", "note": "größer"}


@pytest.mark.skipif(load() is None, reason="sizes are those of the native coder")
def test_an_error_and_a_rate_hold_for_the_file(tmp_path):
    rng = np.random.default_rng(7)
    tensors = {f"{i}.weight": rng.normal(0, 0.1, (200, 150)).astype(np.float32) for i in range(3)}
    tensors |= {f"{i}.bias": rng.normal(0, 0.1, 200).astype(np.float32) for i in range(3)}
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors")
    summary = pack_file(tmp_path / "m.safetensors", tmp_path / "a.slim", ToError(0.01))
    assert 0.009 < summary.nmse <= 0.01
    for bits in (1.0, 3.0):
        summary = pack_file(tmp_path / "m.safetensors", tmp_path / "a.slim", ToRate(bits))
        assert 0.93 * bits < 8 * summary.bytes / summary.parameters <= bits
    with pytest.raises(BadInput, match="too few: vectors, integers and names alone take"):
        pack_file(tmp_path / "m.safetensors", tmp_path / "a.slim", ToRate(0.01))


def test_without_loss_nan_is_carried_and_with_loss_it_is_named(tmp_path):
    tensors = {"good": np.ones((20, 20), np.float32), "bad": np.full((20, 20), np.nan, np.float32)}
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors")
    pack_file(tmp_path / "m.safetensors", tmp_path / "a.slim", Lossless())
    with SlimFile.open(tmp_path / "a.slim") as slim:
        assert slim.tensor("bad").tobytes() == tensors["bad"].tobytes()
    with pytest.raises(BadInput, match="tensor 'bad' holds NaN"):
        pack_file(tmp_path / "m.safetensors", tmp_path / "b.slim", ToError(0.1))
    assert not (tmp_path / "b.slim").exists()


def safetensors_of(header, data=b""):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def one(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"a": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no weights"),
        (b"\x80\x02garbage", "cannot be read as tensors alone"),
        ((1 << 40).to_bytes(8, "little") + b"{}", "not a sound .safetensors file"),
        (safetensors_of(one())[:-2], "not a sound .safetensors file"),
        (safetensors_of(one()), "end at"),
        (safetensors_of(one((1 << 40,), (0, 1 << 42)), bytes(8)), "end at"),
        (safetensors_of(one((3,)), bytes(8)), "claims other bytes"),
        (safetensors_of(one((2,), (4, 12)), bytes(12)), "gap"),
        (safetensors_of(one(dtype="F4"), bytes(8)), "F4, which cannot be stored"),
        (safetensors_of({"a": 3}, bytes(8)), "not a sound"),
        (safetensors_of({**one(), "__metadata__": {"x": 3}}, bytes(8)), "metadata that is not text"),
        (safetensors_of({}), "holds no tensors"),
    ],
)
def test_what_is_no_checkpoint_is_refused_in_one_line(data, words, tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=words) as refused:
        pack_file(path, tmp_path / "a.slim", Lossless())
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "a.slim").exists()


def test_strange_archives_and_pickles_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "m.npz", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(BadInput, match="not of arrays"):
        pack_file(tmp_path / "m.npz", tmp_path / "a.slim", Lossless())
    np.savez(tmp_path / "text.npz", a=np.array(["x"]))
    with pytest.raises(BadInput, match="cannot be stored"):
        pack_file(tmp_path / "text.npz", tmp_path / "a.slim", Lossless())
    torch.save(nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(BadInput, match="cannot be read as tensors alone"):
        pack_file(tmp_path / "model.pt", tmp_path / "a.slim", Lossless())
    torch.save({"a": torch.eye(3).to_sparse()}, tmp_path / "sparse.pt")
    with pytest.raises(BadInput, match="sparse"):
        pack_file(tmp_path / "sparse.pt", tmp_path / "a.slim", Lossless())


def test_old_torch_files_are_read_too(tmp_path):
    torch.save({"a": torch.arange(5)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    pack_file(tmp_path / "old.pt", tmp_path / "a.slim", Lossless())
    with SlimFile.open(tmp_path / "a.slim") as slim:
        assert slim.tensor("a").tolist() == [0, 1, 2, 3, 4]


def test_a_damaged_file_is_not_unpacked(tmp_path):
    source = save(state(), tmp_path / "model.pt")
    pack_file(source, tmp_path / "a.slim", Lossless())
    data = bytearray((tmp_path / "a.slim").read_bytes())
    data[5000] ^= 1
    (tmp_path / "a.slim").write_bytes(data)
    with pytest.raises(BadInput, match=r"cannot be unpacked \(checksum\): tensor '.*damaged"):
        unpack_file(tmp_path / "a.slim", tmp_path / "again.safetensors")
    assert not (tmp_path / "again.safetensors").exists()
    np.savez(tmp_path / "c.npz", a=np.zeros(3, np.complex128))
    pack_file(tmp_path / "c.npz", tmp_path / "c.slim", Lossless())
    with pytest.raises(BadInput, match="complex128, which"):
        unpack_file(tmp_path / "c.slim", tmp_path / "again.safetensors")


def test_a_file_is_not_written_over_itself(tmp_path):
    source = save(state(), tmp_path / "model.pt")
    with pytest.raises(BadInput, match="is the file to be packed"):
        pack_file(source, source, Lossless())


# ---- commands ----


def test_the_commands_pack_look_and_unpack(compress, tmp_path):
    source = save(state(), tmp_path / "model.pt")
    _, out, _ = compress("pack", source, "--lossless", "-o", tmp_path / "a.slim", "--json")
    made = json.loads(out)
    assert list(made) == ["bytes_in", "bytes", "ratio", "bits_per_parameter", "nmse", "seconds", "mb_per_s"]
    assert made["bytes"] == (tmp_path / "a.slim").stat().st_size
    assert made["bytes_in"] == source.stat().st_size
    seen = json.loads(compress("inspect", tmp_path / "a.slim", "--json")[1])
    tensors = {tensor["name"]: tensor for tensor in seen["tensors"]}
    assert (tensors["head"]["coding"], tensors["head"]["tied_to"]) == ("tied", "embedding")
    assert tensors["brain"]["dtype"] == "bfloat16"
    assert sum(tensor["bytes"] for tensor in seen["tensors"]) < seen["bytes"]
    assert "embedding" in compress("inspect", tmp_path / "a.slim")[1]
    code, out, err = compress("unpack", tmp_path / "a.slim", "-o", tmp_path / "b.safetensors")
    assert (code, err) == (0, "")
    assert f"{len(state())} tensors" in out
    assert set(safetensors.torch.load_file(tmp_path / "b.safetensors")) == set(state())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pack", "m.npz", "-o", "a.slim"], "give one of --nmse, --bits-per-parameter and --lossless"),
        (["pack", "m.npz", "-o", "a.slim", "--lossless", "--nmse", "0.1"], "give one of"),
        (["pack", "m.npz", "-o", "a.slim", "--nmse", "2"], "nmse is 2.0, it must be"),
        (["pack", "none.pt", "-o", "a.slim", "--lossless"], "cannot read none.pt: no such file"),
        (["pack", "m.npz", "-o", ".", "--lossless"], "cannot write .: it is a folder"),
        (["unpack", "m.npz", "-o", "a.safetensors"], "m.npz cannot be unpacked (magic): not a slim file"),
        (["unpack", "m.npz", "-o", "a.npz"], "give a name that ends in .safetensors"),
        (["inspect", "cut.slim"], "cut.slim is not a sound slim file (checksum)"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(arguments, words, compress, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "m.npz", a=np.zeros(3, np.float32))
    (tmp_path / "cut.slim").write_bytes(b"SLIM\1\0\0\0" + bytes(40))
    before = set(tmp_path.iterdir())
    code, _, err = compress(*arguments)
    assert code == 2, err
    assert words in err
    assert err.count("\n") == 1
    assert set(tmp_path.iterdir()) == before


@pytest.mark.skipif(load() is None, reason="too quick to be interrupted")
def test_ctrl_c_leaves_nothing_behind(tmp_path):
    rng = np.random.default_rng(1)
    weights = {f"{i}": rng.normal(size=(1000, 1000)).astype(np.float32) for i in range(12)}
    safetensors.numpy.save_file(weights, tmp_path / "m.safetensors")
    command = [*COMMAND, "pack", "m.safetensors", "--nmse", "1e-3", "-o", "a.slim"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        # Started in the background of a shell, these tests have Ctrl-C ignored, and so would the command.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        for _ in range(300):
            if any(path.suffix == ".tmp" for path in tmp_path.iterdir()):
                break
            time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        assert (process.wait(60), process.stderr.read()) == (130, "interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["m.safetensors"]
