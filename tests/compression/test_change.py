"""What is published, and that a device with an earlier version gets exactly it from the change."""

import random
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfleet.compression.codec import (
    HYSTERESIS,
    CodecSpec,
    Snapshot,
    carried,
    decode,
    decode_change,
    decode_model,
    encode,
    encode_change,
    encode_model,
    publish,
)
from slimfleet.compression.codec.entropy.pack import pack
from slimfleet.compression.codec.quantise.grid import LARGEST_TABLE_LEVEL, Grid, Quantised
from slimfleet.compression.errors import PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.wire import OVERHEAD_BYTES, REASONS, PayloadKind, Sections, seal, unseal

RNG = np.random.default_rng(3)
MODEL = {
    "w": RNG.normal(0, 0.1, (40, 30)).astype(np.float32),
    "b": RNG.normal(0, 0.1, 30).astype(np.float32),
    "zeros": np.zeros((3, 4), np.float32),
    "mean": RNG.normal(0, 1, 30).astype(np.float32),
    "count": np.array(4, np.int64),
}
SCHEMA = ModelSchema.of(MODEL, {"w", "b", "zeros"})
WEIGHTS = ("w", "b", "zeros")


def drifted(model, scale, seed):
    rng = np.random.default_rng(seed)
    moved = {
        name: (model[name] + rng.normal(0, scale, model[name].shape)).astype("f4") for name in ("w", "b")
    }
    return {**model, **moved, "count": model["count"] + 1}


def values(snapshot):
    return {
        name: snapshot.levels[name] * np.float64(256 * unit)
        for name, unit in zip(snapshot.levels, snapshot.units, strict=True)
    }


def whole(snapshot, model=MODEL, version=1):
    return encode_model(snapshot, model, SCHEMA, version=version, side=b"")


def change(snapshot, base, model=MODEL):
    return encode_change(snapshot, base, model, SCHEMA, base_version=1, side=b"")


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(0, 0.3), min_size=1, max_size=6),
    st.sampled_from([1, 4, 6, 8]),
    st.integers(0, 2**32),
)
def test_a_change_gives_what_the_whole_model_gives(scales, bits, seed):
    model, versions = MODEL, [publish(MODEL, SCHEMA, bits, None)]
    for number, scale in enumerate(scales):
        model = drifted(model, scale, seed + number)
        versions.append(publish(model, SCHEMA, bits, versions[-1]))
    expected = decode_model(whole(versions[-1], model), SCHEMA)
    assert expected.snapshot.fingerprint == versions[-1].fingerprint
    for base in versions[:-1]:
        payload = change(versions[-1], base, model)
        if payload is not None:
            received = decode_change(payload, SCHEMA, base)
            assert received.snapshot.fingerprint == versions[-1].fingerprint
            assert all(np.array_equal(received.tensors[n], expected.tensors[n]) for n in MODEL)
            assert received.tensors["count"] == model["count"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(0, 0.3), max_size=6), st.sampled_from([1, 2, 4, 6, 8]), st.integers(0, 2**32))
def test_what_is_published_is_always_within_the_promised_distance(scales, bits, seed):
    model, snapshot = MODEL, publish(MODEL, SCHEMA, bits, None)
    for number, scale in enumerate([0.0, *scales]):
        model = drifted(model, scale, seed + number)
        snapshot = publish(model, SCHEMA, bits, snapshot)
        for name, unit in zip(WEIGHTS, snapshot.units, strict=True):
            off = np.abs(values(snapshot)[name] - model[name]) / (256 * unit)
            assert off.max() <= 0.5 + HYSTERESIS + 1e-3


def test_a_drift_far_below_a_step_is_published_once_it_has_added_up():
    """Two hundred times a fiftieth of a step: four steps in all, none of which a lone round would show."""
    snapshot = first = publish(MODEL, SCHEMA, 6, None)
    step, moved_in = 256 * first.units[0], 0
    for turn in range(1, 201):
        model = {**MODEL, "w": (MODEL["w"] + turn * step / 50).astype(np.float32)}
        following = publish(model, SCHEMA, 6, snapshot)
        moved_in += not np.array_equal(following.levels["w"], snapshot.levels["w"])
        snapshot = following
    assert moved_in > 3
    np.testing.assert_allclose(snapshot.levels["w"] - first.levels["w"].astype(int), 4, atol=1)


def test_noise_within_the_hysteresis_is_never_sent():
    """At every level's edge, where plain rounding would go up and down with the noise."""
    step = 0.01
    edge = {**MODEL, "w": (np.arange(1200).reshape(40, 30) % 30 + 0.5).astype("f4") * np.float32(step)}
    held = publish(edge, SCHEMA, 6, None)
    step = 256 * held.units[0]
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.uniform(-0.9, 0.9, edge["w"].shape) * HYSTERESIS * step
        noisy = {**edge, "w": (values(held)["w"] + np.sign(noise) * 0.5 * step + noise).astype("f4")}
        assert np.array_equal(publish(noisy, SCHEMA, 6, held).levels["w"], held.levels["w"])


