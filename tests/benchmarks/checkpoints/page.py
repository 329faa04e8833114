"""Page of the results: targets, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from page_parts import when

from .large import Run
from .lossless import OURS, Case

LEAST_MB_PER_S = 100
MOST_PEAK_BYTES = 10**9


@dataclass(frozen=True)
class Verdict:
    """A target, and what was measured."""

    target: str
    measured: str
    met: bool

    def line(self) -> str:
        """As the page has it."""
        return f"- {self.target}: {self.measured}. **{'Met' if self.met else 'Missed'}.**"


def verdicts(cases: Sequence[Case], runs: Sequence[Run]) -> list[Verdict]:
    """Every target that the measurements decide."""
    found = []
    rivals = [name for name in dict.fromkeys(n for c in cases for n in c.results) if name != OURS]
    for rival in rivals[:1]:
        for dtype in dict.fromkeys(case.dtype for case in cases):
            worst, where = max(
                (case.results[OURS].bytes / case.results[rival].bytes, case.name)
                for case in cases
                if case.dtype == dtype and rival in case.results
            )
            found.append(
                Verdict(
                    f"lossless {dtype} at most 1.00x the bytes of {rival}",
                    f"worst {worst:.4f}x ({where})",
                    worst <= 1,
                )
            )
    for what in ("pack", "unpack"):
        slowest, where = min(
            (getattr(c.results[OURS], f"{what}_mb_per_s"), f"{c.name}, {c.dtype}") for c in cases
        )
        target = f"lossless {what}ing at least {LEAST_MB_PER_S} MB/s a core"
        found.append(Verdict(target, f"slowest {slowest:.0f} ({where})", slowest >= LEAST_MB_PER_S))
    packing = [run for run in runs if run.what.startswith("pack")]
    if packing:
        most = max(packing, key=lambda run: run.peak_bytes)
        target = f"packing {runs[0].file_bytes / 1e9:.1f} GB within {MOST_PEAK_BYTES / 1e9:.0f} GB of memory"
        measured = f"peak {most.peak_bytes / 1e6:.0f} MB ({most.what})"
        found.append(Verdict(target, measured, most.peak_bytes < MOST_PEAK_BYTES))
    return found


def page(cases: Sequence[Case], runs: Sequence[Run], missing: Sequence[str]) -> str:
    """The page in Markdown."""
    names = list(dict.fromkeys(name for case in cases for name in case.results))
    heads = " | ".join(f"{name}: bytes | pack | unpack" for name in names)
    lines = [
        "# Checkpoints in slim files",
        "",
        f"Written by `make bench-pack` ({when()}).",
        "",
        *(verdict.line() for verdict in verdicts(cases, runs)),
        *(f"- Not measured: {name} is not installed." for name in missing),
        "",
        "## Lossless",
        "",
        "Bytes are of a whole checkpoint: of ours the file with names, shapes, checksums and integer tensors; of the "
        "others what they make of the float tensors alone, run together. Speeds are 1e6 bytes of tensors a second of "
        "processor time over all threads, so a core's; the best of up to 50 turns, or of those within two seconds. "
        "Ours go from file to file, the others from memory to memory. A bfloat16 checkpoint is the float32 one "
        "rounded.",
        "",
        f"| weights | dtype | bytes | {heads} |",
        "| --- " * (3 + 3 * len(names)) + "|",
    ]
    for case in cases:
        cells = [case.name, case.dtype, f"{case.nbytes:,}"]
        for name in names:
            result = case.results.get(name)
            cells += (
                ["-"] * 3
                if result is None
                else [
                    f"{result.bytes:,} ({result.bytes / case.nbytes:.4f})",
                    f"{result.pack_mb_per_s:.0f}",
                    f"{result.unpack_mb_per_s:.0f}",
                ]
            )
        lines.append("| " + " | ".join(cells) + " |")
    if runs:
        lines += _large(runs)
    return "\n".join([*lines, ""])


def _large(runs: Sequence[Run]) -> list[str]:
    base = runs[0]
    lines = [
        "",
        "## A large checkpoint",
        "",
        f"{base.file_bytes:,} bytes of float32 in the shape of a Transformer, normally distributed with a scale for "
        "each row, as .safetensors; the largest tensor has 262 MB. Peak memory is the process's resident set, as the "
        "system counts it, Python and libraries included. `read and write` copies the file through a buffer and waits "
        "for the disk. Seconds depend on what else the machine does, processor seconds hardly.",
        "",
        "| command | seconds | of one pass | processor seconds | peak memory, MB | bytes written |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for run in runs:
        peak = f"{run.peak_bytes / 1e6:.0f}" if run.peak_bytes else "-"
        lines.append(
            f"| {run.what} | {run.seconds:.1f} | {run.seconds / base.seconds:.1f} | {run.processor_s:.1f} | {peak} "
            f"| {run.file_bytes:,} |"
        )
    return lines
