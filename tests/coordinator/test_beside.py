"""A gateway beside a SuperLink: what federation.toml says of it."""

from __future__ import annotations

import pytest

from slimfleet.compression import BadInput
from slimfleet.coordinator import CoordinatorSettings
from slimfleet.coordinator.gateway import GatewaySettings
from slimfleet.coordinator.transport.flower.beside import joined, read_with_gateway
from slimfleet.coordinator.transport.link import Union


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "federation.toml"
        path.write_text(text)
        return path

    return write


def test_without_the_table_there_is_no_gateway(written):
    assert read_with_gateway(written("rounds = 3")) == (CoordinatorSettings(rounds=3), None)


def test_the_table_is_that_of_serve(written):
    settings, gateway = read_with_gateway(written("rounds = 3\ngateway = {port = 9000, hold_s = 2.0}"))
    assert settings == CoordinatorSettings(rounds=3)
    assert gateway == GatewaySettings(port=9000, hold_s=2.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('gateway = {out = "slimfleet-out"}', r"gateway\.out: .* server\.out of the run-config"),
        ("gateway = {metrics_port = 0}", r"gateway\.metrics_port: .* server\.metrics-port of the run-config"),
        ("gateway = {prot = 9000}", r"gateway\.prot.*gateway\.port"),
        ("gateway = 5", "gateway"),
        ('gateway = {}\ntask = {name = "digits"}', "task"),
        ("gateway = {}\nhold_s = 2.0", r"gateway\.hold_s"),
    ],
)
def test_what_is_wrong_is_named(written, text, says):
    with pytest.raises(BadInput, match=says):
        read_with_gateway(written(text))


def test_a_gateway_without_keys_is_refused(tmp_path):
    with (
        pytest.raises(BadInput, match="slimfleet-coordinator pki makes it"),
        joined(Union([]), GatewaySettings(), tmp_path),
    ):
        pass


def test_without_a_gateway_the_supernodes_are_alone(tmp_path):
    nodes = Union([])
    with joined(nodes, None, tmp_path) as link:
        assert link is nodes
