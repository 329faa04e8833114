"""Tensor files: named arrays in .npz, .npy, .safetensors and .pt, told apart by their content.

Such a file may come from anywhere: nothing in it is run, and what it claims to hold is compared with its size before
memory is taken.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from operator import itemgetter
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.errors import BadInput
from slimfleet.compression.files import write_atomically
from slimfleet.compression.types import Tensors

if TYPE_CHECKING:
    import torch

FREE_BYTES = 2**30
LARGEST_EXPANSION = 100
"""A file may hold this many times its own size, or FREE_BYTES: beyond that it is taken for a decompression bomb."""

SUFFIXES = (".npz", ".safetensors")
"""Of files that are written."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor of a file."""

    dtype: str
    """As the file has it; numpy's or torch's name."""
    nbytes: int
    """As the file has it."""
    array: NDArray[Any] | None
    """bfloat16 as float32, every other type as it is; None for a type that numpy has not."""


def read_tensors(path: Path) -> dict[str, Stored]:
    """The tensors of a file, in its order (of .safetensors: by name); a single one is named after its file.

    Raises BadInput where the file cannot be read, is of another kind, or holds more than tensors.
    """
    head = head_of(path)
    if head.startswith(b"PK\x03\x04"):
        return _read_zip(path)
    if head.startswith(b"\x93NUMPY"):
        with refusing(path, ".npy"), path.open("rb") as file:
            return {path.stem: _npy(file, path.stat().st_size)}
    if head[8:] == b"{":
        return _read_safetensors(path)
    if head.startswith(b"\x80") or path.suffix in (".pt", ".pth"):
        return _read_torch(path)
    raise BadInput(
        f"{path} holds no tensors that can be read here: "
        f"give .npz (as numpy.savez writes it), .npy, .safetensors, or .pt (a state_dict)"
    )


def head_of(path: Path) -> bytes:
    """The first nine bytes of a file, which tell its kind. Raises BadInput where it cannot be read."""
    try:
        if not path.is_file():
            raise BadInput(f"cannot read {path}: {'it is not a file' if path.exists() else 'no such file'}")
        with path.open("rb") as file:
            return file.read(9)
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write tensors as .npz or .safetensors, by the suffix of `path`. Raises OSError where the disk refuses."""
    if path.suffix == ".safetensors":
        from safetensors.numpy import save

        write_atomically(path, save({name: np.ascontiguousarray(array) for name, array in tensors.items()}))
        return
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # numpy.savez refuses a tensor that is called "file"
        for name, array in tensors.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    write_atomically(path, buffer.getvalue())


@contextmanager
def refusing(path: Path, kind: str) -> Iterator[None]:
    """Whatever a reader raises over damaged bytes, as BadInput."""
    try:
        yield
    except BadInput:
        raise
    except MemoryError as error:
        raise BadInput(f"{path} does not fit into the memory of this machine") from error
    except Exception as error:
        said = (str(error).splitlines() or [""])[0]
        raise BadInput(f"{path} is not a sound {kind} file ({said[:200] or type(error).__name__})") from error


def refuse_bomb(path: Path, nbytes: int) -> None:
    """Raise BadInput where what a file claims to hold is out of proportion to its size."""
    limit = max(FREE_BYTES, LARGEST_EXPANSION * path.stat().st_size)
    if nbytes > limit:
        raise BadInput(
            f"{path} would take {nbytes:,} bytes, more than {LARGEST_EXPANSION} times its size: "
            f"if that is meant, save it without compression"
        )


def _read_zip(path: Path) -> dict[str, Stored]:
    with refusing(path, ".npz or .pt"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        refuse_bomb(path, sum(member.file_size for member in members))
        if any(member.filename.endswith("/data.pkl") for member in members):
            return _read_torch(path)
        strange = next((m.filename for m in members if not m.filename.endswith(".npy")), None)
        if strange is not None:
            raise BadInput(f"{path} is a zip file, but not of arrays: it holds {strange!r}")
        found = {}
        for member in members:
            with archive.open(member) as file:
                found[member.filename.removesuffix(".npy")] = _npy(file, member.file_size)
        return found


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and dtype of an array in numpy's format. Raises ValueError for a version that
    is not known."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"an array in version {version[0]}.{version[1]} of numpy's format")
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return reader(file)


def _npy(file: IO[bytes], size: int) -> Stored:
    """One array in numpy's format, of which `size` bytes are there. Raises ValueError where it claims another size."""
    shape, fortran, dtype = npy_header(file)
    if dtype.hasobject:
        raise ValueError("an array of Python objects")
    claimed, there = prod(shape) * dtype.itemsize, size - file.tell()
    if claimed != there or min(shape, default=0) < 0:
        raise ValueError(f"an array claims {claimed:,} bytes and has {there:,}")
    data = file.read(there)
    if not dtype.itemsize:
        return Stored(str(dtype), 0, None)
    flat = np.frombuffer(data, dtype)
    if dtype == np.dtype("V2"):  # numpy has no bfloat16, and writes that of others so
        return Stored("bfloat16", claimed, _from_bfloat16(flat).reshape(shape, order="F" if fortran else "C"))
    array = flat.reshape(shape, order="F" if fortran else "C")
    return Stored(dtype.name, claimed, None if dtype.kind == "V" else array)


