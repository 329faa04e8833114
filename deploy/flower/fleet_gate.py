"""The gate: the one address that devices reach. It passes Flower's Fleet API on to the SuperLink, and nothing else.

A SuperLink serves three interfaces on one port: Fleet, for devices; Control, with which anyone who can reach it starts
an app of his own on the server; and Runtime. So it listens on loopback, and this stands before it:

    SUPERLINK=https://127.0.0.1:8000 SUPERLINK_CA=pki/ca.crt uvicorn fleet_gate:app --host 0.0.0.0 --port 8443 \\
        --ssl-certfile pki/server.crt --ssl-keyfile pki/server.key --limit-concurrency 500 --no-access-log

What it needs (uvicorn, starlette, httpx) comes with Flower.
"""

import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

SUPERLINK = os.environ.get("SUPERLINK", "https://127.0.0.1:8000")
"""Where the SuperLink listens."""

SUPERLINK_CA = os.environ.get("SUPERLINK_CA")
"""The certificate by which the SuperLink is known, where its address begins with https."""

CALL = re.compile(r"[a-z]+(-[a-z]+)*")
OF_ONE_HOP = {"connection", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
"""Headers that are not passed on (RFC 9110, 7.6.1)."""


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """One pool of connections to the SuperLink, as long as the gate stands."""
    # Devices may wait long for work: only connecting is bounded.
    async with httpx.AsyncClient(
        base_url=SUPERLINK,
        verify=ssl.create_default_context(cafile=SUPERLINK_CA),
        timeout=httpx.Timeout(None, connect=10.0),
        trust_env=False,
        limits=httpx.Limits(max_connections=None),
    ) as client:
        app.state.client = client
        yield


async def fleet(request: Request) -> Response:
    """Pass one call of the Fleet API on, and its answer back, without holding either whole."""
    call = request.path_params["call"]
    if CALL.fullmatch(call) is None:
        return Response(status_code=404)
    client: httpx.AsyncClient = request.app.state.client
    headers = [(k, v) for k, v in request.headers.items() if k not in OF_ONE_HOP]
    passed = client.build_request("POST", f"/v1/fleet/{call}", headers=headers, content=request.stream())
    try:
        answer = await client.send(passed, stream=True)
    except httpx.TransportError:
        return Response("the SuperLink does not answer", status_code=502)

    async def body() -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw():
                yield chunk
        finally:
            await answer.aclose()

    kept = {k: v for k, v in answer.headers.items() if k not in OF_ONE_HOP}
    return StreamingResponse(body(), answer.status_code, kept)


app = Starlette(routes=[Route("/v1/fleet/{call}", fleet, methods=["POST"])], lifespan=lifespan)
