"""The rate controller: an error is kept, a size is kept, and neither is paid for twice."""

import time
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from slimfleet.compression.codec import Aim, CodecSpec, Coding, decode, encode, encode_to
from slimfleet.compression.codec.codec import quantise, sealed
from slimfleet.compression.codec.error import expected_nmse, nmse
from slimfleet.compression.codec.native import library
from slimfleet.compression.codec.operating_point import meet_bytes, meet_nmse
from slimfleet.compression.codec.quantise import native_rate, portable_rate
from slimfleet.compression.codec.quantise.native_rate import NativeQuantiser, quantiser_for
from slimfleet.compression.errors import BadInput, BudgetExceeded, PayloadError
from slimfleet.compression.schema import ModelSchema
from slimfleet.compression.wire import OVERHEAD_BYTES, Coder, Envelope


@pytest.fixture
def weights():
    rng = np.random.default_rng(3)
    return {
        "a": (rng.laplace(0, 0.01, (60, 200)) * rng.lognormal(0, 1, (60, 1))).astype(np.float32),
        "b": rng.laplace(0, 0.002, (30, 60)).astype(np.float32),
        "bias": rng.laplace(0, 0.002, 30).astype(np.float32),
    }


def schema_of(tensors):
    return ModelSchema.of(tensors, tensors)


@pytest.mark.parametrize("target", [0.9, 0.5, 0.2, 0.05, 0.01])
def test_an_error_is_kept_and_used_up(weights, target):
    encoded = encode_to(weights, schema_of(weights), Aim(nmse=target))
    assert 0.95 * target < nmse(weights, encoded.decoded) <= target
    decoded = decode(encoded.payload, schema_of(weights)).tensors
    assert all(np.array_equal(decoded[name], encoded.decoded[name]) for name in weights)


def test_it_is_as_small_as_the_best_of_a_grid_of_specs(weights):
    """Within a percent: no spec of the codec that errs as little is smaller."""
    schema = schema_of(weights)
    for target in (0.5, 0.1):
        grid = [CodecSpec(bits=b, sparsity=s) for b in (4, 6, 8) for s in np.linspace(0, 0.995, 60)]
        made = [encode(weights, schema, spec) for spec in grid]
        best = min(len(e.payload) for e in made if nmse(weights, e.decoded) <= target)
        assert len(encode_to(weights, schema, Aim(nmse=target)).payload) < 1.02 * best


def test_more_error_takes_fewer_bytes_and_more_bytes_leave_less_error(weights):
    schema = schema_of(weights)
    sizes = [len(encode_to(weights, schema, Aim(nmse=t)).payload) for t in (0, 0.003, 0.03, 0.1, 0.3, 0.9)]
    assert sizes == sorted(sizes, reverse=True)
    errors = [
        nmse(weights, encode_to(weights, schema, Aim(limit_bytes=b)).decoded) for b in (100, 300, 2000, 9000)
    ]
    assert errors == sorted(errors, reverse=True)


def test_no_error_at_all_is_plain_float32(weights):
    encoded = encode_to(weights, schema_of(weights), Aim(nmse=0))
    assert decode(encoded.payload, schema_of(weights)).header.coder is Coder.FLOAT32
    assert nmse(weights, encoded.decoded) == 0
    # So is an error that no grid of the codec reaches, and a size that has room for it.
    assert encode_to(weights, schema_of(weights), Aim(nmse=1e-16)).payload == encoded.payload
    roomy = encode_to(weights, schema_of(weights), Aim(limit_bytes=len(encoded.payload)))
    assert roomy.payload == encoded.payload


@pytest.mark.parametrize("limit", [5_000, 2_000, 400, 120])
@pytest.mark.parametrize("target", [None, 0, 0.001])
def test_a_size_is_kept_and_used_up(weights, limit, target):
    schema = schema_of(weights)
    encoded = encode_to(weights, schema, Aim(nmse=target, limit_bytes=limit))
    assert 0.95 * limit < len(encoded.payload) <= limit
    assert decode(encoded.payload, schema).tensors["a"].any()


