"""Everything measured of one update: every codec at every target, with sizes and speeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import ours
from measure import Arrays, interleaved, megabytes, size
from peers import nncodec
from peers.peer import Peer, at_targets, shapes
from updates import Update

TARGETS = (0.3, 0.1, 0.03)
NNCODEC = "NNCodec"
OURS = {preset: f"slimfleet, {preset}" for preset in ("small", "fast")}
OURS_SIDE = "slimfleet, small, side information"


@dataclass(frozen=True, slots=True)
class Result:
    """One codec at one target. Speeds: 1e6 bytes of float32 in a second of processor time; None: not taken."""

    bytes: float | None
    encode: float | None = None
    decode: float | None = None
    search: float | None = None
    """Encoding with the search for the operating point."""
    note: str = ""


@dataclass(slots=True)
class Case:
    """One update and scope: results by target and codec, and the order-0 entropy of our own symbols in bytes."""

    update: str
    scope: str
    parameters: int
    results: dict[float, dict[str, Result]] = field(default_factory=dict)
    entropy: dict[float, float] = field(default_factory=dict)

    def ratio(self, target: float, ours: str, theirs: str, what: str = "bytes") -> float | None:
        """Ours over theirs; None where one of them is missing."""
        mine, other = (getattr(self.results[target].get(name), what, None) for name in (ours, theirs))
        return mine / other if mine and other else None


def run(
    update: Update, scope: str, peers: list[Peer], with_nncodec: bool, say: Callable[[str], None]
) -> Case:
    """All of it for one update."""
    arrays = update.arrays
    case = Case(update.name, scope, size(arrays))
    tuned = nncodec.tune(arrays, TARGETS) if with_nncodec else None
    say("NNCodec tuned")
    others = {peer.name: at_targets(peer, arrays, TARGETS) for peer in peers}
    say("the other peers tuned")
    for target in TARGETS:
        actions: dict[str, Callable[[], object]] = {}
        results: dict[str, Result] = {}
        for preset in ours.PRESETS:
            coded = ours.code(arrays, target, preset)
            results[OURS[preset]] = Result(coded.bytes, note=f"NMSE {coded.nmse:.4f}")
            actions |= _our_actions(OURS[preset], coded)
            if preset == "small":
                case.entropy[target] = order0_bytes(coded.decoded)
        if update.reference:
            coded = ours.code(arrays, target, "small", update.reference)
            results[OURS_SIDE] = Result(coded.bytes, note=f"NMSE {coded.nmse:.4f}")
            actions |= _our_actions(OURS_SIDE, coded)
        if tuned:
            setting = tuned[target].point.setting
            results[NNCODEC] = Result(tuned[target].bytes, note=setting.words())
            actions |= _nncodec_actions(arrays, setting)
        for peer in peers:
            at = others[peer.name][target]
            results[peer.name] = Result(at.bytes, note=f"{at.point.setting:.4g}")
            actions |= _peer_actions(peer, arrays, at.point.setting)
        case.results[target] = _with_speeds(results, actions, megabytes(arrays))
        say(f"NMSE {target:g} timed")
    return case


def _our_actions(name: str, coded: ours.Coded) -> dict[str, Callable[[], object]]:
    return {f"{name}|encode": coded.again, f"{name}|decode": coded.decode, f"{name}|search": coded.search}


def _nncodec_actions(arrays: Arrays, setting: nncodec.Setting) -> dict[str, Callable[[], object]]:
    payload = nncodec.encode(arrays, setting)
    return {
        f"{NNCODEC}|encode": lambda: nncodec.encode(arrays, setting),
        f"{NNCODEC}|decode": lambda: nncodec.decode(payload),
    }


def _peer_actions(peer: Peer, arrays: Arrays, setting: Any) -> dict[str, Callable[[], object]]:
    payload, known = peer.encode(arrays, setting), shapes(arrays)
    return {
        f"{peer.name}|encode": lambda: peer.encode(arrays, setting),
        f"{peer.name}|decode": lambda: peer.decode(payload, known),
    }


def _with_speeds(
    results: Mapping[str, Result], actions: Mapping[str, Callable[[], object]], million_bytes: float
) -> dict[str, Result]:
    seconds = interleaved(actions, rounds=5 if million_bytes < 1 else 3)

    def speed(name: str, what: str) -> float | None:
        taken = seconds.get(f"{name}|{what}")
        return million_bytes / max(taken, 1e-9) if taken is not None else None

    return {
        name: Result(
            result.bytes,
            speed(name, "encode"),
            speed(name, "decode"),
            speed(name, "search"),
            result.note,
        )
        for name, result in results.items()
    }


def order0_bytes(decoded: Arrays) -> float:
    """Entropy of the symbols, each tensor with its own ideal static table that costs nothing.

    Within a tensor, decoded values and symbols are one to one.
    """
    bits = 0.0
    for array in decoded.values():
        _, counts = np.unique(array, return_counts=True)
        bits -= float(np.sum(counts * np.log2(counts / array.size)))
    return bits / 8
