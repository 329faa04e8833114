"""A slim file gives back what its codings promise, the same on every reader, and refuses what is not one."""

import struct

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfleet.compression.codec.native import library
from slimfleet.compression.errors import BadInput, DiskError, PayloadError
from slimfleet.compression.packing import (
    Codebook,
    Entry,
    Lossless,
    OnGrid,
    SlimFile,
    ToError,
    ToRate,
    write_slim,
)
from slimfleet.compression.packing.dtypes import DTYPES
from slimfleet.compression.packing.index import deflate
from slimfleet.compression.packing.layout import head_bytes, tail_bytes
from slimfleet.compression.packing.records import Index, Record, Section, Store, Stored

needs_native = pytest.mark.skipif(library.load() is None, reason="writes with the native coder")


def rng():
    return np.random.default_rng(5)


def weights(*shape):
    return rng().normal(0, 0.05, shape).astype(np.float32)


def nmse(array, again):
    array, again = array.astype(np.float64), again.astype(np.float64)
    return float(((array - again) ** 2).sum() / (array**2).sum())


def written(path, *entries, **fields):
    write_slim(path, entries, fields)
    return SlimFile.open(path)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (7, 5), (2, 3, 4, 5)])
def test_every_dtype_and_shape_comes_back_bit_for_bit(dtype, shape, tmp_path):
    count = int(np.prod(shape))
    bits = rng().integers(0, 2 if dtype.name == "bool" else 256, count * dtype.itemsize, np.uint8)
    array = bits.view(dtype.held).reshape(shape)
    for coding in (Lossless(), *([] if dtype.weights else [ToError(0.01), ToRate(2)])):
        with written(tmp_path / "a.slim", Entry("t", array, coding, dtype.name)) as slim:
            again = slim.held("t")
            assert (again.dtype, again.shape) == (array.dtype, shape)
            assert again.tobytes() == array.tobytes()
            assert slim.describe("t").dtype == dtype.name


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.tuples(st.sampled_from(["<f4", "<f2", "<i8", "|b1"]), st.lists(st.integers(0, 5), max_size=3)),
        max_size=8,
    )
)
def test_any_set_of_tensors_comes_back_in_order(tmp_path_factory, tensors):
    path = tmp_path_factory.mktemp("any") / "a.slim"
    arrays = {f"{i}": rng().integers(0, 2, shape).astype(dtype) for i, (dtype, shape) in enumerate(tensors)}
    with written(path, *(Entry(name, array) for name, array in arrays.items()), note="ä\n") as slim:
        assert slim.names == tuple(arrays)
        assert slim.fields == {"note": "ä\n"}
        for name, array in arrays.items():
            assert np.array_equal(slim.tensor(name), array)
            assert slim.tensor(name).dtype == array.dtype


def test_any_layout_and_byte_order_is_taken(tmp_path):
    array = weights(6, 8)
    entries = [Entry("t", array.T), Entry("s", array[::2, ::-3]), Entry("b", array.astype(">f4"))]
    with written(tmp_path / "a.slim", *entries) as slim:
        for entry in entries:
            assert np.array_equal(slim.tensor(entry.name), entry.array)


@needs_native
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "bfloat16"])
@pytest.mark.parametrize("target", [0.2, 1e-2, 1e-4])
def test_an_error_is_kept_and_nearly_used_up(dtype, target, tmp_path):
    array = np.concatenate([weights(40, 60), rng().laplace(0, 0.2, (8, 60)).astype(np.float32)])
    held = array.astype(np.float32 if dtype == "bfloat16" else dtype)
    if dtype == "bfloat16":
        held = (array.view(np.uint32) >> 16).astype(np.uint16)
        array = (held.astype(np.uint32) << 16).view(np.float32)
    entries = [
        Entry("heavy", held, ToError(target), dtype),
        Entry("other", held[:-8], ToError(target), dtype),
    ]
    with written(tmp_path / "a.slim", *entries) as slim:
        for name, original in (("heavy", array), ("other", array[:-8])):
            assert slim.describe(name).coding == "grid"
            assert 0.8 * target < nmse(original, slim.tensor(name)) <= target, name


