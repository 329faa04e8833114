"""The page of the benchmark, in Markdown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from statistics import median

from page_parts import table, when
from second_round.settings import SETTINGS

TARGET_MS = 50.0
Runs = Sequence[Sequence[float]]
"""Seconds from a plan's arrival to its first step: runs, each by its rounds."""


def page(resident: Runs, supernode: Runs) -> str:
    """What was measured, and how."""
    head = [
        "device", "starts", "first round", "second round, median", "shortest to longest",
        "rounds from the second on", "their median", "shortest to longest",
    ]  # fmt: skip
    rows = [cells("resident at a gateway", resident), cells("SuperNode, a process a message", supernode)]
    took_ms = 1_000 * median(run[1] for run in resident)
    met = "met" if took_ms <= TARGET_MS else "missed"
    ratio = median(run[1] for run in supernode) / median(run[1] for run in resident)
    return (
        INTRODUCTION.format(when=when(), cores=os.cpu_count(), load=os.getloadavg()[0], settings=SETTINGS)
        + table(head, rows)
        + f"\n\nThe second round of the resident device begins {took_ms:.1f} ms after its plan came. Target: at most "
        f"{TARGET_MS:.0f} ms; **{met}**. The SuperNode takes {ratio:,.0f} times as long.\n" + NOTES
    )


def cells(name: str, runs: Runs) -> list[str]:
    """The row of one kind of device."""
    second = [run[1] for run in runs]
    later = [each for run in runs for each in run[1:]]
    return [
        name,
        str(len(runs)),
        ms([median(run[0] for run in runs)]),
        ms([median(second)]),
        ms([min(second), max(second)]),
        str(len(later)),
        ms([median(later)]),
        ms([min(later), max(later)]),
    ]


def ms(seconds: Sequence[float]) -> str:
    """Milliseconds, or a span of them."""
    return (
        " to ".join(f"{1_000 * each:,.1f}" if each < 1 else f"{1_000 * each:,.0f}" for each in seconds)
        + " ms"
    )


INTRODUCTION = """# How soon a second round begins

Written by `make bench-second-round` ({when}, {cores} cores shared with other work, load {load:.1f} at the end). The
time from the arrival of a plan at a device to the first step of training, one device at a time, on loopback, with these
settings:

```toml
{settings}```

"""

NOTES = """
The task is `digits`, and notes when its loss is first computed: the first forward pass is in the time. A plan arrives
at `slimfleet-device run` when the check-in has been answered; what follows is the download of the model, its decoding
and the first batch. In the first round torch is loaded too. A message arrives at `flower-supernode` (1.41, default
isolation) when it logs that it receives it; what follows is a new process that imports torch and the app. Log lines of
the SuperNode have no times, and are read as they come, which can only shorten what is measured there. Each start is a
new device.
"""
