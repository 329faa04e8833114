"""Sections of the report page, from what a compression came to, to how to do it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimfleet.compression.model.compress import Compressed
from slimfleet.compression.model.evaluation.measuring import Measured
from slimfleet.compression.model.report.chosen import large_tensors
from slimfleet.compression.model.saving.stored import bytes_of_layer
from slimfleet.compression.model.summary import bound_of, lost, missed, summary_of
from slimfleet.compression.reporting import units
from slimfleet.compression.reporting.markup import details, escape, figure, table, tile
from slimfleet.compression.reporting.page import versions

Panels = Mapping[str, str]

NAMES: Mapping[str, str] = {
    "bytes": "bytes of model.slim",
    "parameters": "parameters",
    "nonzero": "parameters other than zero",
    "flops": "FLOPs of one example",
    "peak_memory_bytes": "peak memory, bytes",
    "latency_s": "latency on one thread of this machine",
    "energy_j": "joules of one example",
    "energy_source": "source of the joules",
    "accuracy": "accuracy on test data",
    "loss": "loss on test data",
}
MOST_ROWS = 12
"""Of a table that stands open."""


def headline(compressed: Compressed) -> str:
    """The outcome in one line, what kept it from its targets, and the big numbers."""
    before, after = compressed.before, compressed.after
    bound = bound_of(compressed)
    targets = ", ".join(str(target) for target in compressed.request.targets)
    lead = f"Task {compressed.task}; allowed: {_allowed(compressed)}"
    tests = summary_of(compressed)["before"], summary_of(compressed)["after"]
    tiles = [
        tile(
            units.data(after.bytes),
            f"model.slim; {units.data(before.bytes)} before",
            "bad" if bound else "good",
        ),
        _score(*tests),
        tile(units.plain(after.parameters), f"parameters; {units.plain(before.parameters)} before"),
        tile(units.plain(after.flops), f"FLOPs of one example; {units.plain(before.flops)} before"),
        tile(
            units.data(after.peak_memory_bytes), f"peak memory; {units.data(before.peak_memory_bytes)} before"
        ),
        tile(_milli(after.latency_s, "s"), f"latency here; {_milli(before.latency_s, 's')} before"),
    ]
    if after.energy_j is not None:
        tiles.append(
            tile(_milli(after.energy_j, "J"), f"{after.energy_source}; {_milli(before.energy_j, 'J')} before")
        )
    said = f"1/{before.bytes / after.bytes:.3g} of the bytes, {lost(compressed)}{_outcome(compressed)}"
    return (
        f"<h1>{escape(said)}</h1>"
        f'<p class="lead">{escape(lead)}{escape(f"; targets: {targets}" if targets else "")}</p>'
        + (f'<p class="notice">Missed: {escape(bound)}</p>' if bound else "")
        + f'<div class="tiles">{"".join(tiles)}</div>'
    )


def _outcome(compressed: Compressed) -> str:
    targets = ", ".join(str(target) for target in missed(compressed))
    if targets:
        return f"; missed: {targets}"
    if not compressed.met:
        return f"; more than the {_allowed(compressed)} allowed"
    return "; all targets met" if compressed.request.targets else ""


def _allowed(compressed: Compressed) -> str:
    most = compressed.request.max_loss
    if compressed.before.accuracy is None:
        return f"{most:g} % more loss"
    return f"{most:g} point{'' if most == 1 else 's'} of accuracy"


def _score(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    if after["accuracy"] is None:
        return tile(f"{after['loss']:.4g}", f"loss on test data; {before['loss']:.4g} before")
    return tile(_score_of(after), f"accuracy on test data; {_score_of(before)} before")


def _score_of(numbers: Mapping[str, Any]) -> str:
    return _cell("accuracy", numbers["accuracy"])


def _milli(value: float | None, unit: str) -> str:
    return units.UNKNOWN if value is None else f"{1000 * value:.3g} m{unit}"


def _cell(key: str, value: Any) -> str:
    """A number as exactly as it is worth."""
    if value is None:
        return units.UNKNOWN
    match key:
        case "latency_s":
            return _milli(value, "s")
        case "energy_j":
            return _milli(value, "J")
        case "accuracy":
            return f"{100 * value:.2f} %"
        case "loss":
            return f"{value:.4g}"
        case "energy_source":
            return str(value)
    return units.count(round(value))


def numbers(compressed: Compressed) -> str:
    """Before and after, and each target beside what it is about."""
    summary = summary_of(compressed)
    before, after = summary["before"], summary["after"]
    targets = {key: _limits(compressed, key) for key in NAMES}
    rows: list[tuple[str, ...]] = [
        (
            name,
            _cell(key, before[key]),
            _cell(key, after[key]),
            _share(key, before[key], after[key]),
            targets[key],
        )
        for key, name in NAMES.items()
        if after[key] is not None
    ]
    heads: tuple[str, ...] = ("", "before", "after", "after / before", "at most")
    if not any(targets.values()):
        heads, rows = heads[:-1], [row[:-1] for row in rows]
    return "<h2>Before and after</h2>" + table(heads, rows)


def _limits(compressed: Compressed, key: str) -> str:
    """The limits of a quantity, and whether they are kept; empty without a target."""
    short = missed(compressed)
    return ", ".join(
        f"{_cell(key, each.limit(compressed.before))}: {'missed' if each in short else 'met'}"
        for each in compressed.request.targets
        if each.field == key
    )


def _share(key: str, before: Any, after: Any) -> str:
    if key in ("accuracy", "loss", "energy_source") or not before or after is None:
        return ""
    return f"{after / before:.3g}"


def steps(compressed: Compressed, panels: Panels) -> str:
    """What each step gave: as a waterfall, and in numbers; `panels` is empty where there are no plots."""
    scored = compressed.before.accuracy is not None
    heads = (
        "step", "bytes", "parameters", "non-zero", "FLOPs", "peak memory", "latency",
        "accuracy" if scored else "loss", "steps of training", "time",
    )  # fmt: skip
    rows = [("before", *_row(compressed.before), "", "")]
    rows += [
        (str(s.step), *_row(s.after), units.count(s.report.steps), units.duration(s.seconds))
        for s in compressed.steps
    ]
    caption = (
        "Dark: what is left; light: what the step took away. Beside it "
        f"{'accuracy' if scored else 'loss'} on validation data."
    )
    plots = {title: panels[name] for name, title in WATERFALLS.items() if panels}
    return (
        "<h2>What each step gave</h2>"
        + (_figures(plots, caption) or MISSING)
        + table(heads, rows, words=(0,))
        + '<p class="note">Accuracy and loss of steps are on validation data.</p>'
    )


def _row(measured: Measured) -> tuple[str, ...]:
    score = "loss" if measured.accuracy is None else "accuracy"
    keys = ("bytes", "parameters", "nonzero", "flops", "peak_memory_bytes", "latency_s", score)
    return tuple(_cell(key, getattr(measured, key)) for key in keys)


def searched(compressed: Compressed, plots: Panels) -> str:
    """What a search has tried, with the Pareto front; empty where nothing was searched for."""
    tried = compressed.found.tried
    if not tried:
        return ""
    rows = [(recipe, *_row(measured)) for recipe, measured in tried.items()]
    score = "loss" if compressed.before.accuracy is None else "accuracy"
    heads = ("recipe", "bytes", "parameters", "non-zero", "FLOPs", "peak memory", "latency", score)
    return (
        "<h2>What the search has tried</h2>"
        f'<p class="lead">{len(tried)} recipes were trained, the better third for three times as long each time. '
        "What counts is validation data; test data only report.</p>"
        + _figures(plots, "Every recipe tried, those that no other beats in both, and the chosen one.")
        + details("Every recipe in numbers", table(heads, rows, words=(0,)))
    )


def sensitivity(plots: Panels) -> str:
    """How the model fares where one tensor alone is changed; empty without plots."""
    if not plots:
        return ""
    return (
        "<h2>Sensitivity</h2>"
        '<p class="lead">One tensor alone is changed, more and more, without any training, on up to 1,024 validation '
        "examples.</p>" + _figures(plots, "Of many tensors the ten that change the outcome most are named.")
    )


def looked_at(plots: Panels) -> str:
    """What the steps measured on their way; empty without plots."""
    if not plots:
        return ""
    return "<h2>What the steps measured</h2>" + _figures(plots, "On validation data.")


def layers(compressed: Compressed, panels: Panels) -> str:
    """Bits, zeros and bytes of each tensor of the file."""
    shown = len(large_tensors(compressed.layers))
    caption = (
        f"The {shown} largest of two or more dimensions; the table has all {len(compressed.layers)} tensors."
    )
    plots = {title: panels[name] for name, title in OF_TENSORS.items() if panels}
    heads = (
        "tensor",
        "shape",
        "coding",
        "bits",
        "values",
        "zeros",
        "bytes in the file",
        "bits a value there",
    )
    rows = [
        (
            each.name,
            "×".join(map(str, each.shape)) or "one",
            each.coding,
            str(each.bits),
            "" if each.values is None else units.count(each.values),
            units.percent(each.zeros / max(each.elements, 1)),
            units.count(round(each.bytes)),
            f"{each.bits_per_weight:.2f}",
        )
        for each in compressed.layers
    ]
    return (
        "<h2>Layer by layer</h2>"
        + _figures(plots, caption)
        + _folded("Every tensor in numbers", table(heads, rows), len(rows))
        + '<p class="note">Bits in the file count what a tensor takes there, its steps or codebook among it; those of '
        "a value are before entropy coding.</p>"
    )


def whole(compressed: Compressed) -> str:
    """What was changed where, and layers that were left whole, and why."""
    kept = [
        (
            s.step.technique,
            each.layer,
            each.change,
            units.count(round(bytes_of_layer(compressed.layers, each.layer))),
        )
        for s in compressed.steps
        for each in s.report.whole
    ]
    changed = [
        (s.step.technique, each.layer, each.change) for s in compressed.steps for each in s.report.changed
    ]
    heads = ("step", "layer", "")
    left = (
        _folded(
            "Every layer left whole", table((*heads, "bytes in the file"), kept, words=(0, 1, 2)), len(kept)
        )
        if kept
        else "<p>None: every step changed all layers that it is for.</p>"
    )
    every = details("Every change", table(heads, changed, words=(0, 1, 2))) if changed else ""
    return f"<h2>Layers left whole, and why</h2>{left}{every}"


def again(compressed: Compressed, command: str) -> str:
    """The recipe, the settings and the command that give this model."""
    request = compressed.request
    rows = [
        ("task", compressed.task),
        ("recipe", str(compressed.recipe)),
        ("which was", f"found in about {request.minutes:g} minutes" if request.recipe is None else "given"),
        ("targets", ", ".join(map(str, request.targets)) or "none"),
        ("may be lost", _allowed(compressed)),
        ("training before", "none" if request.train is None else f"{request.train.epochs:g} epochs"),
        ("device", "none" if request.device is None else request.device.name),
        ("seed", str(request.seed)),
        *sorted(versions().items()),
    ]
    line = f'<pre class="card">{escape(command)}</pre>' if command else ""
    return f"<h2>How to do it again</h2>{line}" + table(("settings", ""), rows, words=(1,))


def _figures(plots: Panels, caption: str) -> str:
    """Plots by title, each with the caption; empty without any."""
    if not plots:
        return ""
    drawn = [figure(title[0].upper() + title[1:], svg, caption) for title, svg in plots.items()]
    return f'<div class="plots">{"".join(drawn)}</div>'


def _folded(title: str, markup: str, rows: int) -> str:
    return details(title, markup) if rows > MOST_ROWS else markup


WATERFALLS: Mapping[str, str] = {"bytes": "Bytes of model.slim", "flops": "FLOPs of one example"}
OF_TENSORS: Mapping[str, str] = {
    "bits": "Bits of each tensor",
    "zeros": "Share of zeros",
    "sizes": "Bytes in the file",
}
"""Panel -> title."""

MISSING = (
    '<p class="notice">The plots are missing: matplotlib is not installed. It comes with the extra model: '
    "pip install 'slimfleet[model]'.</p>"
)