@needs_native
def test_a_rate_is_kept_and_nearly_used_up(tmp_path):
    array = weights(300, 400)
    for bits in (0.2, 1, 3, 6):
        with written(tmp_path / "a.slim", Entry("t", array, ToRate(bits))) as slim:
            assert 0.9 * bits < 8 * slim.describe("t").bytes / array.size <= bits
            # Of a normal distribution at this rate 4 ** -bits is possible; a trellis comes within a decibel.
            assert nmse(array, slim.tensor("t")) < 4.0**-bits * (1.3 if bits < 6 else 1.5)


@needs_native
def test_large_tensors_are_cut_and_keep_their_error(tmp_path, monkeypatch):
    monkeypatch.setattr("slimfleet.compression.packing.writer.SECTION_LEVELS", 1 << 13)
    monkeypatch.setattr("slimfleet.compression.packing.writer.SECTION_BYTES", 1 << 16)
    monkeypatch.setattr("slimfleet.compression.packing.lossy._SAMPLE", 1 << 12)
    array = weights(300, 200)
    path = tmp_path / "a.slim"
    entries = [
        Entry("lossy", array, ToError(1e-2)),
        Entry("rate", array[::-1], ToRate(1.5)),
        Entry("plain", array),
        Entry("grid", np.round(array * 100) / np.float32(128), OnGrid(1 / 128)),
        Entry("long", np.arange(1 << 14)),
        Entry("vector", np.arange(1 << 14, dtype=np.float32), OnGrid(np.ones(1 << 14, np.float32))),
    ]
    with written(path, *entries) as slim:
        assert slim.section_count > 4 * len(entries)
        assert 0.9e-2 < nmse(array, slim.tensor("lossy")) <= 1e-2
        assert 1.2 < 8 * slim.describe("rate").bytes / array.size <= 1.5
        for entry in entries[2:]:
            assert np.array_equal(slim.tensor(entry.name), entry.array)
    first = path.read_bytes()
    write_slim(path, entries, threads=3)
    assert path.read_bytes() == first, "the same entries give the same file, on any number of threads"


def test_vectors_and_small_tensors_are_finer(tmp_path):
    spread = (weights(500) * 10.0 ** rng().integers(-6, 6, 500)).astype(np.float32)
    entries = [
        Entry("norm.running_var", np.abs(spread), ToError(1e-3)),
        Entry("small", weights(3, 3), ToError(1e-3)),
    ]
    with written(tmp_path / "a.slim", *entries) as slim:
        for entry in entries:
            again = slim.tensor(entry.name)
            # Value by value: a small variance is as precise as a large one.
            assert float(np.max(np.abs(again / entry.array - 1))) < 0.02
            assert nmse(entry.array, again) < 1e-3 / 8
        assert slim.describe("norm.running_var").bytes < 500 * 12 / 8


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_values_on_a_grid_come_back_bit_for_bit(axis, tmp_path):
    integers = rng().integers(-128, 128, (16, 8, 9))
    step = np.float32(0.0123)
    if axis is not None:
        step = rng().uniform(1e-3, 1e-2, integers.shape[axis]).astype(np.float32)
    shaped = step if axis is None else step.reshape(-1, *(1,) * (2 - axis))
    array = integers.astype(np.float32) * shaped
    with written(tmp_path / "a.slim", Entry("t", array, OnGrid(step, axis or 0))) as slim:
        assert slim.tensor("t").tobytes() == (array + np.float32(0)).tobytes()
        entry = slim.entry("t")
        assert np.array_equal(entry.coding.step, step)
        assert slim.describe("t").bytes < array.size * 1.2 + 4 * step.size


@pytest.mark.parametrize("bits", range(2, 17))
def test_any_number_of_bits_on_a_grid(bits, tmp_path):
    most = 1 << (bits - 1)
    array = rng().integers(-most, most, (40, 25)).astype(np.float32) * np.float32(0.37)
    with written(tmp_path / "a.slim", Entry("t", array, OnGrid(0.37))) as slim:
        assert np.array_equal(slim.tensor("t"), array)
        assert slim.describe("t").bytes < array.size * bits / 8 * 1.1 + 120