def test_a_limit_that_does_not_bind_changes_nothing(weights):
    schema = schema_of(weights)
    free = encode_to(weights, schema, Aim(nmse=0.2))
    assert encode_to(weights, schema, Aim(nmse=0.2, limit_bytes=len(free.payload))).payload == free.payload
    tight = encode_to(weights, schema, Aim(nmse=0.2, limit_bytes=len(free.payload) * 9 // 10))
    assert nmse(weights, tight.decoded) > 0.2


def test_a_size_that_nothing_fits_is_refused_and_says_what_to_do(weights):
    with pytest.raises(BudgetExceeded, match="narrow the model") as caught:
        encode_to(weights, schema_of(weights), Aim(nmse=0.5, limit_bytes=50))
    assert caught.value.constraint == "uplink_bytes"


def test_what_the_header_says_is_passed_on(weights):
    envelope = Envelope(base_version=7, plan_id=2**64 - 1, side=b"beside")
    encoded = encode_to(weights, schema_of(weights), Aim(nmse=0.5), envelope=envelope)
    header = decode(encoded.payload, schema_of(weights)).header
    assert (header.base_version, header.plan_id, header.side) == (7, 2**64 - 1, b"beside")


@pytest.mark.parametrize("rounding", ["deadzone", "stochastic"])
def test_an_update_of_zeros_or_without_weights_costs_its_header(weights, rounding):
    zeros = {name: np.zeros_like(array) for name, array in weights.items()}
    for tensors, trained in ((zeros, zeros), (zeros, ()), ({}, ()), ({"w": np.zeros((0, 3))}, {"w"})):
        schema = ModelSchema.of(tensors, trained)
        for aim in ({"nmse": 0.1}, {"nmse": 0}, {"limit_bytes": 45}, {"nmse": 0.5, "limit_bytes": 45}):
            encoded = encode_to(tensors, schema, Aim(**aim, rounding=rounding), rng=np.random.default_rng(0))
            assert len(encoded.payload) == OVERHEAD_BYTES == 45
    with pytest.raises(BudgetExceeded):
        encode_to(zeros, schema_of(zeros), Aim(limit_bytes=44))


def test_buffers_and_counters_travel_and_do_not_count_as_error(update, schema):
    """Buffers hold most of the energy here, and a size must have room for them."""
    heavy = update | {"norm.running_mean": update["norm.running_mean"] * 1000}
    encoded = encode_to(heavy, schema, Aim(nmse=0.3))
    trained = {name: heavy[name] for name in heavy if name.endswith(("weight", "bias"))}
    assert 0.25 < nmse(trained, encoded.decoded) <= 0.3
    assert encoded.decoded["norm.num_batches_tracked"] == update["norm.num_batches_tracked"]
    limited = encode_to(heavy, schema, Aim(nmse=0.3, limit_bytes=len(encoded.payload) - 40))
    assert limited.decoded["norm.num_batches_tracked"] == update["norm.num_batches_tracked"]


def test_a_few_weights_travel_as_float32_where_that_is_smaller():
    update = {"w": np.array([1.0, 2.0], np.float32)}
    for preset in ("small", "fast", "portable"):
        payload = encode_to(update, schema_of(update), Aim(nmse=0.1), coding=Coding(preset)).payload
        assert len(payload) == OVERHEAD_BYTES + 8


@pytest.mark.parametrize("target", [0.3, 2.0])
def test_stochastic_rounding_stays_unbiased_and_errs_by_the_target_on_average(target):
    rng = np.random.default_rng(5)
    x = {"w": rng.laplace(0, 1, (5, 8)).astype(np.float32), "v": rng.laplace(0, 1, 6).astype(np.float32)}
    aim = Aim(nmse=target, rounding="stochastic")
    draws = [encode_to(x, schema_of(x), aim, rng=rng).decoded for _ in range(400)]
    for name, array in x.items():
        values = np.stack([draw[name] for draw in draws]).astype(np.float64)
        deviation = values.std(0) / np.sqrt(len(draws))
        rare = 20 * np.abs(values).max() / len(draws)
        assert (np.abs(values.mean(0) - array) <= 5 * deviation + rare).all()
    assert 0.8 * target < np.mean([nmse(x, draw) for draw in draws]) < 1.05 * target


def test_the_expected_error_is_the_mean_of_the_error(weights):
    schema, rng = schema_of(weights), np.random.default_rng(0)
    spec = CodecSpec(bits=3, sparsity=0.5, rounding="stochastic")
    quantised = quantise(weights, schema, spec, rng=rng)
    measured = [nmse(weights, encode(weights, schema, spec, rng=rng).decoded) for _ in range(30)]
    assert expected_nmse(weights, schema, quantised.grid) == pytest.approx(np.mean(measured), rel=0.02)


@pytest.mark.parametrize("aim", [{"nmse": 0.4}, {"limit_bytes": 900}])
def test_the_same_generator_gives_the_same_bytes_and_another_others(weights, aim):
    payloads = [
        encode_to(
            weights, schema_of(weights), Aim(**aim, rounding="stochastic"), rng=np.random.default_rng(seed)
        ).payload
        for seed in (1, 1, 2)
    ]
    assert payloads[0] == payloads[1] != payloads[2]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({}, "nothing to aim at"),
        ({"nmse": 1.0}, "nmse is 1.0"),
        ({"nmse": -0.1}, "nmse is -0.1"),
        ({"nmse": float("nan")}, "nmse is nan"),
        ({"nmse": float("inf"), "rounding": "stochastic"}, "nmse is inf"),
        ({"limit_bytes": -1}, "limit_bytes is -1"),
        ({"nmse": 0.5, "rounding": "stochastic"}, "random generator"),
    ],
)
def test_what_makes_no_sense_is_refused(weights, arguments, word):
    with pytest.raises(ValueError, match=word):
        encode_to(weights, schema_of(weights), Aim(**arguments))


