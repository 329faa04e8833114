"""Nothing that one device says ends a round for the others: quantities at their bounds."""

import json
from dataclasses import asdict, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimfleet.compression import DeviceProfile, PayloadError
from slimfleet.compression.messages import Registration, parse

EXTREMES = {
    "train_w": (1e-6, 1e5),
    "train_flops_per_s": (1e3, 9e17),
    "radio_j_per_burst": (0.0, 1e6),
    "radio_j_per_byte_up": (0.0, 1e3),
    "radio_j_per_byte_down": (0.0, 1e3),
    "uplink_bytes_per_s": (1e-2, 9e11),
    "downlink_bytes_per_s": (1e-2, 9e11),
    "ram_bytes": (0, 2**50),
    "battery_j": (1e-3, 9e8),
    "runtime_base_bytes": (0, 2**50),
    "runtime_fixed_bytes": (0, 2**50),
    "runtime_activation_factor": (0.0, 1e3),
}


def registration_of(profile: DeviceProfile, **claims: object) -> str:
    return json.dumps({"profile": asdict(profile) | claims, "examples": 10})


@pytest.mark.parametrize(
    "claims",
    [
        {"train_w": 5e-324, "train_flops_per_s": 1.7e308, "radio_j_per_burst": 0.0},
        {"train_flops_per_s": 1e-300},
        {"uplink_bytes_per_s": 5e-324},
        {"radio_j_per_byte_up": 1e300},
        {"battery_j": 1e308},
        {"ram_bytes": 2**53},
        {"runtime_base_bytes": 2**53},
        {"runtime_fixed_bytes": -1},
        {"runtime_activation_factor": 1e300},
    ],
)
def test_a_quantity_that_no_device_has_is_refused(claims, phone) -> None:
    with pytest.raises(PayloadError):
        parse(Registration, registration_of(phone, **claims))


@pytest.mark.parametrize(
    "spent",
    [{"time_s": 5e-324}, {"time_s": 1e300}, {"energy_j": 1.7e308}, {"memory_bytes": 2**53}],
)
def test_a_report_that_no_round_can_give_is_rejected_and_the_round_goes_on(spent, federate) -> None:
    federation = federate(selection={"reputation": False})
    first, *others = federation.plan().dispatches
    payload, text = federation.answer(first)
    report = json.loads(text)
    report["spent"] |= spent
    assert federation.receive(first, payload, json.dumps(report)).reason == "message"
    for dispatch in others:
        federation.work(dispatch)
    assert federation.step().row.completed == len(others)
    assert federation.run()[0].completed == len(federation.devices)


def test_losses_at_the_end_of_their_range_still_have_a_mean(federate) -> None:
    federation = federate()
    for dispatch in federation.plan().dispatches:
        payload, text = federation.answer(dispatch)
        report = json.loads(text) | {"loss": 9e29}
        assert federation.receive(dispatch, payload, json.dumps(report)).verdict == "accepted"
    federation.step()
    assert federation.run()[0].completed == len(federation.devices)


claims = st.fixed_dictionaries({}, optional={name: st.sampled_from(ends) for name, ends in EXTREMES.items()})


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(claims=claims, examples=st.sampled_from([1, 2**31]))
def test_rounds_go_on_beside_a_device_at_any_corner_of_its_bounds(claims, examples, phone, federate) -> None:
    """What one device states at registration, within the bounds, leaves the others their rounds."""
    federation = federate(profiles={11: replace(phone, **claims)})
    federation.state.registry[11].examples = examples
    for _ in range(2):
        planned = federation.plan()
        for dispatch in planned.dispatches:
            if dispatch.node != 11:
                federation.work(dispatch)
        assert {d.node for d in planned.dispatches} | set(planned.skipped) == {11, 12, 13, 14}
        assert federation.step().row.completed == 3


reports = st.fixed_dictionaries(
    {},
    optional={
        "loss": st.sampled_from([-9e29, -1.0, 0.0, 9e29]),
        "examples": st.sampled_from([1, 2**31]),
        "accuracy": st.sampled_from([0.0, 1.0]),
        "source": st.sampled_from(["measured", "estimated"]),
        "stopped_by": st.text("ab:;[]/.", max_size=64),
    },
)
spending = st.fixed_dictionaries(
    {},
    optional={
        "energy_j": st.sampled_from([0.0, 5e-324, 1e6]),
        "radio_j": st.sampled_from([0.0, 5e-324]),
        "time_s": st.sampled_from([1e-6, 604_800.0]),
        "memory_bytes": st.sampled_from([0, 1, 2**50]),
    },
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(said=reports, spent=spending, selection=st.sampled_from([0.0, 2.0]))
def test_rounds_go_on_beside_a_device_that_reports_any_corner_of_its_bounds(said, spent, selection, federate):
    federation = federate(selection={"utility_exponent": selection})
    for _ in range(3):
        planned = federation.plan()
        for dispatch in planned.dispatches:
            payload, text = federation.answer(dispatch)
            report = json.loads(text)
            if dispatch.node == 11:
                report |= said | {"spent": report["spent"] | spent}
            federation.receive(dispatch, payload, json.dumps(report))
        assert {d.node for d in planned.dispatches} | set(planned.skipped) == {11, 12, 13, 14}
        row = federation.step().row
        assert row.completed >= 3
        assert row.alarm == ""
