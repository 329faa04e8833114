from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from slimfleet.compression.codec import Aim, encode_to
from slimfleet.compression.cost import SizeObservation, UpdateSizeModel, bits_per_value, distortion
from slimfleet.compression.schema import ModelSchema

ERRORS = (0.03, 0.05, 0.2, 0.4, 0.6, 0.9)


def test_plain_float32_takes_32_bits_and_no_error_takes_more() -> None:
    assert bits_per_value(0) == 32
    assert 30 < bits_per_value(1e-30) <= 32


def test_what_a_threshold_drops_of_a_lognormal_source() -> None:
    # Keeping one value in fifty drops about Phi(Phi^-1(0.98) - 2) = 0.52 of the energy. 0.141 bits say which
    # are kept, 0.02 their signs and some more their sizes.
    assert 0.16 < bits_per_value(0.53) < 0.2


def test_less_error_takes_more_bits() -> None:
    bits = [bits_per_value(nmse) for nmse in np.geomspace(1e-4, 0.95, 60)]
    assert all(less < more for more, less in pairwise(bits))


def test_far_down_half_the_amplitude_of_the_error_costs_a_bit() -> None:
    assert bits_per_value(0.0001) - bits_per_value(0.0004) == pytest.approx(1)


@pytest.mark.parametrize("nmse", [0.02, 0.06, 0.15, 0.4, 0.6])
def test_what_lies_between_is_close_to_what_the_codec_does(nmse: float) -> None:
    """On the ideal source itself."""
    update = {"values": distortion.ideal_source()}
    payload = encode_to(update, ModelSchema.of(update, list(update)), Aim(nmse=nmse)).payload
    assert bits_per_value(nmse) == pytest.approx(8 * (len(payload) - 64) / 2**16, rel=0.12)


@pytest.mark.parametrize("nmse", ERRORS)
def test_predictions_hold_for_another_update_with_layers_of_unlike_scale(nmse: float) -> None:
    rng = np.random.default_rng(7)
    update = {
        name: (scale * rng.standard_t(3, shape)).astype(np.float32)
        for name, scale, shape in (("first", 3.0, (100, 200)), ("last", 1.0, (400, 200)))
    }
    payload = encode_to(update, ModelSchema.of(update, list(update)), Aim(nmse=nmse)).payload
    assert UpdateSizeModel().predict(100_000, nmse) == pytest.approx(len(payload), rel=0.5)


def test_a_prediction_is_a_look_up() -> None:
    """The codec runs for the table, once, and not for each error."""
    bits_per_value(0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distortion, "encode_to", None)
        assert bits_per_value(0.123) > bits_per_value(0.124)


def test_learning_moves_the_prediction_to_what_arrived() -> None:
    model = UpdateSizeModel()
    bare = model.predict(100_000, 0.3) - model.overhead_bytes
    arrived = SizeObservation(0.3, 100_000, round(0.6 * bare) + model.overhead_bytes)
    learned = model.learn([arrived])
    assert learned.predict(100_000, 0.3) == pytest.approx(arrived.payload_bytes, rel=1e-3)
    # An error never planned borrows the mean correction; plain float32 has nothing to correct.
    assert learned.bytes_per_parameter(0.1) == pytest.approx(0.6 * model.bytes_per_parameter(0.1), rel=1e-3)
    assert learned.predict(100, 0) == model.predict(100, 0)
    assert learned.error == pytest.approx(0)


def test_the_error_is_reported() -> None:
    model = UpdateSizeModel()
    for size in (2000, 4000, 2000, 4000, 2000, 4000):
        model = model.learn([SizeObservation(0.3, 100_000, size)])
    assert 0.3 < model.error < 0.8
    assert model.observed == 6


sizes = st.builds(
    SizeObservation,
    nmse=st.sampled_from(ERRORS),
    parameters=st.integers(100, 10**6),
    payload_bytes=st.integers(1, 10**6),
)


@given(st.lists(sizes, max_size=12), st.randoms())
def test_a_rounds_order_does_not_matter_and_json_keeps_every_bit(seen, random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(seen)
    random.shuffle(shuffled)
    learned = UpdateSizeModel().learn(seen).learn(seen[:2])
    assert UpdateSizeModel().learn(shuffled).learn(seen[:2]) == learned
    kept = TypeAdapter(UpdateSizeModel)
    assert kept.validate_json(kept.dump_json(learned)) == learned


def fleet_of(devices: int, share: float, poisoned: int = 0) -> list[SizeObservation]:
    """One payload a device, at `share` of the formula; the first few send next to nothing."""
    expected = UpdateSizeModel().predict(100_000, 0.3)
    return [
        SizeObservation(
            0.3, 100_000, 45 if number < poisoned else round(share * expected), f"device {number}"
        )
        for number in range(devices)
    ]


def test_a_few_devices_that_send_next_to_nothing_do_not_change_what_is_expected_of_the_others() -> None:
    honest, poisoned = UpdateSizeModel(), UpdateSizeModel()
    for number in range(6):
        honest = honest.learn(fleet_of(40, 0.9 + 0.01 * number))
        poisoned = poisoned.learn(fleet_of(40, 0.9 + 0.01 * number, poisoned=5))
    for nmse in (0.3, 0.1):
        assert poisoned.predict(100_000, nmse) == pytest.approx(honest.predict(100_000, nmse), rel=0.02)
    assert poisoned.error == pytest.approx(honest.error, abs=0.02)


def test_an_error_that_few_devices_know_is_not_theirs_alone_to_correct() -> None:
    model = UpdateSizeModel().learn(fleet_of(40, 1.0))
    tiny = [SizeObservation(0.05, 100_000, 45, f"device {number}") for number in range(2)]
    for _ in range(10):
        model = model.learn(tiny)
    assert model.predict(100_000, 0.05) == pytest.approx(UpdateSizeModel().predict(100_000, 0.05), rel=0.1)


def test_the_memory_of_sizes_is_bounded_and_follows_the_last_to_report() -> None:
    model = UpdateSizeModel()
    for number in range(30):
        seen = [replace(each, device=f"{number}/{each.device}") for each in fleet_of(20, 1.0 + 0.1 * number)]
        model = model.learn(seen)
    assert sum(map(len, model.tracks.values())) <= 100
    expected = UpdateSizeModel().predict(100_000, 0.3)
    assert model.predict(100_000, 0.3) > 3.5 * expected