def _from_bfloat16(flat: NDArray[Any]) -> NDArray[np.float32]:
    """bfloat16 is the upper half of float32."""
    return (flat.view("<u2").astype(np.uint32) << 16).view(np.float32)


_SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "V2", "BOOL": "|b1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1",
}  # fmt: skip


def _read_safetensors(path: Path) -> dict[str, Stored]:
    from safetensors import deserialize

    with refusing(path, ".safetensors"):
        views = deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
        # They come in no particular order.
        return {name: _from_safetensors(**view) for name, view in sorted(views, key=itemgetter(0))}


def _from_safetensors(dtype: str, shape: list[int], data: bytes) -> Stored:
    known = _SAFETENSORS.get(dtype)
    if known is None:
        return Stored(dtype.lower(), len(data), None)
    flat = np.frombuffer(data, known)
    if dtype == "BF16":
        return Stored("bfloat16", len(data), _from_bfloat16(flat).reshape(shape))
    return Stored(flat.dtype.name, len(data), flat.reshape(shape))


def _read_torch(path: Path) -> dict[str, Stored]:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise BadInput(
            f"{path} is a file of torch, which is not installed here: give .npz, or pip install 'slimfleet[device]'"
        ) from error

    with refusing(path, ".pt"):
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            said = " ".join(str(error).split())[:160] or type(error).__name__
            raise BadInput(
                f"{path} cannot be read as tensors alone; write it as "
                f"torch.save(model.state_dict(), ...) ({said})"
            ) from error
        tensors = state_dict_of(path, loaded)
        refuse_bomb(path, sum(t.nbytes for t in tensors.values() if t.layout is torch.strided))
        return {name: _from_torch(tensor) for name, tensor in tensors.items()}


def state_dict_of(path: Path, loaded: object) -> dict[str, torch.Tensor]:
    """The named tensors in what torch loaded: a tensor, a state_dict, or a checkpoint with one state_dict inside."""
    import torch

    if isinstance(loaded, torch.Tensor):
        return {path.stem: loaded}
    tables = {"": loaded} if isinstance(loaded, Mapping) else {}
    tables |= {k: v for k, v in tables.get("", {}).items() if isinstance(v, Mapping)}
    found = {
        key: {str(name): value for name, value in table.items() if isinstance(value, torch.Tensor)}
        for key, table in tables.items()
    }
    for key in ("state_dict", "model_state_dict", "model", ""):
        if found.get(key):
            return found[key]
    several = [key for key, tensors in found.items() if tensors]
    if len(several) == 1:
        return found[several[0]]
    raise BadInput(
        f"{path} holds several sets of tensors ({', '.join(map(str, several))}): save one of them alone"
        if several
        else f"{path} holds no tensors, but a {type(loaded).__name__}"
    )


def _from_torch(tensor: torch.Tensor) -> Stored:
    import torch

    dtype = str(tensor.dtype).removeprefix("torch.")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = "quantised" if tensor.is_quantized else "sparse" if not tensor.is_meta else "empty"
        return Stored(f"{kind} {dtype}", 0, None)
    values = tensor.detach().resolve_conj().resolve_neg()
    if values.is_floating_point() and values.dtype not in (torch.float16, torch.float32, torch.float64):
        values = values.float()
    return Stored(dtype, tensor.nbytes, values.numpy())