@pytest.mark.parametrize(("centroids", "kind"), [(4, np.uint8), (200, np.uint8), (700, np.uint16)])
def test_codebooks_come_back_bit_for_bit(centroids, kind, tmp_path):
    values = rng().normal(size=centroids).astype(np.float32)
    values[1] = 0
    indices = rng().integers(0, centroids, (60, 50)).astype(kind)
    with written(tmp_path / "a.slim", Entry("t", values[indices], Codebook(values, indices))) as slim:
        assert slim.tensor("t").tobytes() == values[indices].tobytes()
        coding = slim.entry("t").coding
        assert np.array_equal(coding.centroids[coding.indices], values[indices])
        assert (np.diff(coding.centroids) > 0).all()
        assert slim.describe("t").bytes < 3000 * np.log2(centroids) / 8 * 1.1 + 4 * centroids + 200


@needs_native
def test_zeros_are_cheap_under_every_coding(tmp_path):
    mask = rng().random((200, 300)) < 0.05
    steps = np.where(mask, np.maximum(rng().integers(1, 8, mask.shape), 1), 0)
    dense = np.where(mask, weights(200, 300), 0).astype(np.float32)
    on_grid = steps.astype(np.float32) * np.float32(0.01)
    book = np.array([0, *(0.01 * np.arange(1, 8))], np.float32)
    entropy = mask.size * 0.2864 / 8
    for coding, array, own in (
        (Lossless(), dense, 28),
        (ToError(1e-2), dense, 6),
        (OnGrid(0.01), on_grid, 3),
        (Codebook(book, steps.astype(np.uint8)), book[steps], 3),
    ):
        with written(tmp_path / "a.slim", Entry("t", array, coding)) as slim:
            assert slim.describe("t").bytes < (entropy + mask.sum() * own / 8) * 1.05 + 150, coding
            assert not slim.tensor("t")[~mask].any()


def test_equal_tensors_are_stored_once(tmp_path):
    array = weights(30, 20)
    entries = [Entry("embedding", array), Entry("head", array.copy()), Entry("other", array.T)]
    with written(tmp_path / "a.slim", *entries) as slim:
        assert slim.tied == {"head": "embedding"}
        assert slim.describe("head").bytes == 0
        assert np.array_equal(slim.tensor("head"), array)
        assert np.array_equal(slim.tensor("other"), array.T)
    one = (tmp_path / "a.slim").stat().st_size
    assert one < 2.3 * array.nbytes


def test_equal_tensors_on_a_grid_or_of_a_codebook_are_stored_once(tmp_path):
    places = np.random.default_rng(0).integers(0, 8, (30, 20)).astype(np.uint8)
    steps, book = np.linspace(0.1, 0.2, 30, dtype=np.float32), np.arange(8, dtype=np.float32)
    for coding, array in ((OnGrid(steps), places * steps[:, None]), (Codebook(book, places), book[places])):
        entries = [Entry(name, array.copy(), coding) for name in "abc"]
        with written(tmp_path / "a.slim", Entry("z", weights(3, 2)), *entries) as slim:
            assert slim.tied == {"b": "a", "c": "a"}
            assert all(np.array_equal(slim.tensor(name), array) for name in "abc")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([Entry("a", weights(3)), Entry("a", weights(4))], "two tensors are called 'a'"),
        ([Entry("", weights(3))], "no name"),
        ([Entry("a", np.array(["x"]))], "cannot be stored"),
        ([Entry("a", weights(3), Lossless(), "bfloat16")], "held as float32"),
        ([Entry("a", np.full((20, 20), np.nan, np.float32), ToError(0.1))], "'a' holds NaN"),
        ([Entry("a", np.full(3, np.inf, np.float32), ToRate(2))], "'a' holds NaN"),
        ([Entry("a", weights(3), OnGrid(0.1))], "does not lie on the grid"),
        ([Entry("a", np.full(3, np.nan, np.float32), OnGrid(0.1))], "'a' holds NaN"),
        ([Entry("a", weights(3), OnGrid(0.0))], "not positive"),
        ([Entry("a", weights(3, 4), OnGrid(np.ones(4, np.float32), 0))], "cannot lie on a grid"),
        ([Entry("a", np.arange(3), OnGrid(1.0))], "cannot lie on a grid"),
        ([Entry("a", weights(3), Codebook(weights(2), np.zeros(3, np.uint8)))], "other values"),
        ([Entry("a", weights(3), Codebook(weights(2), np.full(3, 2, np.uint8)))], "beyond"),
        ([Entry("a", weights(3), Codebook(weights(2), np.zeros(2, np.uint8)))], "cannot have a codebook"),
    ],
)
def test_what_cannot_be_stored_is_named_and_leaves_nothing_behind(entries, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        write_slim(tmp_path / "a.slim", entries)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "make", [lambda: ToError(0), lambda: ToError(1.0), lambda: ToRate(0), lambda: ToRate(17)]
)
def test_settings_out_of_range_are_refused(make):
    with pytest.raises(ValueError, match="must be"):
        make()


