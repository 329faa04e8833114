"""The page of the benchmark, in Markdown."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median

from page_parts import table, when
from thin_link.network import LOST_PERCENT, RATE
from thin_link.runs import IDLE_S, SETTINGS, WAYS, Cut, Round, fleet


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The run of one round whose upload was cut."""

    round: Round
    whole: Round
    """The same round, left alone."""
    cuts: Sequence[Cut]
    sent_bytes: int
    whole_sent_bytes: int
    used: int
    """How often its update was used."""
    is_same: bool
    """Whether both have published the same model."""


def wrong(interrupted: Interrupted) -> list[str]:
    """What is not as it should be: a cut upload goes on from what had come, and its update counts once."""
    offsets = [0, *(each.at_bytes for each in interrupted.cuts)]
    found = []
    if any(later < earlier for earlier, later in pairwise(offsets)) or offsets[-1] == 0:
        found.append(f"uploads went on from {offsets[1:]}")
    if interrupted.used != 1:
        found.append(f"the update was used {interrupted.used} times")
    if not interrupted.is_same:
        found.append("the model is another one")
    return found


def page(
    runs: Mapping[str, Sequence[Round]], interrupted: Interrupted, lost_share: float, control: str
) -> str:
    """What was measured, and how."""
    head = [
        "payloads", "rounds", "first round", "later rounds, median", "shortest to longest",
        "up, mean", "down, mean", "at 1 Mbit/s these take",
    ]  # fmt: skip
    rows = [cells(name, rounds) for name, rounds in runs.items()]
    faster = of_later(runs["float32"]) / of_later(runs["compressed"])
    cut_rows = [
        [str(number), WORDS[each.how], f"{each.at_bytes:,}", f"{each.at_bytes / interrupted.round.up:.0%}"]
        for number, each in enumerate(interrupted.cuts, start=1)
    ]
    settings = SETTINGS.format(
        rounds=len(runs["float32"]),
        out="out",
        idle_s=IDLE_S,
        task=fleet(Path()).task_table(),
        nmse="NMSE",
        bits="BITS",
    )
    ways = "; ".join(f"{name}: NMSE = {way['nmse']}, BITS = {way['bits']}" for name, way in WAYS.items())
    return (
        INTRODUCTION.format(
            when=when(), cores=os.cpu_count(), load=os.getloadavg()[1], rate=RATE, percent=LOST_PERCENT,
            lost=f"{lost_share:.1%}", control=control, settings=settings, ways=ways,
        )
        + table(head, rows)
        + f"\n\nRounds after the first take {faster:.1f} times as long in float32.\n"
        + CUTS
        + table(["cut", "how", "bytes that had come when it went on", "of the update"], cut_rows)
        + "\n\n"
        + said(interrupted)
    )  # fmt: skip


def said(interrupted: Interrupted) -> str:
    """What the cuts cost."""
    kept, times = wrong(interrupted), interrupted.sent_bytes / interrupted.whole_sent_bytes
    verdict = (
        f"**wrong**: {'; '.join(kept)}"
        if kept
        else "once, and the model is that of the same round left alone, byte for byte"
    )
    return (
        f"The update of {interrupted.round.up:,} bytes was used {verdict}.\nFrom the upload's begin to the end of "
        f"the run the device put {interrupted.sent_bytes:,} bytes on the link, {times:.2f} times what the round left\n"
        "alone did, with all headers and repeated packets. "
        f"The round took {interrupted.round.seconds:.0f} s, left alone {interrupted.whole.seconds:.0f} s.\n"
    )


def of_later(rounds: Sequence[Round]) -> float:
    """The median of the rounds after the first, s."""
    return median(each.seconds for each in rounds[1:])


def cells(name: str, rounds: Sequence[Round]) -> list[str]:
    """The row of one way to send."""
    later = rounds[1:]
    up, down = (fmean(getattr(each, key) for each in later) for key in ("up", "down"))
    took = [each.seconds for each in later]
    return [
        name,
        str(len(rounds)),
        f"{rounds[0].seconds:.1f} s",
        f"{of_later(rounds):.1f} s",
        f"{min(took):.1f} to {max(took):.1f} s",
        f"{up / 1e3:,.1f} kB",
        f"{down / 1e3:,.1f} kB",
        f"{(up + down) * 8 / 1e6:.1f} s",
    ]


WORDS = {"reset": "connection reset", "down": "link down"}

INTRODUCTION = """# A thin and lossy link

Written by `make bench-thin-link` ({when}, {cores} cores shared with other work, load {load:.1f} at the end). Server and
device are in two network namespaces. Their link is limited to {rate} a second each way by tbf, and nftables drops
{percent} % of the packets at either end (measured: {lost}); TCP's congestion control is {control}. The device is
`slimfleet-device run`, the server `slimfleet-coordinator serve` with an observer that notes when a round begins and
ends. A round is the time from the plan to its end: download, training, upload, aggregation. The task is Fashion-MNIST
with its CNN of 101,682 parameters, 600 examples; in the first round the device loads torch and gets the model whole.

```toml
{settings}```

{ways}.

"""

CUTS = """
## An upload that is cut three times

One round in float32, of a model of 266,610 parameters. Each time the device has put the bytes of a quarter of the
update on the link since the upload began or went on, the link is cut: for a second every packet is answered by a reset,
or the link is down for twice as long as the gateway waits for a call that does not move. Then the device asks how much
has come, and goes on there. What was in TCP's queues, behind a lost packet or in a piece of 16 KiB that had not come
whole is sent again.

"""
