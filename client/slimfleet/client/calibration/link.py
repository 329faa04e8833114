"""Link: how fast this device receives from a URL, and sends to one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from http.client import HTTPException
from urllib.request import Request, urlopen

from slimfleet.compression import BadInput

__all__ = ["downlink_bytes_per_s", "uplink_bytes_per_s"]

WARM_UP_BYTES = 64 * 1024
"""Received before the clock starts: a connection begins slowly."""

LEAST_BYTES = 256 * 1024
MOST_BYTES = 16 * 2**20
SENT_BYTES = 2**20
LONGEST_S = 10.0
PIECE_BYTES = 32 * 1024


def downlink_bytes_per_s(url: str, clock: Callable[[], float] = time.perf_counter) -> float:
    """Rate at which a file is received, over at most ten seconds or 16 MiB. Raises BadInput where it cannot be told."""
    try:
        with urlopen(_request(url), timeout=LONGEST_S) as answer:
            answer.read(WARM_UP_BYTES)
            began, received = clock(), 0
            while (
                received < MOST_BYTES and clock() - began < LONGEST_S and (piece := answer.read(PIECE_BYTES))
            ):
                received += len(piece)
            seconds = clock() - began
    except (OSError, HTTPException) as error:
        raise BadInput(f"cannot receive from {url}: {error}") from error
    if received < LEAST_BYTES - WARM_UP_BYTES and seconds < LONGEST_S:
        size = received + WARM_UP_BYTES
        raise BadInput(f"{url} has at most {size} bytes: a file of {LEAST_BYTES} or more is needed")
    return received / seconds


def uplink_bytes_per_s(url: str, clock: Callable[[], float] = time.perf_counter) -> float:
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
