"""The codecs that ours is held against. NNCodec, whose lambda is tuned as well, is in `nncodec.py` on its own."""

from __future__ import annotations

import importlib

from peers.peer import Peer

MODULES = ("integers", "sz3", "eden", "qsgd")


def available() -> tuple[list[Peer], dict[str, str]]:
    """The peers that can be imported here, and for every module of others what is missing."""
    found: list[Peer] = []
    missing: dict[str, str] = {}
    for module in MODULES:
        try:
            found += importlib.import_module(f"peers.{module}").PEERS
        except ImportError as error:
            missing[module] = str(error)
    return found, missing
