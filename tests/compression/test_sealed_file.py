"""A sealed file comes back exactly, or not at all."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from safetensors.numpy import load, save

from slimfleet.compression import PayloadError
from slimfleet.compression.sealed_file import open_sealed, seal_tensors

DTYPES = ["float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint64", "bool"]
NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ARRAYS = st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, SHAPES))
SMALL = seal_tensors(
    {"w": np.float32([[1, 2], [3, 4]]), "n": np.array(7, np.int64), "none": np.zeros((0, 3), np.int16)},
    {"round": "3", "schema": "00ff"},
)


def same(ours: np.ndarray, theirs: np.ndarray) -> bool:
    """Bit for bit: NaN and -0 too."""
    return (ours.shape, ours.dtype, ours.tobytes()) == (theirs.shape, theirs.dtype, theirs.tobytes())


@given(st.dictionaries(NAMES, ARRAYS, max_size=4), st.dictionaries(NAMES, NAMES, max_size=3))
def test_tensors_and_fields_come_back(tensors, fields):
    found, said = open_sealed(seal_tensors(tensors, fields))
    assert said == fields
    assert found.keys() == tensors.keys()
    assert all(same(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize(
    "lay_out",
    [
        lambda x: x.T,
        lambda x: x[::2, ::-1],
        lambda x: np.asfortranarray(x),
        lambda x: x.astype(">f4"),
        lambda x: np.broadcast_to(x[0], (3, 4)),
    ],
    ids=["transposed", "strided", "Fortran", "big-endian", "broadcast"],
)
def test_elements_keep_their_places_whatever_the_layout_in_memory(lay_out):
    array = lay_out(np.arange(12, dtype=np.float32).reshape(3, 4))
    found = open_sealed(seal_tensors({"x": array}, {}))[0]["x"]
    assert found.dtype == np.float32
    assert found.tolist() == array.tolist()


def test_any_safetensors_reader_gets_at_the_tensors():
    assert load(SMALL)["w"].tolist() == [[1, 2], [3, 4]]


def test_equal_content_gives_equal_bytes_in_every_process():
    code = (
        "import numpy as np; from slimfleet.compression.sealed_file import seal_tensors;"
        "a, b = np.ones(3), np.zeros(2, np.int16);"
        "print(seal_tensors({'b': b, 'a': a}, {'y': '2', 'x': '1', 'z': '3'}).hex())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    tensors = {"a": np.ones(3), "b": np.zeros(2, np.int16)}
    assert seal_tensors(tensors, {"x": "1", "z": "3", "y": "2"}).hex() == said.strip()


def refused(data: bytes) -> bool:
    with pytest.raises(PayloadError) as damage:
        open_sealed(data)
    return damage.value.reason == "checksum"


def test_every_flipped_bit_is_noticed():
    for position in range(8 * len(SMALL)):
        damaged = bytearray(SMALL)
        damaged[position // 8] ^= 1 << position % 8
        assert refused(bytes(damaged)), f"bit {position}"


def test_every_cut_and_every_addition_is_noticed():
    assert all(refused(SMALL[:length]) for length in range(len(SMALL)))
    assert refused(SMALL + b"\0")


@pytest.mark.parametrize(
    "data",
    [
        b"not a file",
        save({"x": np.zeros(2)}),
        save({"x": np.zeros(2)}, {"round": "3"}),
        save({"x": np.zeros(2)}, {"sealed": "[]"}),
        save({"x": np.zeros(2)}, {"sealed": '{"fields": {}, "xxh3_64": "0"}'}),
        save({"x": np.zeros(2)}, {"sealed": '{"fields": 3}'}),
    ],
)
def test_what_is_not_sealed_is_refused(data):
    assert refused(data)


def test_it_needs_no_torch():
    code = "import sys, slimfleet.compression.sealed_file; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"
