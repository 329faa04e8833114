"""The results as Markdown."""

from __future__ import annotations

import datetime
import math
import platform
from collections.abc import Sequence

from methods import METHODS, REFERENCE
from outcomes import TARGET_BELOW, Estimate, Outcome
from settings import LAST_ROUNDS, Settings

ASKED = ("ours 0.1 bit", "ours 0.1 bit, feedback")
WITHIN_POINTS = 0.5


def page(outcomes: Sequence[Outcome], settings: Settings, seeds: Sequence[int], elements: int) -> str:
    """Setting, table, and what was asked held against it."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    lines = [
        "# Fashion-MNIST: accuracy per byte of uplink",
        "",
        f"Written by `make bench-accuracy` ({today}, {platform.machine()}, Python {platform.python_version()}, "
        f"seeds {', '.join(map(str, seeds))}).",
        f"Plain FedAvg: {settings.clients} clients, {settings.per_round} a round, Dirichlet({settings.alpha:g}) "
        f"labels, {settings.rounds} rounds of {settings.local_epochs} local epoch in batches of {settings.batch_size} "
        f"(SGD, rate {settings.learning_rate:g} times {settings.rate_decay:g} each round, momentum "
        f"{settings.momentum:g}, none on the server); a CNN of "
        f"{elements:,} parameters. Only the way up is compressed; bytes are the lengths of real payloads, "
        "header and checksum included.",
        "",
        f"Accuracy is the mean over the global models of the last {LAST_ROUNDS} rounds, on all test images, mean ± "
        "standard error over seeds. *Against float32* is the mean difference, in points, between runs that share "
        "seed, split, start, clients of every round and batches. *Bytes to target*: sent by all clients up to the "
        f"first round whose trailing {LAST_ROUNDS}-round accuracy is within {100 * TARGET_BELOW:g} point of "
        "float32's final one on that seed, over the seeds that got there. *NMSE*: squared error of a payload over "
        "the squared norm of what it was to carry, residual included. *Unsent*: norm of what a client holds back "
        "after sending, in norms of its update.",
        "",
        "| method | bits per parameter | accuracy, % | against float32, points | bytes to target | NMSE | unsent |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(outcome) for outcome in outcomes),
        "",
        "![Accuracy against bits per parameter and against bytes sent](accuracy-per-byte.png)",
        "",
        "## Held against what was asked",
        "",
        *(_verdict(outcome) for outcome in outcomes if outcome.method in ASKED),
        "",
        "## The methods",
        "",
        "- float32: four bytes a parameter in our envelope.",
        "- QSGD ternary: one level, unbiased, each tensor scaled by its largest magnitude; our coder and envelope.",
        "- STC 1%: the largest hundredth of all values at their mean magnitude, with its own undamped error "
        "feedback; the shorter of the paper's Golomb code without any envelope and our coder in our envelope.",
        f"- ours: least error at a rate, or least bytes at an NMSE; with feedback, {_feedback()}.",
    ]
    return "\n".join(lines) + "\n"


def _row(outcome: Outcome) -> str:
    reached = outcome.reached
    sent = "not reached" if not reached else f"{outcome.bytes_to_target.mean:,.0f}"
    if 0 < reached < outcome.seeds:
        sent += f" ({reached} of {outcome.seeds} seeds)"
    gap = "–" if outcome.method == REFERENCE else _points(outcome.gap, "+")
    cells = [
        outcome.method,
        f"{outcome.bits_per_parameter.mean:.3g}",
        _points(outcome.accuracy),
        gap,
        sent,
        f"{outcome.nmse:.3f}",
        f"{outcome.residual:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _points(estimate: Estimate, sign: str = "") -> str:
    error = "" if math.isnan(estimate.error) else f" ± {100 * estimate.error:.2f}"
    return f"{100 * estimate.mean:{sign}.2f}{error}"


def _verdict(outcome: Outcome) -> str:
    held = 100 * outcome.gap.mean >= -WITHIN_POINTS
    return (
        f"- {outcome.method} ({outcome.bits_per_parameter.mean:.3f} bits): {_points(outcome.gap, '+')} points against "
        f"float32; asked: within {WITHIN_POINTS:g} point. {'Held' if held else '**Missed**'}."
    )


def _feedback() -> str:
    feedback = METHODS[ASKED[1]].feedback
    assert feedback is not None
    cap = (
        "" if feedback.max_norm is None else f" and is held to {feedback.max_norm:g} norms of the new update"
    )
    return f"a residual fades by {feedback.decay:g} for every round that passed it by{cap}"
