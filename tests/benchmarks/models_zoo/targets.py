"""Targets, compared with what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .outcome import Outcome

LEAST_MODELS = 60
DISCOVERY_SECONDS, LARGE = 20.0, 30e6
FLOPS_WITHIN = 0.10
SLACK = 0.005
"""Of a share: what rounding half of an odd number of channels up or down comes to."""
SMALL_SHARE, LEAST_SMALL = 0.35, 0.5
LARGEST_ERROR = 2.2e-5
OURS = ("FLOPs", "discovery", "half width", "process")
"""The stages that are slimfleet's own, and the process around them."""
REFUSAL = "BadInput: "


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target: what was asked, what was measured, which models miss it."""

    requirement: str
    measured: str
    missed: Sequence[str]
    met: bool

    def line(self) -> str:
        """As a list item."""
        word = "Met" if self.met else "**Missed**"
        names = f" Not by: {', '.join(self.missed)}." if self.missed else ""
        return f"- {self.requirement}: {self.measured}. {word}.{names}"


def verdicts(outcomes: Sequence[Outcome]) -> list[Verdict]:
    """All of them, over all models. A number that is missing misses its target."""
    return [
        _number(outcomes),
        _no_traceback(outcomes),
        _discovery(outcomes),
        _flops(outcomes),
        _peer(outcomes),
        _small(outcomes),
        _error(outcomes),
        _training(outcomes),
    ]


def failed(outcome: Outcome) -> dict[str, str]:
    """What failed of our own: neither the clear word of a refusal nor a stage that ran out of time."""
    return {
        stage: line
        for stage, line in outcome.failures.items()
        if stage in OURS and not line.startswith((REFUSAL, "timeout"))
    }


def _number(outcomes: Sequence[Outcome]) -> Verdict:
    return Verdict(f"at least {LEAST_MODELS} models", str(len(outcomes)), (), len(outcomes) >= LEAST_MODELS)


def _no_traceback(outcomes: Sequence[Outcome]) -> Verdict:
    refused = sum(any(line.startswith(REFUSAL) for line in o.failures.values()) for o in outcomes)
    return _all("no traceback", outcomes, lambda o: not failed(o), f"{refused} models refused in one line")


def _discovery(outcomes: Sequence[Outcome]) -> Verdict:
    asked = [o for o in outcomes if o.numbers.get("parameters", 0) < LARGE]
    seconds = {o.name: o.numbers["discovery_s"] for o in asked if "discovery_s" in o.numbers}
    return _all(
        f"discovery in at most {DISCOVERY_SECONDS:g} CPU-seconds below {LARGE / 1e6:g} M parameters",
        asked,
        lambda o: seconds.get(o.name, DISCOVERY_SECONDS + 1) <= DISCOVERY_SECONDS,
        _worst(seconds, "{:.1f} s"),
    )


def _flops(outcomes: Sequence[Outcome]) -> Verdict:
    ratios = {o.name: o.flops_ratio for o in outcomes if o.flops_ratio is not None}
    errors = {name: abs(ratio - 1) for name, ratio in ratios.items()}
    return _all(
        f"FLOPs within {FLOPS_WITHIN:.0%} of the hand count",
        outcomes,
        lambda o: errors.get(o.name, 1) <= FLOPS_WITHIN,
        _worst(errors, "{:.1%} off"),
    )


def _peer(outcomes: Sequence[Outcome]) -> Verdict:
    works = [o for o in outcomes if o.peer_share is not None]
    gaps = {o.name: o.share - o.peer_share for o in works if o.share is not None and o.peer_share is not None}
    better = sum(gap < -SLACK for gap in gaps.values())
    return _all(
        f"at half width no larger than torch-pruning's model, wherever that runs (within {SLACK:.1%})",
        works,
        lambda o: gaps.get(o.name, 1) <= SLACK,
        f"smaller for {better} of them; {_worst(gaps, '{:+.1%}')}",
    )


def _small(outcomes: Sequence[Outcome]) -> Verdict:
    small = sum(o.share is not None and o.share <= SMALL_SHARE for o in outcomes)
    return Verdict(
        f"at least {LEAST_SMALL:.0%} of the models keep at most {SMALL_SHARE:.0%} of their parameters at half width",
        f"{small} of {len(outcomes)}",
        (),
        small >= LEAST_SMALL * len(outcomes),
    )


def _error(outcomes: Sequence[Outcome]) -> Verdict:
    errors = {o.name: o.numbers["error"] for o in outcomes if "error" in o.numbers}
    return _all(
        f"a half-width model computes what the full one does with those channels at zero, within {LARGEST_ERROR:g}",
        outcomes,
        lambda o: errors.get(o.name, 1) <= LARGEST_ERROR,
        _worst(errors, "{:.1e}"),
    )


def _training(outcomes: Sequence[Outcome]) -> Verdict:
    return _all("one training step at half width", outcomes, lambda o: "trained" in o.numbers, "")


def _all(
    requirement: str, outcomes: Sequence[Outcome], holds: Callable[[Outcome], bool], more: str
) -> Verdict:
    missed = [o.name for o in outcomes if not holds(o)]
    measured = f"{len(outcomes) - len(missed)} of {len(outcomes)} models" + (f"; {more}" if more else "")
    return Verdict(requirement, measured, missed, not missed)


def _worst(numbers: dict[str, float], form: str) -> str:
    if not numbers:
        return "nothing measured"
    name = max(numbers, key=lambda name: numbers[name])
    return f"worst {form.format(numbers[name])} ({name})"
