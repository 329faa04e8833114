"""Levels through the native coder and back: any shape, any size, any guess; and bytes that no encoder wrote."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfleet.compression.codec import CodecSpec, Coding, decode, encode
from slimfleet.compression.codec.native import bindings, build, library
from slimfleet.compression.codec.native.bindings import (
    FARTHEST,
    LARGEST_LEVEL,
    MAX_CLASS,
    Part,
    decode_parts,
    dequantise_levels,
    encode_parts,
    expected_class,
    start_class,
)
from slimfleet.compression.codec.native.trials import TALLIED, Tally, Trials, spread
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.wire import Coder

pytestmark = pytest.mark.skipif(library.load() is None, reason="the native coder is not installed")
PRESETS = ("small", "fast")
SHAPES = [
    (),
    (0,),
    (1,),
    (5,),
    (40,),
    (1, 9),
    (9, 1),
    (0, 3),
    (3, 0, 2),
    (2, 3, 0),
    (7, 8),
    (20, 3),
    (4, 3, 3, 3),
    (3, 2, 5),
    (70, 9),
    (270, 2),
]
"""Scalars, empty ones, one row, one column, windows, more rows than either preset looks back on."""


def levels_like(rng, shape, scale):
    """Laplacian levels, among them rows of zeros; a scale of infinity stands for the extremes."""
    if scale == np.inf:
        return rng.choice(np.array([-LARGEST_LEVEL, 0, LARGEST_LEVEL], np.int32), shape)
    drawn = np.clip(np.rint(rng.laplace(0, scale, shape)), -LARGEST_LEVEL, LARGEST_LEVEL)
    array = np.array(drawn, np.int32)
    if array.ndim:
        array[rng.random(len(array)) < 0.3] = 0
    return array


def there_and_back(parts, levels, preset):
    data = encode_parts(parts, levels, preset)
    decoded = decode_parts(parts, data, preset)
    for array, back in zip(levels, decoded, strict=True):
        assert back.shape == array.shape
        assert (back == array).all()
    return data


def or_none(parts, data, preset):
    """What the bytes decode to, or None where they are refused."""
    try:
        return decode_parts(parts, data, preset)
    except PayloadError as error:
        return None if error.reason == "entropy" else pytest.fail(error.reason)


def guess_for(array, rng, scale):
    """A guess at the levels, in levels * 256, `scale` times too large, and off by a little everywhere."""
    wide = array * (256.0 * scale) + rng.normal(0, 64, array.shape)
    return np.array(np.clip(wide, -FARTHEST, FARTHEST), np.int32)


drawn_tensors = st.lists(
    st.tuples(
        st.sampled_from(SHAPES),
        st.sampled_from([0.0, 0.1, 1.0, 6.0, 300.0, 2e4, np.inf]),
        st.sampled_from([None, 1.0, 0.3, -4.0]),
        st.booleans(),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(drawn_tensors, st.sampled_from(PRESETS), st.integers(0, 2**32 - 1))
def test_levels_come_back(drawn, preset, seed):
    rng = np.random.default_rng(seed)
    parts, levels = [], []
    for shape, scale, likeness, honest in drawn:
        array = levels_like(rng, shape, scale)
        start = start_class(array) if honest or not array.any() else int(rng.integers(1, MAX_CLASS + 1))
        guess = None if likeness is None else guess_for(array, rng, likeness)
        parts.append(Part(shape, start, guess=guess))
        levels.append(array)
    there_and_back(parts, levels, preset)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_largest_levels_fit_the_room_that_is_made_for_them(preset):
    rng = np.random.default_rng(3)
    array = rng.integers(LARGEST_LEVEL // 2, LARGEST_LEVEL + 1, (40, 50), np.int32) * rng.choice(
        [-1, 1], (40, 50)
    )
    levels = [np.array(array, np.int32), np.full((9, 9), -LARGEST_LEVEL, np.int32)]
    data = there_and_back([Part(a.shape, 1) for a in levels], levels, preset)
    assert len(data) > 4 * sum(a.size for a in levels) * 0.4


@pytest.mark.parametrize("preset", PRESETS)
def test_zeros_take_no_bytes_or_nearly_none(preset):
    zeros = np.zeros((100, 100), np.int32)
    assert start_class(zeros) == 0
    assert there_and_back([Part(zeros.shape, 0)], [zeros], preset) == b""
    assert len(there_and_back([Part(zeros.shape, 63)], [zeros], preset)) <= 2
    assert there_and_back([], [], preset) == b""


@pytest.mark.parametrize("preset", PRESETS)
def test_a_guess_of_the_same_scale_saves_bytes_and_one_of_another_is_survived(preset):
    rng = np.random.default_rng(4)
    array = np.array(np.rint(rng.laplace(0, 4, (60, 40))), np.int32)
    start = start_class(array)
    without = len(there_and_back([Part(array.shape, start)], [array], preset))
    for scale, share in ((1.0, 0.55), (0.25, 1.1), (-1.0, 0.6), (1000.0, 1.1)):
        guess = guess_for(array, rng, scale)
        with_guess = there_and_back([Part(array.shape, start, guess=guess)], [array], preset)
        assert len(with_guess) < share * without


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([shape for shape in SHAPES if len(shape) > 1]),
    st.sampled_from([0.2, 2.0, 100.0, 1e5, 1e30]),
    st.sampled_from([1, 8]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_values_are_quantised_to_levels_that_come_back(shape, scale, states, guessed, seed):
    rng = np.random.default_rng(seed)
    values = rng.laplace(0, scale, shape).astype(np.float32)
    guess = rng.integers(-FARTHEST, FARTHEST + 1, shape, np.int32) if guessed else None
    levels = [np.full(shape, 77, np.int32)]
    part = Part(shape, expected_class(values), states, values, guess)
    data = encode_parts([part], levels, "small", 0.2)
    decoded = decode_parts([Part(shape, part.start, states, guess=guess)], data, "small")
    assert (decoded[0] == levels[0]).all()
    # The nearest within a step of the trellis, or nearly the largest there is.
    reachable = np.clip(values, -LARGEST_LEVEL, LARGEST_LEVEL)
    assert (np.abs(levels[0] - reachable) <= 3).all()


@pytest.mark.parametrize("states", [1, 8])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_values_that_are_no_numbers_stay_inside_the_levels(states, value):
    """They are refused long before; here they must do no harm."""
    values = np.full((12, 9), value, np.float32)
    values[::2] = 1.5
    levels = [np.zeros(values.shape, np.int32)]
    part = Part(values.shape, expected_class(values), states, values)
    data = encode_parts([part], levels, "small", 0.2)
    assert np.abs(levels[0]).max() <= LARGEST_LEVEL
    decoded = decode_parts([Part(values.shape, part.start, states)], data, "small")
    assert (decoded[0] == levels[0]).all()


def streams():
    """Parts, levels and bytes of a little of everything, under both presets, with trellis and guess."""
    rng = np.random.default_rng(5)
    levels = [levels_like(rng, shape, 2.0) for shape in ((6, 9), (5,), (), (3, 2, 3, 3), (0, 2))]
    levels[2][...] = -3
    for preset in PRESETS:
        for guessed in (False, True):
            parts = [
                Part(a.shape, start_class(a), guess=guess_for(a, rng, 1.0) if guessed else None)
                for a in levels
            ]
            data = encode_parts(parts, levels, preset)
            yield pytest.param(preset, parts, data, id=preset + "-guess" * guessed)
    values = rng.laplace(0, 2, (9, 11)).astype(np.float32)
    part = Part(values.shape, expected_class(values), 8, values)
    data = encode_parts([part], [np.zeros(values.shape, np.int32)], "small", 0.2)
    yield pytest.param("small", [Part(values.shape, part.start, 8)], data, id="trellis")


with_streams = pytest.mark.parametrize(("preset", "parts", "data"), list(streams()) if library.load() else [])


def holds_zero_row(levels):
    """Whether a row that begins with a flag is all zeros: it can be written with the flag set and without."""
    rows = [a.reshape(bindings.as_matrix(a.shape)[:2]) for a in levels]
    return any(a.shape[1] >= 8 and (~a.any(axis=1)).any() for a in rows)


def is_the_only_encoding(parts, data, preset):
    """Refused, or exactly what an encoder makes of the levels: no byte is without consequence."""
    levels = or_none(parts, data, preset)
    return levels is None or holds_zero_row(levels) or encode_parts(parts, levels, preset) == data


def differs(parts, data, other, preset):
    """Whether `data` is refused or stands for other levels than the sound `other`."""
    levels = or_none(parts, data, preset)
    honest = decode_parts(parts, other, preset)
    return levels is None or any((a != b).any() for a, b in zip(levels, honest, strict=True))


@with_streams
def test_bytes_after_the_end_are_refused_or_mean_something_else(preset, parts, data):
    refused = 0
    for more in (1, 2, 3, 4, 5, 8, 12, 100):
        assert or_none(parts, data + bytes(more), preset) is None
        for last in (1, 64, 128, 255):
            longer = data + bytes(more - 1) + bytes([last])
            assert differs(parts, longer, data, preset)
            refused += or_none(parts, longer, preset) is None
            assert more < 8 or or_none(parts, longer, preset) is None
    assert refused >= 24


@with_streams
def test_flipped_and_shortened_bytes_are_refused_or_mean_something_else(preset, parts, data):
    changed = [data[:length] for length in range(len(data))]
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        changed.append(bytes(flipped))
    for other in changed:
        assert is_the_only_encoding(parts, other, preset)
        assert differs(parts, other, data, preset)


@settings(max_examples=400, deadline=None)
@given(
    st.binary(max_size=80),
    st.sampled_from(SHAPES),
    st.integers(0, MAX_CLASS),
    st.sampled_from([("small", 1), ("small", 8), ("fast", 1)]),
    st.booleans(),
)
def test_any_bytes_are_refused_or_the_only_encoding_of_levels(data, shape, start, how, guessed):
    preset, states = how
    guess = np.full(shape, 300, np.int32) if guessed else None
    parts = [Part(shape, start, states, guess=guess)]
    levels = or_none(parts, data, preset)
    assert levels is None or not levels[0].size or np.abs(levels[0]).max() <= LARGEST_LEVEL
    assert is_the_only_encoding(parts, data, preset)


@pytest.mark.parametrize("data", [b"", b"\xff" * 8, b"\xff" * 4000, b"\0" * 7 + b"\1", b"\x80" * 64])
@pytest.mark.parametrize("preset", PRESETS)
def test_bytes_of_one_kind_do_no_harm(data, preset):
    parts = [Part((300, 40), 63), Part((2000,), 1), Part((8, 8, 3, 3), 30)]
    assert is_the_only_encoding(parts, data, preset)


@pytest.mark.parametrize("states", [1, 8])
@pytest.mark.parametrize("level", [LARGEST_LEVEL + 1, LARGEST_LEVEL + 2, 65_535, 131_000])
def test_levels_beyond_the_limit_are_neither_written_nor_read(level, states, monkeypatch):
    levels = [np.zeros((3, 10), np.int32)]
    levels[0][1, 4] = -level
    parts = [Part((3, 10), 5, states)]
    with pytest.raises(ValueError, match="coarser step"):
        encode_parts(parts, levels, "small")
    monkeypatch.setattr(bindings, "LARGEST_LEVEL", 10**6)
    data = encode_parts(parts, levels, "small")
    assert or_none(parts, data, "small") is None
    levels[0][1, 4] = LARGEST_LEVEL - 1
    assert or_none(parts, encode_parts(parts, levels, "small"), "small") is not None


GOOD = np.zeros((4, 6), np.int32)


@pytest.mark.parametrize(
    ("part", "levels", "preset"),
    [
        (Part((4, 6), 1), GOOD.astype(np.int64), "small"),
        (Part((4, 6), 1), GOOD.astype(">i4"), "small"),
        (Part((4, 6), 1), np.asfortranarray(GOOD), "small"),
        (Part((4, 6), 1), GOOD.reshape(6, 4), "small"),
        (Part((4, 5), 1), GOOD, "small"),
        (Part((4, 6), MAX_CLASS + 1), GOOD, "small"),
        (Part((4, 6), -1), GOOD, "small"),
        (Part((4, 6), 1, 2), GOOD, "small"),
        (Part((4, 6), 1, 8), GOOD, "fast"),
        (Part((4, 6), 1, values=np.zeros((4, 6))), GOOD, "small"),
        (Part((4, 6), 1, guess=GOOD[:2]), GOOD, "small"),
        (Part((4, 6), 1, guess=GOOD + FARTHEST + 1), GOOD, "small"),
        (Part((4, 6), 1, guess=GOOD + np.int32(-(2**31))), GOOD, "small"),
    ],
)
def test_arguments_that_c_would_trust_are_checked(part, levels, preset):
    with pytest.raises(ValueError, match=r"for|class|trellis|guess"):
        encode_parts([part], [levels], preset)


def test_the_small_functions_check_their_arrays_too():
    wide, values = GOOD.astype(np.int64), np.zeros((4, 6), np.float32)
    with pytest.raises(ValueError, match="int64"):
        start_class(wide)
    with pytest.raises(ValueError, match="float64"):
        expected_class(np.zeros(3))
    with pytest.raises(ValueError, match="int64"):
        dequantise_levels(GOOD, np.float32(1), np.zeros(2, np.int64))
    for levels, others in ((wide, values), (GOOD, values[1:]), (GOOD.T, values.T)):
        with pytest.raises(ValueError, match="in C order"):
            Tally().add(levels, others)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("guessed", [False, True])
def test_a_trial_is_what_its_parts_give_one_by_one(preset, guessed):
    """Scaled, classed, quantised, coded and tallied in one call; again at another step, in other arrays."""
    rng = np.random.default_rng(3)
    trellis, price = preset == "small", 0.2
    arrays = [rng.laplace(0, 0.01, shape).astype(np.float32) for shape in SHAPES]
    arrays[-1][:] = 0
    weights = Trials(arrays, preset, trellis=trellis, price=price)
    found = {}
    for step in (np.float32(0.01), np.float32(0.003)):
        parts, levels, tallies = [], [], (Tally(), Tally())
        for array in arrays:
            matrix = array.ndim > 1
            values = np.asarray(array / (step if matrix else step / 2), np.float32)
            own = np.zeros(array.shape, np.int32) if matrix else np.asarray(np.rint(values), np.int32)
            start = expected_class(values) if matrix else start_class(own)
            guess = guess_for(own, rng, 1.0) if guessed else None
            states = 8 if matrix and trellis else 1
            parts.append(Part(array.shape, start, states, values if matrix else None, guess))
            levels.append(own)
        data = encode_parts(parts, levels, preset, price)
        for array, own in zip(arrays, levels, strict=True):
            scale = step if array.ndim > 1 else step / 2
            tallies[array.ndim < 2].add(own, np.asarray(array / scale, np.float32))
        at = weights.at(step, step / 2, [part.guess for part in parts] if guessed else None)
        assert at.data == data
        assert at.starts == tuple(part.start for part in parts)
        assert all((a == b).all() for a, b in zip(at.levels, levels, strict=True))
        np.testing.assert_allclose(at.matrices.rows, tallies[0].rows, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(at.vectors.rows, tallies[1].rows, rtol=1e-12, atol=1e-12)
        found[float(step)] = at, [own.copy() for own in at.levels]
    assert all((a == b).all() for at, kept in found.values() for a, b in zip(at.levels, kept, strict=True))


def test_a_trial_finds_room_for_more_bytes_than_levels_mostly_take(monkeypatch):
    """None of these takes four bytes a level, so less is made ready here."""
    monkeypatch.setattr(bindings, "_BYTES_A_LEVEL", (0, 36))
    values = np.random.default_rng(0).normal(0, 1e30, (40, 100)).astype(np.float32)
    for step in (np.float32(1e29), np.float32(1)):
        at = Trials([values], "fast", trellis=False, price=0.1).at(step, step)
        assert len(at.data) > 64
        decoded = decode_parts([Part(values.shape, at.starts[0])], at.data, "fast")
        assert (decoded[0] == at.levels[0]).all()
    assert LARGEST_LEVEL - 2 <= np.abs(at.levels[0]).max() <= LARGEST_LEVEL


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_trial_of_what_is_no_number_stays_inside_the_levels(value):
    """It is refused long before; here it must do no harm."""
    arrays = [np.full(shape, value, np.float32) for shape in ((12, 9), (5,), ())]
    at = Trials(arrays, "fast", trellis=False, price=0.1).at(np.float32(1), np.float32(0.5))
    decoded = decode_parts(
        [Part(a.shape, start) for a, start in zip(arrays, at.starts, strict=True)], at.data, "fast"
    )
    for there, here in zip(decoded, at.levels, strict=True):
        assert (there == here).all()
        assert np.abs(here).max() <= LARGEST_LEVEL


def test_a_trial_checks_its_weights_and_its_guess():
    weights = Trials([np.ones((4, 6), np.float32)], "small", trellis=False, price=0.1)
    for guess in (GOOD + FARTHEST + 1, GOOD[:2], GOOD.astype(np.int64)):
        with pytest.raises(ValueError, match=r"guess|for int32"):
            weights.at(np.float32(1), np.float32(1), [guess])
    with pytest.raises(TypeError, match="float64"):
        Trials([np.ones((4, 6))], "small", trellis=False, price=0.1)


def test_a_tally_says_how_far_weights_lie_beyond_their_levels():
    levels = np.array([0, 0, 1, -1, 1, -2, 9, -40, 8], np.int32)
    values = np.array([0.25, -0.5, 1.5, -0.75, -0.25, -2.5, 9.5, -38.0, 8.0], np.float32)
    tally = Tally()
    tally.add(levels, values)
    tally.add(levels[:1], values[:1])
    expected = np.zeros((TALLIED, 3))
    expected[0] = 3, 1.0, 0.375
    expected[1] = 3, 0.5 - 0.25 - 1.25, 0.25 + 0.0625 + 1.5625
    expected[2] = 1, 0.5, 0.25
    expected[8] = 1, 0, 0
    expected[9] = 2, (9.5 - 9) + (38 - 40), 0.25 + 4
    np.testing.assert_array_equal(tally.rows, expected)


def test_a_spread_counts_eighths_of_octaves():
    values = np.array([1.0, -1.1, 1.125, 0.0, -0.0, 2.0, 1.99, 1e-45, 3e38], np.float32)
    counts, squares = spread(values)
    one = 127 * 8
    assert {k: counts[k] for k in np.flatnonzero(counts)} == {
        0: 3,
        one: 2,
        one + 1: 1,
        one + 7: 1,
        one + 8: 1,
        (254 << 3) + 6: 1,
    }
    assert squares[one] == pytest.approx(1 + 1.1**2)
    assert squares.sum() == pytest.approx(np.sum(values.astype(np.float64) ** 2))
    with pytest.raises(ValueError, match="in C order"):
        spread(np.ones((3, 3), np.float32).T[1:])


def test_a_level_stands_for_one_rounded_product():
    levels = np.array([[0, 1, -1, 2, -3, LARGEST_LEVEL, -LARGEST_LEVEL]], np.int32)
    offsets, unit = np.array([-5, 300], np.int16), np.float32(0.1)
    which = np.array([0, -5, 5, 300, -300, 300, -300])
    assert (
        dequantise_levels(levels, unit, offsets) == (levels * 256 + which).astype(np.float32) * unit
    ).all()
    assert (dequantise_levels(levels, unit, offsets[:0]) == (levels * 256).astype(np.float32) * unit).all()
    assert dequantise_levels(levels[:0], unit, offsets).shape == (0, 7)


@pytest.fixture(scope="module")
def plain_library(tmp_path_factory):
    """The same sources for any processor, hardly optimised."""
    target = tmp_path_factory.mktemp("plain") / build.LIBRARY
    return library.open_library(
        build.compile_library(target, build.compiler(), ["-O1", "-DSLIMCODEC_HAS_AVX2=0"])
    )


def test_every_instruction_set_gives_the_same_bytes_and_levels(plain_library, monkeypatch):
    rng = np.random.default_rng(6)
    made = []
    for shape, scale in (((300, 24), 3.0), ((64, 16, 3, 3), 0.4), ((500,), 2.0), ((30, 200), 2000.0)):
        values = rng.laplace(0, scale, shape).astype(np.float32)
        values[len(values) // 2 :] *= 0.02
        for preset, states in (("small", 8), ("small", 1), ("fast", 1)):
            for guess in (None, guess_for(values, rng, 0.5)):
                states = states if len(shape) > 1 else 1
                made.append((preset, Part(shape, expected_class(values), states, values, guess)))

    def coded():
        for preset, part in made:
            levels = [np.zeros(part.shape, np.int32)]
            yield encode_parts([part], levels, preset, 0.15)
            yield levels[0].tobytes()

    def read(data):
        for (preset, part), stream in zip(made, data[::2], strict=True):
            yield decode_parts([part], stream, preset)[0].tobytes()

    here = list(coded())
    assert list(read(here)) == here[1::2]
    monkeypatch.setattr(bindings, "require", lambda: plain_library)
    assert list(coded()) == here
    assert list(read(here)) == here[1::2]


def peak_growth(action):
    """Bytes by which resident memory was, at most, above what it is before `action`; C's memory counts too."""
    ctypes.CDLL(None).malloc_trim(0)  # or it would take what was freed before
    Path("/proc/self/clear_refs").write_text("5")

    def kilobytes(name):
        return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])

    before = kilobytes("VmRSS")
    action()
    return (kilobytes("VmHWM") - before) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
@pytest.mark.parametrize("guessed", [False, True])
@pytest.mark.parametrize("shape", [(1200, 1000), (4, 300_000), (1_200_000,)])
def test_memory_is_bounded_by_the_model_and_its_widest_tensor(shape, guessed):
    values = np.zeros(shape, np.float32)
    values.reshape(-1)[::97] = 1
    tensors, schema = {"w": values}, ModelSchema.of({"w": values}, {"w"})
    reference = {"w": values / 2} if guessed else None
    payload = encode(tensors, schema, CodecSpec(bits=2), coding=Coding(reference=reference)).payload
    assert payload[3] == Coder.CONTEXTS
    growth = peak_growth(lambda: decode(payload, schema, reference))
    columns = bindings.as_matrix(shape)[1]
    assert values.nbytes < growth < 4 * values.nbytes + 36 * columns + (2 << 20)