def test_a_version_like_the_one_held_costs_its_header_and_buffers():
    held = publish(MODEL, SCHEMA, 6, None)
    still = {**MODEL, "mean": np.zeros(30, np.float32), "count": np.array(0)}
    assert len(change(publish(still, SCHEMA, 6, held), held, still)) == OVERHEAD_BYTES


def test_a_small_step_costs_a_fraction_of_the_whole_model():
    held = publish(MODEL, SCHEMA, 6, None)
    moved = drifted(MODEL, 0.0005, 1)
    now = publish(moved, SCHEMA, 6, held)
    assert len(change(now, held, moved)) < len(whole(now, moved)) / 3


def test_units_are_kept_until_they_are_off_by_a_factor_of_two():
    held = publish(MODEL, SCHEMA, 6, None)
    for factor, kept in ((0.6, True), (1.9, True), (0.45, False), (2.2, False)):
        now = publish({**MODEL, "w": MODEL["w"] * np.float32(factor)}, SCHEMA, 6, held)
        assert (now.units[0] == held.units[0]) is kept
        assert now.units[1:] == held.units[1:]


def test_a_new_unit_is_sent_with_the_levels_themselves():
    held = publish(MODEL, SCHEMA, 6, None)
    grown = {**MODEL, "w": MODEL["w"] * np.float32(3)}
    now = publish(grown, SCHEMA, 6, held)
    received = decode_change(change(now, held, grown), SCHEMA, held)
    assert received.snapshot.fingerprint == now.fingerprint
    assert not np.array_equal(now.levels["w"], held.levels["w"].astype(int) * 3)


def test_new_units_without_levels_have_to_be_sent_whole():
    held = publish(MODEL, SCHEMA, 6, None)
    nothing = {name: np.zeros_like(levels) for name, levels in held.levels.items()}
    assert change(Snapshot(nothing, (1.0, 1.0, 1.0)), held) is None


def test_zeros_have_one_fingerprint_whatever_their_unit():
    zeros = {name: np.zeros(3, np.int16) for name in "ab"}
    assert Snapshot(zeros, (1.0, 2.0)).fingerprint == Snapshot(zeros, (3.0, 4.0)).fingerprint
    one = {**zeros, "b": np.ones(3, np.int16)}
    assert Snapshot(one, (1.0, 2.0)).fingerprint != Snapshot(one, (1.0, 4.0)).fingerprint


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e35])
def test_weights_that_are_not_finite_are_not_published(value):
    broken = {**MODEL, "w": MODEL["w"].copy()}
    broken["w"][3, 3] = value
    with pytest.raises(PayloadError) as refusal:
        publish(broken, SCHEMA, 6, None)
    assert refusal.value.reason == "nonfinite"


def test_statistics_of_a_model_hold_what_they_hold():
    odd = {**MODEL, "mean": np.array([np.nan, np.inf, -np.inf, 1.5] + [0] * 26, np.float32)}
    snapshot = publish(odd, SCHEMA, 6, None)
    received = decode_model(whole(snapshot, odd), SCHEMA)
    assert received.tensors["mean"].tobytes() == odd["mean"].tobytes()
    changed = decode_change(change(snapshot, publish(MODEL, SCHEMA, 6, None), odd), SCHEMA, received.snapshot)
    assert changed.tensors["mean"].tobytes() == odd["mean"].tobytes()


def test_a_statistic_beyond_float32_is_refused():
    wide = {**MODEL, "mean": np.array([1e300, 1.0])}
    schema = ModelSchema.of(wide, WEIGHTS)
    with pytest.raises(PayloadError, match="'mean' holds values that float32 cannot"):
        encode_model(publish(wide, schema, 6, None), wide, schema, version=1, side=b"")


def with_plain(model):
    return replace(publish(model, SCHEMA, 6, None), plain=carried(model, SCHEMA))


@pytest.mark.parametrize("moved", [(), ("mean",), ("count",), ("mean", "count")])
def test_a_change_leaves_out_what_the_device_holds(moved):
    held = with_plain(MODEL)
    now = {**MODEL, **{name: MODEL[name] + MODEL[name].dtype.type(1) for name in moved}}
    payload = change(held, held, now)
    received = decode_change(payload, SCHEMA, held)
    for name in MODEL:
        expected = decode_model(whole(held, now), SCHEMA).tensors[name]
        assert received.tensors[name].tobytes() == expected.tobytes()
        assert name in WEIGHTS or received.snapshot.same(name, expected)
    if "mean" not in moved:
        assert len(payload) < OVERHEAD_BYTES + 8


