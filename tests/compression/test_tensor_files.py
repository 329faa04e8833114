"""Tensor files as a person has them: every format, every float type, and files that claim more than they hold."""

import io
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from slimfleet.compression import BadInput
from slimfleet.compression.edge import tensor_files
from slimfleet.compression.edge.tensor_files import read_tensors, write_tensors
from slimfleet.compression.edge.update_files import load_update

RNG = np.random.default_rng(0)
TENSORS = {
    "conv.weight": RNG.normal(0, 1, (4, 3, 2)).astype(np.float32),
    "conv.bias": RNG.normal(0, 1, 4).astype(np.float32),
    "scale": np.array(2.0, np.float32),
}
BFLOAT16 = torch.tensor([[1.5, -2.25, 3e38], [1e-20, 0.0, 0.1]]).to(torch.bfloat16)


def as_torch(tensors: dict[str, np.ndarray] = TENSORS) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}


WRITERS = {
    "a.npz": lambda path: np.savez(path, **TENSORS),
    "compressed.npz": lambda path: np.savez_compressed(path, **TENSORS),
    "turned.npz": lambda path: np.savez(path, **{n: np.asfortranarray(a) for n, a in TENSORS.items()}),
    "a.safetensors": lambda path: save_file(TENSORS, path),
    "a.pt": lambda path: torch.save(as_torch(), path),
    "old.pth": lambda path: torch.save(as_torch(), path, _use_new_zipfile_serialization=False),
    "checkpoint.pt": lambda path: torch.save({"epoch": 3, "state_dict": as_torch(), "optimizer": {}}, path),
    "parameters.bin": lambda path: torch.save(
        {n: torch.nn.Parameter(t) for n, t in as_torch().items()}, path
    ),
    "ours.npz": lambda path: write_tensors(path, TENSORS),
    "ours.safetensors": lambda path: write_tensors(path, TENSORS),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_tensors(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    found = load_update(tmp_path / name)
    assert found.tensors.keys() == TENSORS.keys()
    for key, array in TENSORS.items():
        np.testing.assert_array_equal(found.tensors[key], array)
        assert found.tensors[key].dtype == np.float32
    assert (found.nbytes, found.remarks) == (4 * 29, ())


@pytest.mark.parametrize("name", ["one.npy", "one.pt"])
def test_a_single_array_is_named_after_its_file(name: str, tmp_path: Path) -> None:
    array = TENSORS["conv.weight"]
    np.save(tmp_path / name, array) if name == "one.npy" else torch.save(
        torch.from_numpy(array), tmp_path / name
    )
    np.testing.assert_array_equal(read_tensors(tmp_path / name)["one"].array, array)


def write_bfloat16(path: Path) -> None:
    """As numpy writes an array of the type that ml_dtypes and JAX have."""
    header = b"{'descr': '<V2', 'fortran_order': False, 'shape': (2, 3), }".ljust(117) + b"\n"
    data = (
        b"\x93NUMPY\x01\x00"
        + struct.pack("<H", len(header))
        + header
        + BFLOAT16.view(torch.uint16).numpy().tobytes()
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w.npy", data)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("w.npz", write_bfloat16),
        ("w.safetensors", lambda path: save_torch({"w": BFLOAT16}, path)),
        ("w.pt", lambda path: torch.save({"w": BFLOAT16}, path)),
    ],
)
def test_bfloat16_is_converted_and_counted_at_two_bytes(name: str, write, tmp_path: Path) -> None:
    write(tmp_path / name)
    (stored,) = read_tensors(tmp_path / name).values()
    assert (stored.dtype, stored.nbytes) == ("bfloat16", 12)
    np.testing.assert_array_equal(stored.array, BFLOAT16.float().numpy())


def test_what_is_left_out_or_converted_is_said_with_its_reason(tmp_path: Path) -> None:
    arrays = {
        "half": np.ones(6, np.float16),
        "double": np.ones(5),
        "steps": np.array(7),
        "flags": np.ones(3, bool),
        "phase": np.ones(2, np.complex64),
        "words": np.array(["a"]),
        "pairs": np.zeros(2, [("a", "f4")]),
        "bn.running_var": np.ones(3, np.float32),
    }
    np.savez(tmp_path / "mixed.npz", **arrays)
    found = load_update(tmp_path / "mixed.npz")
    assert {name: array.dtype.name for name, array in found.tensors.items()} == {
        "half": "float16",
        "double": "float32",
    }
    assert found.nbytes == 6 * 2 + 5 * 8
    said = "\n".join(found.remarks)
    for name in arrays.keys() - {"half"}:
        assert name in said
    for reason in ("int64", "bool", "complex64", "statistics", "float64"):
        assert reason in said
    assert "half" not in said


def test_torch_types_that_numpy_has_not(tmp_path: Path) -> None:
    tensors = {
        "tiny": torch.tensor([0.5, -1.5]).to(torch.float8_e4m3fn),
        "sparse": torch.eye(3).to_sparse(),
        "w": torch.ones(2),
    }
    torch.save(tensors, tmp_path / "t.pt")
    found = load_update(tmp_path / "t.pt")
    np.testing.assert_array_equal(found.tensors["tiny"], [0.5, -1.5])
    assert found.nbytes == 2 + 8
    assert "sparse" in "".join(found.remarks)
    save_torch({"tiny": tensors["tiny"], "w": tensors["w"]}, tmp_path / "t.safetensors")
    found = load_update(tmp_path / "t.safetensors")
    assert list(found.tensors) == ["w"]
    assert "tiny" in "".join(found.remarks)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (np.float64(1e300), "1e+300"),
        (np.float64(-1e39), "1e+39"),
        (np.float32(3e38), "3e+38"),
        (np.float64("nan"), "NaN"),
        (np.float16("inf"), "infinity"),
    ],
)
def test_a_number_that_an_update_cannot_carry_is_named(value: np.generic, word: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "u.npz", layer=np.array([0, value], value.dtype))
    with pytest.raises(BadInput, match="'layer'") as caught:
        load_update(tmp_path / "u.npz")
    assert word in str(caught.value)