@pytest.mark.parametrize("aim", [Aim(nmse=0.4), Aim(nmse=0), Aim(limit_bytes=900)])
def test_what_encode_refuses_is_refused(weights, aim):
    with pytest.raises(PayloadError) as caught:
        encode_to(weights | {"b": weights["b"] * np.float32("nan")}, schema_of(weights), aim)
    assert caught.value.reason == "nonfinite"
    with pytest.raises(PayloadError) as caught:
        encode_to({"a": weights["a"]}, schema_of(weights), aim)
    assert caught.value.reason == "schema"


class Counting(NativeQuantiser):
    """A quantiser that counts its trials."""

    steps: list[float] = []  # noqa: RUF012 - of the one in use

    def at(self, step):
        self.steps.append(step)
        return NativeQuantiser.at(self, step)


@pytest.mark.skipif(library.load() is None, reason="the native coder is not installed")
@pytest.mark.parametrize("aim", [Aim(nmse=0.2), Aim(limit_bytes=1_000), Aim(nmse=0.01)])
def test_a_native_search_takes_few_trials(weights, aim):
    """Each quantises and codes in one."""
    schema = schema_of(weights)
    quantiser = quantiser_for(weights, schema, aim, Coding())
    Counting.steps = []
    counting = Counting(*(getattr(quantiser, each.name) for each in fields(quantiser) if each.init))
    encoded = native_rate.choose(
        counting,
        aim,
        lambda quantised: sealed(quantised, schema),
        lambda: encode(weights, schema, CodecSpec(bits=32)),
    )
    assert encoded.payload == encode_to(weights, schema, aim).payload
    assert 1 <= len(Counting.steps) <= (5 if aim.nmse else 8)


@pytest.mark.parametrize(("aim", "most"), [(Aim(nmse=0.2), 1), (Aim(limit_bytes=1_000), 12)])
def test_a_portable_search_codes_seldom_and_for_an_error_once(weights, aim, most):
    schema, coded = schema_of(weights), []

    def code(spec):
        coded.append(spec)
        return encode(weights, schema, spec, coding=Coding("portable"))

    encoded = portable_rate.choose(weights, schema, aim, code)
    assert encoded.payload == encode_to(weights, schema, aim, coding=Coding("portable")).payload
    assert 1 <= len(coded) <= most


def test_a_portable_search_for_an_error_takes_a_dozen_encodes_at_most(weights):
    """By processor time, the best of five of each; a trial quantises and does not code."""
    schema, coding = schema_of(weights), Coding("portable")
    taken = {}
    for name, action in (
        ("one", lambda: encode(weights, schema, CodecSpec(bits=8, sparsity=0.5), coding=coding)),
        ("search", lambda: encode_to(weights, schema, Aim(nmse=0.2), coding=coding)),
    ):
        turns = []
        for _ in range(5):
            start = time.thread_time()
            action()
            turns.append(time.thread_time() - start)
        taken[name] = min(turns)
    assert taken["search"] < 12 * taken["one"]


SHAPES = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6)
ARRAYS = hnp.arrays(np.float32, SHAPES, elements=st.floats(-1e6, 1e6, width=32)) | hnp.arrays(
    np.float16, SHAPES, elements=st.floats(-100, 100, width=16)
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ARRAYS, max_size=4), st.floats(0, 0.99), st.none() | st.integers(0, 400))
def test_whatever_the_update_one_of_the_two_bounds_holds(arrays, target, limit):
    tensors = {f"t{index}": array for index, array in enumerate(arrays)}
    schema = schema_of(tensors)
    free = encode_to(tensors, schema, Aim(nmse=target))
    assert nmse(tensors, free.decoded) <= max(target, 1e-12)
    try:
        encoded = encode_to(tensors, schema, Aim(nmse=target, limit_bytes=limit))
    except BudgetExceeded:
        assert limit is not None
        assert limit < len(free.payload)
        return
    assert limit is None or len(encoded.payload) <= limit
    if limit is None or len(free.payload) <= limit:
        assert encoded.payload == free.payload


def test_an_operating_point_keeps_its_target(weights):
    points = []
    for target in (0.3, 0.03):
        point, payload = meet_nmse(weights, target)
        assert len(payload) == point.bytes
        assert 0.97 * target < point.nmse <= target
        assert point.target_nmse == target
        points.append(point)
    assert points[0].bytes < points[1].bytes
    limited, _ = meet_bytes(weights, 1000)
    assert 960 <= limited.bytes <= 1000
    assert limited.target_nmse is None


def test_an_operating_point_that_cannot_be_is_bad_input(weights):
    for target in (0.0, 1.0, float("nan")):
        with pytest.raises(BadInput, match="makes no sense"):
            meet_nmse(weights, target)
    for limit in (50, -1):
        with pytest.raises(BadInput, match=f"fits {limit} bytes"):
            meet_bytes(weights, limit)