def test_a_change_that_leaves_something_out_is_stale_where_that_is_not_held():
    held = with_plain(MODEL)
    payload = change(held, held)
    assert reason_of(payload, held) is None
    assert reason_of(payload, replace(held, plain={})) == "stale"
    other = carried({**MODEL, "mean": MODEL["mean"] + np.float32(1)}, SCHEMA)
    assert reason_of(payload, replace(held, plain=other)) == "stale"


def test_a_whole_model_that_leaves_something_out_is_refused():
    header, body = unseal(whole(with_plain(MODEL)))
    partial = replace(header, sections=header.sections | Sections.PARTIAL)
    for read in (decode, decode_model):
        with pytest.raises(PayloadError, match="leaves nothing out") as refusal:
            read(seal(partial, b"\x03" + body), SCHEMA)
        assert refusal.value.reason == "header"


def reason_of(payload, base):
    try:
        decode_change(payload, SCHEMA, base)
    except PayloadError as error:
        return error.reason
    return None


@pytest.fixture(scope="module")
def held():
    return publish(MODEL, SCHEMA, 6, None)


@pytest.fixture(scope="module")
def payload(held):
    moved = drifted(MODEL, 0.01, 1)
    return change(publish(moved, SCHEMA, 6, held), held, moved)


def test_a_change_of_another_model_is_stale(held, payload):
    other = {**held.levels, "b": held.levels["b"] + np.int16(1)}
    assert reason_of(payload, Snapshot(other, held.units)) == "stale"
    assert reason_of(payload, Snapshot(held.levels, (held.units[0] * 2, *held.units[1:]))) == "stale"


def test_kinds_are_not_confused(held, payload):
    assert reason_of(whole(held), held) == "header"
    for wrong in (payload, encode(MODEL, SCHEMA, CodecSpec(bits=4)).payload):
        with pytest.raises(PayloadError) as refusal:
            decode_model(wrong, SCHEMA)
        assert refusal.value.reason == "header"
    with pytest.raises(PayloadError) as refusal:
        decode(payload, SCHEMA)
    assert refusal.value.reason == "header"


def with_body(held, quantised):
    """A well-sealed change of `held` with any body."""
    body = pack(quantised, SCHEMA)
    header, _ = unseal(change(publish(drifted(MODEL, 0.01, 1), SCHEMA, 6, held), held))
    return seal(replace(header, coder=body.coder, sections=body.sections), body.data)


def test_levels_that_leave_the_grid_are_refused(held):
    plain = {"mean": np.zeros(30, np.float16), "count": np.array(0)}
    zeros = {name: np.zeros(levels.shape, np.int32) for name, levels in held.levels.items()}
    highest = np.unravel_index(held.levels["w"].argmax(), (40, 30))
    room = LARGEST_TABLE_LEVEL - int(held.levels["w"][highest])
    for extra, reason in ((0, None), (1, "grid")):
        far = {**zeros, "w": zeros["w"].copy()}
        far["w"][highest] = room + extra
        assert reason_of(with_body(held, Quantised(far, Grid(held.units, (), 0), plain)), held) == reason


def test_offsets_and_float32_are_refused(held):
    plain = {"mean": np.zeros(30, np.float16), "count": np.array(0)}
    ones = {name: np.ones(levels.shape, np.int32) for name, levels in held.levels.items()}
    assert reason_of(with_body(held, Quantised(ones, Grid(held.units, (3,), 0), plain)), held) == "grid"
    floats = {**plain, **{name: MODEL[name] for name in WEIGHTS}, "mean": MODEL["mean"]}
    assert reason_of(with_body(held, Quantised({}, None, floats)), held) == "grid"


def test_mutated_changes_neither_crash_nor_allocate(held, payload):
    rng, reasons = random.Random(5), {}
    tracemalloc.start()
    try:
        for turn in range(3_000):
            header, body = unseal(payload)
            data = bytearray(body)
            for _ in range(rng.randint(1, 3)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            if turn % 3 == 0:
                data = data[: rng.randrange(len(data))]
            hostile = seal(header, bytes(data))
            if turn % 8 == 0:
                hostile = bytes(hostile[:-1]) + bytes([hostile[-1] ^ 1])
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            reason = reason_of(hostile, held)
            reasons[reason] = reasons.get(reason, 0) + 1
            assert tracemalloc.get_traced_memory()[1] - before <= 4 * SCHEMA.nbytes + 64 * 1024
    finally:
        tracemalloc.stop()
    assert set(reasons) <= {None, *REASONS}
    assert {"checksum", "counts", "entropy"} <= set(reasons)


def test_the_kind_is_on_the_wire(payload):
    header, _ = unseal(payload)
    assert (header.kind, payload[3] >> 4) == (PayloadKind.CHANGE, 2)
    assert header.base_version == 1