def npy(shape: str, data: bytes = b"", descr: str = "<f4") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def zipped(data: bytes, name: str = "x.npy", method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return sys.exit, (7,)


def pickled(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


BROKEN = {
    "empty": b"",
    "text": b"no archive, but some text",
    "a claim of a petabyte": npy("(250000000000000,)", b"1234"),
    "a claim in a zip": zipped(npy("(250000000000000,)", b"1234")),
    "negative sizes": zipped(npy("(-1, -1)", b"1234")),
    "a size that is no number": zipped(npy("('a',)", b"1234")),
    "cut short": zipped(npy("(2,)", b"1234")),
    "longer than it says": npy("(1,)", b"12345678"),
    "a long header": zipped(npy("(" + "1," * 9000 + ")")),
    "objects": zipped(npy("(1,)", b"12345678", "|O")),
    "a zip of text": zipped(b"hello", "readme.txt"),
    "no array in it": zipped(b"hello"),
    "a cut zip": zipped(npy("(1,)", b"1234"))[:-10],
    "safetensors header": struct.pack("<Q", 2**60) + b'{"x":1}',
    "safetensors json": struct.pack("<Q", 7) + b'{"x":1}',
    "a pickle": b"\x80\x02cos\nsystem\n.",
    "code": pickled(Evil()),
    "a module": pickled(torch.nn.Linear(2, 2)),
    "no tensors": pickled({"a": 1}),
    "a list": pickled([1, 2]),
    "two models": pickled({"student": as_torch(), "teacher": as_torch()}),
    "expanded": pickled({"x": torch.ones(1).expand(2**40)}),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_a_file_that_cannot_be_used_is_refused_in_one_line_that_names_it(
    case: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(BROKEN[case])
    with pytest.raises(BadInput, match="odd") as caught:
        load_update(path)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", x=np.zeros(10**6, np.float32))
    assert load_update(tmp_path / "zeros.npz").nbytes == 4_000_000
    monkeypatch.setattr(tensor_files, "FREE_BYTES", 100_000)
    with pytest.raises(BadInput, match="4,000,128 bytes"):
        load_update(tmp_path / "zeros.npz")


@pytest.mark.parametrize("path", ["", "missing.npz", "/dev/zero", "/dev/null"])
def test_what_is_no_file_is_not_read(path: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot read"):
        read_tensors(tmp_path / path)


def test_names_that_are_keywords_of_numpy_can_be_written(tmp_path: Path) -> None:
    tensors = {"file": np.ones(2, np.float32), "a/b": np.ones((), np.float16), "empty": np.ones((0, 3))}
    write_tensors(tmp_path / "t.npz", tensors)
    with np.load(tmp_path / "t.npz") as archive:
        assert {name: archive[name].shape for name in archive.files} == {
            "file": (2,),
            "a/b": (),
            "empty": (0, 3),
        }
