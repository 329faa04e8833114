"""Link: how fast this device receives and sends, to and from its gateway or URLs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from functools import partial
from http.client import HTTPException
from urllib.request import Request, urlopen

from slimfleet.client.gateway.calling import Away, Declined
from slimfleet.client.gateway.connection import Connection
from slimfleet.compression import BadInput
from slimfleet.compression.device_api import PROBE_BYTES

__all__ = ["downlink_bytes_per_s", "gateway_bytes_per_s", "uplink_bytes_per_s"]

Clock = Callable[[], float]

WARM_UP_BYTES = 64 * 1024
"""Received before the clock starts: a connection begins slowly."""

LEAST_BYTES = 256 * 1024
MOST_BYTES = 16 * 2**20
SENT_BYTES = 2**20
LONGEST_S = 10.0
PIECE_BYTES = 32 * 1024


def gateway_bytes_per_s(connection: Connection, clock: Clock = time.perf_counter) -> tuple[float, float]:
    """Rates at which noise goes up to the gateway and comes down from it, over the connection that rounds take too.

    Raises BadInput where the gateway cannot be reached, or does not serve it.
    """
    with closing(connection):
        try:
            down = _received(connection.probe_download(PROBE_BYTES), clock)
            connection.close()  # what is left of the noise has no way any more
            connection.probe_upload(b"\0")  # connects
            began = clock()
            connection.probe_upload(os.urandom(SENT_BYTES))
        except (Away, Declined) as error:
            raise BadInput(f"cannot measure the link to the gateway: {error}") from error
        return SENT_BYTES / (clock() - began), down[0] / down[1]


def downlink_bytes_per_s(url: str, clock: Clock = time.perf_counter) -> float:
    """Rate at which a file is received, over at most ten seconds or 16 MiB. Raises BadInput where it cannot be told."""
    try:
        with urlopen(_request(url), timeout=LONGEST_S) as answer:
            received, seconds = _received(iter(partial(answer.read, PIECE_BYTES), b""), clock)
    except (OSError, HTTPException) as error:
        raise BadInput(f"cannot receive from {url}: {error}") from error
    if received < LEAST_BYTES - WARM_UP_BYTES and seconds < LONGEST_S:
        size = received + WARM_UP_BYTES
        raise BadInput(f"{url} has at most {size} bytes: a file of {LEAST_BYTES} or more is needed")
    return received / seconds


def _received(pieces: Iterable[bytes], clock: Clock) -> tuple[int, float]:
    """Bytes and seconds from when the connection has warmed up, for at most ten seconds or 16 MiB."""
    before = received = 0
    began = seconds = 0.0
    for piece in pieces:
        if before < WARM_UP_BYTES:
            before += len(piece)
            if before >= WARM_UP_BYTES:
                began = clock()
            continue
        received += len(piece)
        seconds = clock() - began
        if received >= MOST_BYTES or seconds >= LONGEST_S:
            break
    return received, seconds


def uplink_bytes_per_s(url: str, clock: Clock = time.perf_counter) -> float:
    """Rate at which 1 MiB of noise is sent in a POST, up to its answer. Raises BadInput where it is not taken."""
    request = _request(url, os.urandom(SENT_BYTES))
    began = clock()
    try:
        with urlopen(request, timeout=6 * LONGEST_S) as answer:
            answer.read(PIECE_BYTES)
    except (OSError, HTTPException) as error:
        raise BadInput(f"cannot send to {url}: {error}") from error
    return SENT_BYTES / (clock() - began)


def _request(url: str, body: bytes | None = None) -> Request:
    if not url.startswith(("http://", "https://")):
        raise BadInput(
            f"{url!r} is not a URL to measure a link with: give one that begins with http:// or https://"
        )
    headers = {} if body is None else {"Content-Type": "application/octet-stream"}
    return Request(url, body, headers)
