"""Weight files: .safetensors, .npz and .pt, read one tensor at a time, whatever their size.

Such a file may come from anywhere: nothing in it is run, and what it claims to hold is compared with its size before
memory is taken.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.edge.tensor_files import head_of, npy_header, refuse_bomb, refusing, state_dict_of
from slimfleet.compression.errors import BadInput
from slimfleet.compression.packing.dtypes import BY_NAME, BY_SAFETENSORS, Dtype

if TYPE_CHECKING:
    import torch

MOST_HEADER_BYTES = 100_000_000
"""Of a safetensors file; the same limit as that of the safetensors library."""
METADATA = "__metadata__"


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of a weight file."""

    name: str
    dtype: Dtype
    shape: tuple[int, ...]
    read: Callable[[], NDArray[Any]]
    """The array, as the dtype holds it."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True, slots=True)
class Weights:
    """What a weight file holds."""

    tensors: tuple[Weight, ...]
    """In the order of the file."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """Text beside them: the metadata of a safetensors file."""

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(weight.nbytes for weight in self.tensors)


def read_weights(path: Path) -> Weights:
    """List what a file holds, told apart by its content.

    Raises BadInput where it cannot be read, is of another kind, or holds a type that cannot be stored.
    """
    head = head_of(path)
    if head.startswith(b"PK\x03\x04"):
        with refusing(path, ".npz or .pt"), zipfile.ZipFile(path) as archive:
            pickled = any(name.endswith("/data.pkl") for name in archive.namelist())
        return _torch_weights(path) if pickled else _npz_weights(path)
    if head[8:] == b"{":
        return _safetensors_weights(path)
    if head.startswith(b"\x80"):
        return _torch_weights(path)
    raise BadInput(
        f"{path} holds no weights that can be read here: give .safetensors, .npz (as numpy.savez writes it) or .pt "
        f"(a state_dict)"
    )


# ---- safetensors ----


def _safetensors_weights(path: Path) -> Weights:
    with refusing(path, ".safetensors"), path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(MOST_HEADER_BYTES, size - 8):
            raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
        header = json.loads(file.read(length))
        metadata = header.pop(METADATA, {})
        weights = [_in_safetensors(path, name, entry, 8 + length) for name, entry in header.items()]
        weights.sort(key=lambda each: each[0])
        end = 8 + length
        for (start, stop), _ in weights:
            if start != end or stop < start:
                raise ValueError("its tensors overlap, or leave a gap")
            end = stop
        if end != size:
            raise ValueError(f"its tensors end at {end:,} of {size:,} bytes")
        if not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("metadata that is not text")
    return Weights(tuple(weight for _, weight in weights), metadata)


def _in_safetensors(
    path: Path, name: str, entry: Mapping[str, Any], begin: int
) -> tuple[tuple[int, int], Weight]:
    dtype = BY_SAFETENSORS.get(entry["dtype"])
    if dtype is None:
        raise BadInput(f"{path}: tensor {name!r} is {entry['dtype']}, which cannot be stored")
    shape = tuple(int(size) for size in entry["shape"])
    start, stop = (begin + int(at) for at in entry["data_offsets"])
    if min(shape, default=0) < 0 or prod(shape) * dtype.itemsize != stop - start:
        raise ValueError(f"tensor {name!r} claims other bytes than it has")
    return (start, stop), Weight(name, dtype, shape, partial(_from_file, path, dtype, shape, start))


def _from_file(path: Path, dtype: Dtype, shape: tuple[int, ...], start: int) -> NDArray[Any]:
    array = np.empty(shape, dtype.held)
    # Not numpy.fromfile, which a signal cuts short: Ctrl-C would look like a damaged file.
    with refusing(path, ".safetensors"), path.open("rb") as file:
        file.seek(start)
        if array.size and file.readinto(array.reshape(-1).view(np.uint8).data) < array.nbytes:
            raise ValueError("it has become shorter")
    return array


# ---- npz ----


def _npz_weights(path: Path) -> Weights:
    with refusing(path, ".npz"), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        refuse_bomb(path, sum(member.file_size for member in members))
        strange = next((m.filename for m in members if not m.filename.endswith(".npy")), None)
        if strange is not None:
            raise BadInput(f"{path} is a zip file, but not of arrays: it holds {strange!r}")
        return Weights(tuple(_in_npz(path, archive, member) for member in members))


def _in_npz(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Weight:
    name = member.filename.removesuffix(".npy")
    with archive.open(member) as file:
        shape, _, dtype = npy_header(file)
        claimed, there = prod(shape) * dtype.itemsize, member.file_size - file.tell()
    # numpy has no bfloat16, and writes that of others so.
    kind = BY_NAME.get("bfloat16" if dtype == np.dtype("V2") else dtype.name)
    if kind is None:
        raise BadInput(f"{path}: array {name!r} is {dtype}, which cannot be stored")
    if claimed != there or min(shape, default=0) < 0:
        raise ValueError(f"array {name!r} claims {claimed:,} bytes and has {there:,}")
    return Weight(name, kind, shape, partial(_from_npz, path, member.filename, kind))


def _from_npz(path: Path, member: str, kind: Dtype) -> NDArray[Any]:
    with refusing(path, ".npz"), zipfile.ZipFile(path) as archive, archive.open(member) as file:
        shape, fortran, dtype = npy_header(file)
        flat = np.frombuffer(file.read(prod(shape) * dtype.itemsize), dtype)
        array = flat.view(kind.held) if dtype.kind == "V" else flat.astype(kind.held, copy=False)
        return array.reshape(shape, order="F" if fortran else "C")


# ---- torch ----


def _torch_weights(path: Path) -> Weights:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise BadInput(
            f"{path} is a file of torch, which is not installed here: give .safetensors or .npz"
        ) from error
    with refusing(path, ".pt"):
        tensors = state_dict_of(path, _loaded(path))
        refuse_bomb(path, sum(t.nbytes for t in tensors.values() if t.layout is torch.strided))
        return Weights(tuple(_in_torch(path, name, tensor) for name, tensor in tensors.items()))


def _loaded(path: Path) -> object:
    """What torch finds, mapped from the file where its form allows that."""
    import torch

    for mapped in (True, False) if zipfile.is_zipfile(path) else (False,):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:
            if mapped:
                continue
            said = " ".join(str(error).split())[:160] or type(error).__name__
            raise BadInput(
                f"{path} cannot be read as tensors alone; write it as torch.save(model.state_dict(), ...) ({said})"
            ) from error
    raise AssertionError("the last try returns or raises")


def _in_torch(path: Path, name: str, tensor: torch.Tensor) -> Weight:
    import torch

    dtype = BY_NAME.get(str(tensor.dtype).removeprefix("torch."))
    if dtype is None or tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_meta:
        kind = "quantised " if tensor.is_quantized else "sparse " if tensor.is_sparse else ""
        what = f"{kind}{str(tensor.dtype).removeprefix('torch.')}"
        raise BadInput(f"{path}: tensor {name!r} is {what}, which cannot be stored")
    return Weight(name, dtype, tuple(tensor.shape), partial(_from_torch, tensor, dtype))


def _from_torch(tensor: torch.Tensor, dtype: Dtype) -> NDArray[Any]:
    import torch

    values = tensor.detach().resolve_conj().resolve_neg().contiguous()
    if dtype.name == "bfloat16":
        values = values.view(torch.int16)
    elif dtype.name.startswith("float8"):
        values = values.view(torch.uint8)
    array: NDArray[Any] = values.numpy()
    return array.view(dtype.held)


def write_safetensors_header(
    layout: Iterator[tuple[str, Dtype, tuple[int, ...]]], fields: Mapping[str, str]
) -> tuple[bytes, dict[str, int]]:
    """The header of a safetensors file of these tensors, and where in the file each begins.

    Raises BadInput for a type that safetensors has not.
    """
    entries: dict[str, object] = {METADATA: dict(fields)} if fields else {}
    starts, at = {}, 0
    for name, dtype, shape in layout:
        if dtype.safetensors is None:
            raise BadInput(f"tensor {name!r} is {dtype.name}, which a .safetensors file cannot hold")
        if name == METADATA:
            raise BadInput(f"a tensor is called {METADATA}, which a .safetensors file cannot hold")
        nbytes = prod(shape) * dtype.itemsize
        entries[name] = {
            "dtype": dtype.safetensors,
            "shape": list(shape),
            "data_offsets": [at, at + nbytes],
        }
        starts[name] = at
        at += nbytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    begin = 8 + len(text)
    return len(text).to_bytes(8, "little") + text, {name: begin + start for name, start in starts.items()}
