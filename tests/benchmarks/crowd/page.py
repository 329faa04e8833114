"""The page of the benchmark, in Markdown, and its picture."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from crowd.account import Account
from crowd.lossy import SHARE
from crowd.memory import Samples, of_rounds
from page_parts import table, when

FLAT = 0.05
"""Memory is flat where the last round takes so much more than the third at most."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a run."""

    devices: int
    rounds: int
    processes: int
    account: Account
    samples: Samples
    began: float
    ended: float
    differs: str
    """What of the model is not that of plain calls."""
    settings: str


def verdicts(run: Run) -> dict[str, str]:
    """What must hold, with what is wrong; empty where it holds."""
    growth = grown(run)
    lost = "" if len(run.account.given) == run.devices * run.rounds else f"{len(run.account.given)} plans"
    return {
        "every device took part in every round": lost,
        "each plan was trained once, and its update used once": "; ".join(run.account.wrong()),
        "the model is that of plain calls in one process, every bit of it": run.differs,
        f"the coordinator's memory grows by less than {FLAT:.0%} after the third round": (
            "" if growth < FLAT else f"{growth:.1%}"
        ),
    }


def grown(run: Run) -> float:
    """How much more memory the last round took than the third, as a share."""
    rounds = of_rounds(run.samples, run.account.closed_at)
    return rounds[-1] / rounds[1] - 1


def page(run: Run) -> str:
    """What was measured, and how."""
    account, memory = run.account, of_rounds(run.samples, run.account.closed_at)
    counts = [
        [name, f"{counter.total():,}", f"{len(counter):,}"]
        for name, counter in (
            ("given", account.given),
            ("trained", account.trained),
            ("reported", account.reported),
            ("accepted", account.accepted),
            ("used", account.used),
        )
    ]
    trouble = [[what, f"{count:,}"] for what, count in sorted(account.trouble.items())]
    held = [[what, "yes" if not wrong else f"**no**: {wrong}"] for what, wrong in verdicts(run).items()]
    took = [later - earlier for earlier, later in pairwise(account.closed_at)]
    return (
        INTRODUCTION.format(
            when=when(), cores=os.cpu_count(), load=os.getloadavg()[1], devices=run.devices, rounds=run.rounds,
            processes=run.processes, settings=run.settings, share=SHARE,
        )
        + table(["what must hold", "does it?"], held)
        + f"\n\nThe run took {run.ended - run.began:.0f} s from the start of the server, a round after the first "
        f"{median(took):.1f} s (median; {min(took):.1f} to {max(took):.1f} s). The coordinator's memory was "
        f"{memory[1]:.0f} MB in the third round and {memory[-1]:.0f} MB in the last, "
        f"{max(value for _, value in run.samples):.0f} MB at most.\n\n"
        + table(["plans", "times", "different ones"], counts)
        + "\n\n"
        + table(["trouble on the way", "times"], trouble)
        + NOTES
    )  # fmt: skip


def draw(run: Run, path: Path) -> None:
    """Memory over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
    axes.plot([moment - run.began for moment, _ in run.samples], [value for _, value in run.samples])
    for number, moment in enumerate(run.account.closed_at, start=1):
        axes.axvline(moment - run.began, color="grey", linewidth=0.6, alpha=0.6)
        axes.annotate(
            str(number), (moment - run.began, 0), xytext=(-3, 3), textcoords="offset points",
            ha="right", fontsize=7, color="grey",
        )  # fmt: skip
    axes.set(xlabel="seconds since the server was started; lines: a round ends", ylabel="resident memory, MB")
    axes.set_ylim(bottom=0)
    axes.grid(visible=True, axis="y", alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


INTRODUCTION = """# Two hundred devices at a gateway

Written by `make bench-crowd` ({when}, {cores} cores shared with other work, load {load:.1f} at the end). {devices}
devices at one gateway on loopback for {rounds} rounds. Each has its own certificate, connection over TLS, outbox and
share of `digits`, and trains; {processes} processes hold them, since each alone would load torch. The server is
`slimfleet-coordinator serve` with an observer that writes down the number of every plan. Links are bad: of each kind of
trouble in the last table, {share:.0%} of the calls that it can happen to. The settings:

```toml
{settings}```

![Resident memory of the coordinator over time](crowd.png)

"""

NOTES = """

*Call lost*: the device never reaches the gateway. *Answer lost*: it does, and hears nothing. *Upload cut*: a part of
the update arrives. *Report twice* and *old answer again*: what has been used is sent once more, within the round and in
a later one. To the latter the gateway says `NOT_FOUND`; a report that was the device's last is answered as a
repetition. Reports are counted where they were answered. The memory at the end is that of the report and its pictures.
"""
