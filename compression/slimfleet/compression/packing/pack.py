"""Packing of files: any checkpoint to a slim file, and back to safetensors, tensor by tensor on all cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimfleet.compression.codec.native.bindings import NativePreset
from slimfleet.compression.errors import BadInput, PayloadError
from slimfleet.compression.files import written_atomically
from slimfleet.compression.packing.codings import Entry, Lossless, ToError, ToRate
from slimfleet.compression.packing.dtypes import BY_NAME
from slimfleet.compression.packing.planes import pack_planes
from slimfleet.compression.packing.reader import SlimFile
from slimfleet.compression.packing.rounding import mantissa_bits, rounded
from slimfleet.compression.packing.weights import Weight, Weights, read_weights, write_safetensors_header
from slimfleet.compression.packing.writer import FEW, Summary, usable_cores, write_slim

_LEAST_BITS = 0.01
_RECORD_BYTES = 32
"""What a record of the index takes, about."""


def pack_file(
    source: Path,
    out: Path,
    coding: Lossless | ToError | ToRate,
    *,
    preset: NativePreset = "small",
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Summary:
    """Write the tensors of a .safetensors, .npz or .pt file as a slim file.

    Integers, booleans and complex numbers are lossless under every coding. To a rate, the whole file keeps to the bits
    a parameter: what vectors and integers take is left out of the matrices' share. `progress` is told the bytes done,
    of how many. Raises BadInput in one line where a file cannot be read or written, or a tensor cannot be coded so.
    """
    weights = read_weights(source)
    if not weights.tensors:
        raise BadInput(f"{source} holds no tensors")
    if out.exists() and source.samefile(out):
        raise BadInput(f"{out} is the file to be packed: give another name")
    total, done = weights.nbytes, 0

    def advance(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(done, total)

    each = _shared_out(weights, coding) if isinstance(coding, ToRate) else coding
    entries = (Entry(w.name, w.read(), each, w.dtype.name) for w in weights.tensors)
    return write_slim(out, entries, weights.fields, preset=preset, threads=threads, progress=advance)


def _shared_out(weights: Weights, coding: ToRate) -> ToRate:
    """The rate of matrices that brings the whole file to `coding`."""
    matrices = [w for w in weights.tensors if _is_matrix(w)]
    rest = [w for w in weights.tensors if not _is_matrix(w)]
    parameters = sum(w.size for w in weights.tensors if w.dtype.floats)
    inside = sum(w.size for w in matrices)
    if not inside:
        return coding
    taken = sum(_plain_bytes(w, coding) for w in rest) + _RECORD_BYTES * len(weights.tensors)
    bits = (coding.bits * parameters - 8 * taken) / inside
    if bits < _LEAST_BITS:
        raise BadInput(
            f"{coding.bits:g} bits a parameter are too few: vectors, integers and names alone take "
            f"{8 * taken / parameters:.2f}; ask for more, or for an error (--nmse)"
        )
    return ToRate(min(bits, 16.0))


def _is_matrix(weight: Weight) -> bool:
    return weight.dtype.weights and len(weight.shape) > 1 and weight.size >= FEW


def _plain_bytes(weight: Weight, coding: ToRate) -> int:
    array = np.ascontiguousarray(weight.read(), weight.dtype.held)
    if not array.size:
        return 0
    if weight.dtype.weights:
        array = rounded(array, weight.dtype, mantissa_bits(coding.nmse))
    width = weight.dtype.itemsize // weight.dtype.words
    return len(pack_planes(array.reshape(-1).view(np.uint8), width, floats=weight.dtype.floats))


def unpack_file(
    source: Path,
    out: Path,
    *,
    threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Write the tensors of a slim file as .safetensors, in the dtypes that they were packed in; the number of tensors.

    Raises BadInput in one line for a damaged file, which names the tensor, and where a file cannot be read or written.
    """
    if out.exists() and source.exists() and source.samefile(out):
        raise BadInput(f"{out} is the file to be unpacked: give another name")
    try:
        with SlimFile.open(source) as slim:
            described = [slim.describe(name) for name in slim.names]
            layout = ((d.name, BY_NAME[d.dtype], d.shape) for d in described)
            header, starts = write_safetensors_header(layout, slim.fields)
            total = sum(slim.size_of(name) for name in slim.names)
            with written_atomically(out) as file:
                file.write(header)
                file.truncate(len(header) + total)
                done = 0
                for nbytes in _copied(slim, file.fileno(), starts, threads or usable_cores()):
                    done += nbytes
                    progress(done, total)
            return len(described)
    except PayloadError as error:
        raise BadInput(f"{source} cannot be unpacked ({error.reason}): {error}") from error


def _copied(slim: SlimFile, descriptor: int, starts: dict[str, int], threads: int) -> Iterator[int]:
    """Decode section by section and put every piece in its place; yields the bytes of each section that is done."""
    twins: dict[str, list[int]] = {}
    for name in slim.names:
        twins.setdefault(slim.tied.get(name, name), []).append(starts[name])

    def copy(number: int) -> int:
        written = 0
        for piece, values in slim.section(number):
            data = np.ascontiguousarray(values).view(np.uint8)
            for start in twins.get(piece.record.name, ()):
                written += _put(descriptor, data, start + piece.start * values.itemsize)
        return written

    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[Future[int]] = deque()
        for number in range(slim.section_count):
            waiting.append(pool.submit(copy, number))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        for future in waiting:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _put(descriptor: int, data: NDArray[Any], at: int) -> int:
    view = data.data
    done = 0
    while done < len(view):
        done += os.pwrite(descriptor, view[done:], at + done)
    return done