def test_an_interrupted_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.slim"
    write_slim(path, [Entry("a", weights(3))])
    before = path.read_bytes()

    def interrupted():
        yield Entry("a", weights(3000))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_slim(path, interrupted())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "a.slim"
    entries = [
        Entry("first", weights(50, 40), ToError(0.01)),
        Entry("second", np.arange(300)),
        Entry("third", weights(500)),
    ]
    write_slim(path, entries, {"note": "text"})
    return path


def refusal(slim, name):
    """The error that reading a tensor raises, or None."""
    try:
        slim.tensor(name)
    except PayloadError as error:
        return error
    return None


def test_a_damaged_tensor_is_named_and_the_others_are_read(sound):
    data = bytearray(sound.read_bytes())
    named = set()
    for at in range(8, len(data) - 250, 97):
        data[at] ^= 1
        sound.write_bytes(data)
        data[at] ^= 1
        with SlimFile.open(sound) as slim:
            errors = {name: refusal(slim, name) for name in slim.names}
        ((name, error),) = [(name, error) for name, error in errors.items() if error]
        assert error.reason == "checksum"
        assert repr(name) in str(error)
        named.add(name)
    assert named == {"first", "second", "third"}


def read_all(path):
    with SlimFile.open(path) as slim:
        return {name: slim.tensor(name) for name in slim.names}


def test_no_changed_byte_goes_unnoticed(sound):
    data = sound.read_bytes()
    for at in range(len(data)):
        if 8 <= at < len(data) - 250 and at % 50:
            continue
        changed = bytearray(data)
        changed[at] ^= 0x10
        sound.write_bytes(changed)
        with pytest.raises(PayloadError):
            read_all(sound)


def test_every_cut_is_refused(sound):
    data = sound.read_bytes()
    for size in (0, 3, 8, 20, 23, 24, 100, len(data) - 17, len(data) - 1):
        sound.write_bytes(data[:size])
        with pytest.raises(PayloadError):
            SlimFile.open(sound)
    sound.write_bytes(data + b"\0")
    with pytest.raises(PayloadError):
        SlimFile.open(sound)


def test_what_is_no_slim_file_is_refused(tmp_path):
    path = tmp_path / "a.slim"
    for data, reason in ((b"PK\3\4" + bytes(100), "magic"), (b"SLIM\2\0\0\0" + bytes(100), "version")):
        path.write_bytes(data)
        with pytest.raises(PayloadError) as refused:
            SlimFile.open(path)
        assert refused.value.reason == reason
    with pytest.raises(DiskError, match="missing"):
        SlimFile.open(tmp_path / "missing.slim")


def file_of(index, sections=b""):
    stored, inflated = deflate(index)
    return head_bytes() + sections + stored + tail_bytes(stored, inflated)


def stored(data, coder=0):
    return Stored(Section(coder), len(data), xxhash.xxh3_64_intdigest(data))


def record(name="t", shape=(2,), store=Store.PLAIN, dtype=11, **more):
    return Record(name, DTYPES[dtype], shape, store, **more)


ONE = struct.pack("<BB", 0, 0)
"""A block of zeros."""


