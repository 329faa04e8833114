"""Page of the results, as Markdown."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence

from cache import Run
from methods import METHODS, REFERENCE
from outcomes import TARGET_BELOW, Estimate, Outcome
from settings import Settings
from words import HOW_CHOSEN, METHODS_IN_WORDS, WHY_IT_TRAILS

REQUIRED_RATE, WITHIN_POINTS = 0.1, 0.5
"""Target: at this many bits a parameter, ours within so many points of float32."""


def page(outcomes: Sequence[Outcome], runs: Sequence[Run], settings: Settings, elements: int) -> str:
    """Setting, table, and results against targets."""
    lines = [
        "# Fashion-MNIST: accuracy per byte of uplink",
        "",
        _written(runs),
        "",
        _setting(settings, elements),
        "",
        _columns(settings),
        "",
        "| method | bits per parameter | accuracy, % | against float32, points | bytes to target | NMSE | unsent |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_row(outcome) for outcome in outcomes),
        "",
        "![Accuracy against bits per parameter and against bytes sent](accuracy-per-byte.png)",
        "",
        "## Results against targets",
        "",
        *(_verdict(outcome) for outcome in outcomes if _required(outcome.method)),
        *_least_rate(outcomes),
        "",
        WHY_IT_TRAILS,
        "",
        "## The methods",
        "",
        *METHODS_IN_WORDS,
        "",
        "## How the setting was chosen",
        "",
        *HOW_CHOSEN,
    ]
    return "\n".join(lines) + "\n"


def _written(runs: Sequence[Run]) -> str:
    today = datetime.datetime.now(tz=datetime.UTC).date()
    seeds = ", ".join(map(str, sorted({run.seed for run in runs})))
    machines = "; ".join(sorted({run.machine for run in runs}))
    return (
        f"Written by `make bench-accuracy` ({today}, seeds {seeds}). "
        f"Trained on: {machines}, one thread a run."
    )


def _setting(settings: Settings, elements: int) -> str:
    return (
        f"FedAvg: {settings.clients} clients, {settings.per_round} a round, Dirichlet({settings.alpha:g}) labels, "
        f"{settings.rounds} rounds of {settings.local_steps} local steps in batches of {settings.batch_size} (SGD with "
        f"momentum {settings.momentum:g}, rate {settings.learning_rate:g} falling on a half cosine to "
        f"{settings.learning_rate * settings.last_share:g}; no momentum on the server); a CNN of {elements:,} "
        "parameters. The same for every method, float32 included. Only the uplink is compressed; bytes are the lengths "
        "of real payloads, header and checksum included."
    )


def _columns(settings: Settings) -> str:
    return (
        "Accuracy is that of a running mean of the global models on all test images; the newest model has weight "
        f"{settings.newest_share:g}. Clients continue from the newest model itself. Mean ± standard error over seeds. "
        "*Against float32*: mean difference, in points, between runs that share seed, split, initial model, clients of "
        "every round and batches. "
        "*Bytes to target*: sent by all clients up to the first measurement (every "
        f"{settings.measured_every} rounds) within "
        f"{100 * TARGET_BELOW:g} point of float32's last one on that seed, over the seeds that reached it. *NMSE*: "
        "squared error of a payload over the squared norm of its input, residual included. *Unsent*: norm "
        "of the residual after coding, in norms of the client's update."
    )


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


def _required(method: str) -> bool:
    return METHODS[method].rate == REQUIRED_RATE


def _met(outcome: Outcome) -> bool:
    return 100 * outcome.gap.mean >= -WITHIN_POINTS


def _least_rate(outcomes: Sequence[Outcome]) -> list[str]:
    """The lowest of our rates that is within the points of the target."""
    held = [o for o in outcomes if METHODS[o.method].rate is not None and _met(o)]
    if not held:
        return []
    least = min(METHODS[o.method].rate or 0 for o in held)
    names = [f"{o.method} ({_points(o.gap, '+')})" for o in held if METHODS[o.method].rate == least]
    return [f"- The lowest of our rates within {WITHIN_POINTS:g} point: {', '.join(names)}."]


def _verdict(outcome: Outcome) -> str:
    met = _met(outcome)
    return (
        f"- {outcome.method} ({outcome.bits_per_parameter.mean:.3f} bits): {_points(outcome.gap, '+')} points against "
        f"float32; target: within {WITHIN_POINTS:g} point. {'Met' if met else '**Missed**'}."
    )
