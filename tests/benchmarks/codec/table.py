"""Page of the results, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version

from experiment import NNCODEC, OURS, OURS_SIDE, TARGETS, Case
from ours import FirstCall
from page_parts import when
from requirements import Verdict

PACKAGES = ("nncodec", "pcodec", "zstandard", "pysz", "constriction", "numpy")

INTRODUCTION = """\
Every codec codes the same arrays at the same error: squared error over squared norm of the trained tensors (NMSE).
Batch-norm statistics and counters are left out. "weights" are the tensors of two and more dimensions, without biases.

- **NNCodec** runs with dependent quantisation and row skipping. Its `lambda_scale` is swept over 0, 0.5, 1, 1.5 and 2,
  biases are coded nearly losslessly or at a quarter of the weights' step, and the best combination is taken for each
  target. Its `qp` has 16 steps an octave, since the default of 4 would be a handicap; sizes are interpolated log-log
  between the two steps around the target (that chord lies below the curve, in its favour).
- **UQ** is rounding to a uniform grid with the step tuned to the error; SZ3 has its bound tuned. EDEN and QSGD have a
  few settings, between which sizes are interpolated; a dash means that no two of them enclose the target.
- **slimfleet** payloads are complete (header and checksum), with an error of at most the target.
- Speeds are megabytes of float32 per second of processor time, one thread, warm, median of 3 to 5 turns that all codecs
  take one after another. NNCodec, EDEN and QSGD are timed at the setting nearest to the target, slimfleet at its own
  operating point; "with search" is the whole call that finds it.
"""


def page(
    cases: Sequence[Case],
    verdicts: Sequence[Verdict],
    missing: Mapping[str, str],
    about: Sequence[str],
    first: FirstCall,
    all_zero: int,
    picture: str,
) -> str:
    """The whole page."""
    versions = [f"{name} {v}" for name in PACKAGES if (v := _version(name))]
    parts = [
        "# Update codecs side by side",
        f"Written by `make bench-codec` ({when(versions)}).",
        _loud(missing),
        INTRODUCTION,
        f"![Size and speed of every codec]({picture})",
        "## Results against targets\n\n" + "\n".join(verdict.line() for verdict in verdicts),
        "## slimfleet over NNCodec\n\n" + _ratios(cases),
        _symbols(cases, first, all_zero),
        "## The updates\n\n" + "\n".join(f"- {line}" for line in about),
        *(_case(case) for case in cases),
    ]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ImportError:
        return None


def _loud(missing: Mapping[str, str]) -> str:
    if not missing:
        return ""
    return "\n".join(f"> **NOT MEASURED: {name}** ({why})." for name, why in missing.items())


def _ratios(cases: Sequence[Case]) -> str:
    head = ["update", "tensors", "NMSE"]
    columns = [(name, what) for name in OURS.values() for what in ("bytes", "encode", "decode")]
    head += [f"{name.split(', ')[1]}: {what}" for name, what in columns]
    rows = []
    for case in cases:
        for target in TARGETS:
            cells = [_times(case.ratio(target, name, NNCODEC, what)) for name, what in columns]
            rows.append([case.update, case.scope, f"{target:g}", *cells])
    return _markdown(head, rows)


def _symbols(cases: Sequence[Case], first: FirstCall, all_zero: int) -> str:
    rows = []
    for case in cases:
        for target in TARGETS:
            small = case.results[target][OURS["small"]]
            over = small.bytes / case.entropy[target] if small.bytes and case.entropy[target] else None
            side = case.ratio(target, OURS_SIDE, OURS["small"])
            rows.append([case.update, case.scope, f"{target:g}", _times(over), _times(side)])
    head = [
        "update",
        "tensors",
        "NMSE",
        "payload / order-0 entropy of its symbols",
        "with / without side information",
    ]
    return (
        "## slimfleet alone\n\n"
        f"An all-zero update of the small CNN takes {all_zero} bytes. The first call in a fresh process, of 87,864 "
        f"values and with its search, takes {1e3 * first.first:.0f} ms of processor time, {1e3 * first.extra:.1f} ms "
        f"more than the second; the imports before it {1e3 * first.imports:.0f} ms (numpy loaded before).\n\n"
        "The entropy is that of the small preset's symbols, each tensor with an ideal static table for free. The side "
        "information is the last global update, which the server holds too.\n\n" + _markdown(head, rows)
    )


def _case(case: Case) -> str:
    head = ["", *(f"NMSE {t:g}: bytes (bits/parameter) | encode | decode" for t in TARGETS)]
    names = list(dict.fromkeys(name for target in TARGETS for name in case.results[target]))
    rows = []
    for name in names:
        cells = [name]
        for target in TARGETS:
            result = case.results[target][name]
            taken = f"{result.bytes:,.0f} ({8 * result.bytes / case.parameters:.3f})" if result.bytes else "-"
            speeds = f"{_speed(result.encode)} | {_speed(result.decode)}"
            if result.search:
                speeds = (
                    f"{_speed(result.encode)} ({_speed(result.search)} with search) | {_speed(result.decode)}"
                )
            cells.append(f"{taken} | {speeds}")
        rows.append(cells)
    lines = [f"- NMSE {t:g}: {_notes(case, t)}" for t in TARGETS]
    return (
        f"## {case.update}, {case.scope}: {case.parameters:,} parameters\n\n"
        + _markdown(head, rows, columns=1 + 3 * len(TARGETS))
        + "\n\nOperating points:\n\n"
        + "\n".join(lines)
    )


def _notes(case: Case, target: float) -> str:
    chosen = [name for name in case.results[target] if name.startswith(("NNCodec", "slimfleet"))]
    return "; ".join(f"{name}: {case.results[target][name].note}" for name in chosen)


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]], columns: int | None = None) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- " * (columns or len(head)) + "|"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _times(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.3f}"


def _speed(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"
