"""Probes: a device measures its link with a real gateway, over either transport."""

from __future__ import annotations

import pytest

from slimfleet.client.calibration.link import SENT_BYTES, gateway_bytes_per_s
from slimfleet.client.gateway.calling import Declined
from slimfleet.client.gateway.transports import TransportName
from slimfleet.compression import BadInput
from slimfleet.compression.device_api import PIECE_BYTES, PROBE_BYTES

BOTH = pytest.mark.parametrize("transport", ["grpc", "https"])


@BOTH
def test_noise_goes_both_ways_as_much_as_is_asked_for(opened, transport: TransportName) -> None:
    hall = opened()
    calls = hall.connection(transport=transport)
    pieces = list(calls.probe_download(3 * PIECE_BYTES + 5))
    assert [len(piece) for piece in pieces] == [PIECE_BYTES] * 3 + [5]
    assert len(set(pieces[0])) == 256
    assert calls.probe_upload(bytes(2 * PIECE_BYTES + 1)) == 2 * PIECE_BYTES + 1
    assert hall.refused() == {}


@BOTH
def test_a_probe_of_more_than_16_mib_is_refused(opened, transport: TransportName) -> None:
    hall = opened()
    calls = hall.connection(transport=transport)
    for probe in (
        lambda: list(calls.probe_download(PROBE_BYTES + 1)),
        lambda: calls.probe_upload(bytes(PROBE_BYTES + 1)),
    ):
        with pytest.raises(Declined, match="size: a probe of more than 16777216 bytes"):
            probe()
    assert hall.refused() == {"size": 2}


@BOTH
def test_rates_are_those_of_the_link(opened, transport: TransportName) -> None:
    """A clock that moves a second whenever it is read: 1 MiB up in one second, ten pieces down in ten."""
    moments = iter(range(1_000))
    up, down = gateway_bytes_per_s(opened().connection(transport=transport), lambda: float(next(moments)))
    assert up == SENT_BYTES
    assert down == pytest.approx(PIECE_BYTES)


def test_a_gateway_that_cannot_be_reached_is_said_in_one_line(opened) -> None:
    with pytest.raises(BadInput, match="cannot measure the link to the gateway: UNAVAILABLE"):
        gateway_bytes_per_s(opened().connection(port=9))
