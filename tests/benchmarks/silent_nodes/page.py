"""The page of the benchmark, in Markdown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from statistics import fmean, median

from page_parts import table, when
from silent_nodes.federation import DEVICES, POWER_W, SETTINGS, Round

TARGET = 0.10
Runs = Sequence[Sequence[Round]]
"""Runs of one kind, each by its rounds."""


def page(honest: Runs, silent: Runs) -> str:
    """What was measured, and how."""
    head = [
        "devices", "runs", "rounds", "a round, median", "mean", "shortest to longest", "first rounds of runs",
        "asked", "done", "late", "dropped",
    ]  # fmt: skip
    rows = [cells(f"{DEVICES} honest", honest), cells(f"{DEVICES - 2} honest, one mute, one hanging", silent)]
    ratios = {
        "median": median(seconds(silent)) / median(seconds(honest)),
        "mean": fmean(seconds(silent)) / fmean(seconds(honest)),
    }
    verdict = "; ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items())
    met = "met" if max(ratios.values()) <= 1 + TARGET else "missed"
    return (
        INTRODUCTION.format(when=when(), cores=os.cpu_count(), settings=SETTINGS)
        + table(head, rows)
        + f"\n\nA round with the two silent nodes takes, of one without: {verdict}. Target: at most "
        f"{1 + TARGET:.2f}x; **{met}**.\n" + NOTES
    )


def later(runs: Runs) -> list[Round]:
    """All rounds but the first of each run, which registration is a part of."""
    return [each for run in runs for each in run[1:]]


def seconds(runs: Runs) -> list[float]:
    """How long rounds took, s."""
    return [each.seconds for each in later(runs)]


def cells(name: str, runs: Runs) -> list[str]:
    """The row of one kind."""
    took, rounds = seconds(runs), later(runs)
    return [
        name,
        str(len(runs)),
        str(len(took)),
        f"{median(took):.1f} s",
        f"{fmean(took):.1f} s",
        f"{min(took):.1f} to {max(took):.1f} s",
        " / ".join(f"{run[0].seconds:.0f} s" for run in runs),
        *(
            f"{fmean(getattr(each, key) for each in rounds):.1f}"
            for key in ("selected", "completed", "late", "dropped")
        ),
    ]


INTRODUCTION = f"""# A mute and a hanging node

Written by `make bench-silent` ({{when}}, {{cores}} cores shared with other work). A SuperLink and {DEVICES} SuperNodes
on loopback, with these settings:

```toml
{{settings}}```

The mute node is connected and answers no message, not even the first. The hanging one registers, and ends no round.
Devices keep to a mean power of {POWER_W:g} W by pausing, so that a round takes most of them half a minute to a minute.
Runs of both kinds alternate on the same processes.

"""

NOTES = """
Seconds are wall-clock, from the end of one round to the end of the next, all that the coordinator does included. The
first round of a run, which begins with its start, stands by itself. `asked`, `done`, `late` and `dropped` are devices a
round.
"""
