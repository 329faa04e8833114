"""Page of the results, as Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from page_parts import table, when

from .outcome import Outcome, percent, times
from .targets import verdicts

INTRODUCTION = """\
Models of torchvision, timm and torch.nn with random weights and eleven classes, at the input sizes that they are made
for; each in a process of its own, on one thread. A stage that reaches its bound (60 seconds of processor time, 100 for
discovery, 9 GB of memory) or fails shows that in its cell; the stages behind it run all the same.

- **left at half width**: share of the parameters in the model that a device of width 0.5 trains. Beside it
  **torch-pruning** alone: its `MagnitudePruner` at `pruning_ratio=0.5` with the classifiers ignored, and with the heads
  of fused attention given as its examples do. "fails": it raises, or its model does not run. With \\* its model runs
  but does not train.
- **FLOPs**: forward and backward pass of one example in training mode, a multiply-add counted as two; then over a count
  by hand, from the arguments of every call that multiplies matrices.
- **discovery**: seconds of processor time for finding and testing the channel groups, nothing cached.
- **groups**: number of channel groups, and number of layers that stay whole.
- **error**: largest difference between the half-width model and the full one with those channels at zero, over the
  largest output.
- **training step**: one step of SGD at half width on a batch of two, all losses and gradients finite.
"""

COLUMNS = (
    "model",
    "parameters, M",
    "left at half width",
    "torch-pruning",
    "FLOPs, G",
    "over hand count",
    "discovery, s",
    "groups (whole)",
    "error",
    "training step",
)


def page(outcomes: Sequence[Outcome], versions: Sequence[str]) -> str:
    """Versions of the libraries, setting, results against targets, table, failures, and what stays whole."""
    parts = [
        "# Models of torchvision and timm",
        f"Written by `make bench-zoo` ({when(versions)}).",
        INTRODUCTION,
        "## Results against targets\n\n" + "\n".join(verdict.line() for verdict in verdicts(outcomes)),
        "## Models\n\n" + table(COLUMNS, [row(outcome) for outcome in outcomes]),
        "## What failed\n\n" + _failures(outcomes),
        "## What stays whole, and why\n\n" + _whole(outcomes),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def row(outcome: Outcome) -> list[str]:
    """The cells of one model."""
    numbers, failures = outcome.numbers, outcome.failures
    groups = (
        f"{numbers['groups']:.0f} ({sum(map(len, outcome.whole.values()))})" if "groups" in numbers else "–"
    )
    return [
        outcome.name,
        _number(numbers.get("parameters"), 1e6, ".2f"),
        percent(outcome.share),
        _peer(outcome),
        _number(numbers.get("flops"), 1e9, ".3g") if "FLOPs" not in failures else _short(failures["FLOPs"]),
        times(outcome.flops_ratio),
        _short(failures["discovery"])
        if "discovery" in failures
        else _number(numbers.get("discovery_s"), 1, ".1f"),
        groups,
        _number(numbers.get("error"), 1, ".1e"),
        "works" if "trained" in numbers else _short(failures.get("half width", "–")),
    ]


def _peer(outcome: Outcome) -> str:
    if outcome.peer_share is None:
        return "timeout" if outcome.failures.get("torch-pruning", "").startswith("timeout") else "fails"
    return percent(outcome.peer_share) + (" \\*" if "its training" in outcome.failures else "")


def _short(failure: str) -> str:
    """What fits into a narrow cell: the bound, or the type of the error."""
    return failure if failure.startswith("timeout") else failure.partition(":")[0]


def _failures(outcomes: Sequence[Outcome]) -> str:
    rows = [[o.name, stage, line] for o in outcomes for stage, line in o.failures.items()]
    return table(("model", "stage", "first line"), rows) if rows else "Nothing."


def _whole(outcomes: Sequence[Outcome]) -> str:
    reasons: dict[str, Counter[str]] = {}
    models: Counter[str] = Counter()
    for outcome in outcomes:
        # Behind a colon a reason names sizes of the one model.
        said = [
            (reason.partition(":")[0].replace("|", "/"), types) for reason, types in outcome.whole.items()
        ]
        for reason, types in said:
            reasons.setdefault(reason, Counter()).update(types)
        models.update({reason for reason, _ in said})
    rows = [
        [
            reason,
            str(types.total()),
            str(models[reason]),
            ", ".join(f"{t} {n}" for t, n in types.most_common(5)),
        ]
        for reason, types in sorted(reasons.items(), key=lambda item: -item[1].total())
    ]
    return table(("reason", "layers", "models", "of these types"), rows) if rows else "Nothing."


def _number(value: float | None, unit: float, form: str) -> str:
    return "–" if value is None else format(value / unit, form)