@pytest.mark.parametrize(
    ("index", "reason"),
    [
        (Index({}, [stored(ONE)], [record(shape=(1 << 49,))]), "oversized"),
        (Index({}, [stored(ONE)], [record(shape=(1 << 40, 1 << 40, 0))]), "oversized"),
        (Index({}, [stored(ONE)], [record(shape=(1 << 40,))]), "oversized"),
        (Index({}, [stored(ONE)], [record(shape=(1 << 27,))]), "counts"),
        (Index({}, [stored(ONE)], [record(section=1)]), "counts"),
        (Index({}, [stored(ONE)], [record(shape=(1 << 20,), part=1)]), "counts"),
        (Index({}, [stored(ONE)], []), "counts"),
        (Index({}, [stored(ONE)], [record(), record()]), "header"),
        (Index({}, [stored(ONE)], [record(), record("u", dtype=9)]), "header"),
        (Index({}, [stored(ONE)], [record(), record("u", part=2)]), "header"),
        (Index({}, [stored(ONE)], [record("")]), "header"),
        (Index({}, [stored(ONE)], [record(), record("u", store=Store.TIED, section=1)]), "header"),
        (Index({}, [stored(ONE)], [record(), record("u", (3,), Store.TIED)]), "header"),
        (Index({}, [stored(ONE)], [record(store=Store.MULTIPLES)]), "header"),
        (Index({}, [stored(ONE)], [record(store=Store.GRID, unit=1.0)]), "header"),
        (Index({}, [stored(ONE, 3)], [record(store=Store.GRID, unit=float("nan"))]), "grid"),
        (Index({}, [stored(ONE, 3)], [record(store=Store.GRID, unit=0.0)]), "grid"),
        (Index({}, [stored(ONE, 3)], [record(store=Store.GRID, unit=1.0, dtype=8)]), "header"),
        (Index({}, [stored(ONE, 3)] * 3, [record("u", (4, 3), Store.GRID, unit=1.0, part=4)]), "header"),
    ],
)
def test_hostile_indices_are_refused_before_memory_is_taken(index, reason, tmp_path):
    path = tmp_path / "a.slim"
    path.write_bytes(file_of(index, ONE))
    with pytest.raises(PayloadError) as refused, SlimFile.open(path) as slim:
        slim.tensor("t")
    assert refused.value.reason == reason, refused.value
    assert "\n" not in str(refused.value)


def test_an_index_that_inflates_without_end_is_refused(tmp_path):
    import zlib

    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packed.compress(bytes(1 << 27)) + packed.flush()
    for inflated, reason in ((1 << 27, "oversized"), (1 << 20, "counts")):
        path = tmp_path / "a.slim"
        path.write_bytes(head_bytes() + bomb + tail_bytes(bomb, inflated))
        with pytest.raises(PayloadError) as refused:
            SlimFile.open(path)
        assert refused.value.reason == reason


def test_lossless_files_are_read_without_the_native_coder(sound, monkeypatch):
    with SlimFile.open(sound) as slim:
        third = slim.tensor("third")
    monkeypatch.setattr("slimfleet.compression.packing.planes.load", lambda: None)
    monkeypatch.setattr("slimfleet.compression.packing.sections.load", lambda: None)
    with SlimFile.open(sound) as slim:
        assert np.array_equal(slim.tensor("third"), third)
        if library.load() is not None:
            with pytest.raises(PayloadError, match="native coder") as refused:
                slim.tensor("first")
            assert refused.value.reason == "version"


def test_files_are_written_without_the_native_coder(tmp_path, monkeypatch):
    for module in ("planes", "sections", "quantiser"):
        monkeypatch.setattr(f"slimfleet.compression.packing.{module}.load", lambda: None)
    monkeypatch.setattr("slimfleet.compression.codec.quantise.grid.load", lambda: None)
    array = weights(60, 70)
    entries = [
        Entry("error", array, ToError(1e-2)),
        Entry("rate", array[1:], ToRate(3)),
        Entry("grid", np.round(array * 64) / np.float32(64), OnGrid(1 / 64)),
    ]
    with written(tmp_path / "a.slim", *entries) as slim:
        read = {name: slim.tensor(name) for name in slim.names}
        assert 0.8e-2 < nmse(array, read["error"]) <= 1e-2
        assert 2.5 < 8 * slim.describe("rate").bytes / entries[1].array.size <= 3
        assert np.array_equal(read["grid"], entries[2].array)
    monkeypatch.undo()
    with SlimFile.open(tmp_path / "a.slim") as slim:
        for name, array in read.items():
            assert slim.tensor(name).tobytes() == array.tobytes(), "the same float32 on every machine"
