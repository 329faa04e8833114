"""Page of the results, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from page_parts import table, when

from .alone import MINUTES, RECIPES, TARGETS, TUNED
from .cases import ALONE, CASES, EIGHT_BITS, Case

INTRODUCTION = """\
Every model is trained to convergence first, by the toolbox's own loop: the epoch that is best on validation data is
kept. Losses are points of test accuracy against that same model; choices are made on validation data alone. Shares are
of the trained model; **size** is that of model.slim over the float32 parameters. A cell holds the mean over seeds, with
the smallest and the largest in brackets.

![Times smaller against points lost, and bytes without training](models.png)
"""

Outcome = Mapping[str, Any]
Outcomes = Mapping[tuple[str, int], Outcome]
"""By case and seed."""


def page(found: Mapping[str, Any], versions: Sequence[str]) -> str:
    """Everything that was measured: `recipes`, `eight_bits`, `peers`, `alone` and `together`."""
    parts = [
        "# Models made small",
        f"Written by `make bench-models` ({when(versions)}).",
        INTRODUCTION,
        "## Recipes against targets\n\n" + _recipes(found["recipes"].get("", {})),
        "## 8 bits for weights and activations, without training\n\n"
        f"`{EIGHT_BITS}`, then `fold` where the model has batch normalisations; targets: size 0.26, 0.3 points.\n\n"
        + _eight_bits(found["eight_bits"].get("", {})),
        *_peers(found["peers"]),
        "## Each technique by itself\n\n" + _alone(found["alone"], found["together"].get("", {})),
        "## How the models were trained\n\n" + _trainings(),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _recipes(outcomes: Outcomes) -> str:
    rows, texts = [], []
    for case in CASES.values():
        own = _of(outcomes, case.name)
        if not own:
            rows.append([case.name, "not measured", *[""] * 6])
            continue
        met = all(_met(case, each) for each in own)
        on_average = _met(case, {key: mean(each[key] for each in own) for key in own[0] if key != "steps"})
        verdict = "met" if met else "met on average" if on_average else "missed"
        rows.append(
            [
                case.name,
                _percents([each["before"] for each in own]),
                _shares([each["parameters"] for each in own], case.parameters),
                _shares([each["flops"] for each in own], case.flops),
                _sizes([each["size"] for each in own], case.size),
                _points([each["points"] for each in own], case.loss),
                str(len(own)),
                verdict,
            ]
        )
        taught = f", taught by {', '.join(case.teachers)}" if case.teachers else ""
        texts.append(f"- {case.name}{taught}: `{case.recipe}`")
    head = ("model", "accuracy", "parameters", "FLOPs", "size", "points lost", "seeds", "")
    return table(head, rows) + "\n\nThe recipes:\n\n" + "\n".join(texts)


def _met(case: Case, outcome: Outcome) -> bool:
    return (
        outcome["parameters"] <= case.parameters
        and outcome["flops"] <= case.flops
        and outcome["size"] <= case.size
        and outcome["points"] <= case.loss
    )


def _eight_bits(outcomes: Outcomes) -> str:
    rows = []
    for case in CASES.values():
        if own := _of(outcomes, case.name):
            sizes, points = [each["size"] for each in own], [each["points"] for each in own]
            met = max(sizes) <= 0.26 and mean(points) <= 0.3
            rows.append(
                [case.name, _spread(sizes, "{:.3f}"), _spread(points, "{:.2f}"), "met" if met else "missed"]
            )
    return table(("model", "size", "points lost", ""), rows)


def _peers(found: Mapping[str, Mapping[tuple[str, int], Sequence[Outcome]]]) -> list[str]:
    titles = {
        "nncodec": "## Without training: NNCodec 2.1.3 and ours\n\nThe fewest bytes of each that lose at most 0.5 "
        "points of validation accuracy, each by its own settings. NNCodec and `pack` know weights alone; `round`, the "
        "technique, looks at 2,048 training inputs too, NNCodec's inference-optimised mode at the accuracy on 1,024. "
        "Test losses differ: speech has 240 validation examples, of which one is 0.42 points.",
        "torch_pruning": "## Channels: torch-pruning and ours\n\nEqual FLOPs, equal fine-tuning (3 epochs in five "
        "stages).",
        "torchao": "## Bits: torchao and ours\n\nWithout training, a step a channel; points of test accuracy lost. "
        "Of torchao's symmetric, affine and half-quadratic grids the one that loses least on average, of ours the "
        "default.",
    }
    tables = {peer: _bits if peer == "torchao" else _peer for peer in titles}
    return [f"{titles[peer]}\n\n{tables[peer](rows)}" for peer, rows in found.items() if rows]


def _bits(rows: Mapping[tuple[str, int], Sequence[Outcome]]) -> str:
    """A row a model and number of bits: torchao's best and our default."""
    lost: dict[tuple[str, int, int], dict[str, list[float]]] = {}
    for (case, _), each in rows.items():
        for row in each:
            place = lost.setdefault((case, row["weights"], row["activations"]), {})
            place.setdefault(row["method"], []).append(row["test_lost"])
    body = []
    for (case, weights, activations), methods in lost.items():
        theirs = min((name for name in methods if name.startswith("torchao")), key=lambda n: mean(methods[n]))
        cells = [_spread(methods[name], "{:.2f}") for name in (theirs, "quantise")]
        bits = f"{weights}, activations {activations}" if activations else str(weights)
        best = theirs.removeprefix("torchao, ")
        body.append([case, bits, f"{cells[0]} {best}", cells[1], str(len(methods["quantise"]))])
    return table(("model", "bits", "torchao", "ours", "seeds"), body)


def _peer(rows: Mapping[tuple[str, int], Sequence[Outcome]]) -> str:
    """A row a model and method, numbers averaged over seeds."""
    grouped: dict[tuple[Any, ...], list[Outcome]] = {}
    for (case, _), each in rows.items():
        for row in each:
            words = tuple(row[key] for key in ("method", "weights", "activations") if key in row)
            grouped.setdefault((case, *words), []).append(row)
    first = next(iter(grouped.values()))[0]
    words = [key for key in ("method", "weights", "activations") if key in first]
    numbers = [
        key for key in ("bytes", "flops", "parameters", "validation_lost", "test_lost") if key in first
    ]
    forms = {"bytes": "{:,.0f}", "flops": "{:.3f}", "parameters": "{:.3f}"}
    body = [
        [
            *map(str, key),
            *(_spread([row[number] for row in each], forms.get(number, "{:.2f}")) for number in numbers),
            str(len(each)),
        ]
        for key, each in grouped.items()
    ]
    names = {
        "weights": "bits, weights",
        "activations": "bits, activations",
        "flops": "FLOPs",
        "validation_lost": "points lost, validation",
        "test_lost": "points lost, test",
    }
    return table(["model", *(names.get(key, key) for key in [*words, *numbers]), "seeds"], body)


def _alone(alone: Mapping[str, Outcomes], together: Outcomes) -> str:
    head = ["technique", *ALONE]
    rows = [[name, *(_cell(_of(alone.get(name, {}), case)) for case in ALONE)] for name in RECIPES]
    found = f"a recipe found in {MINUTES:g} minutes"
    rows.append([found, *(_cell(_of(together, case)) for case in ALONE)])
    recipes = [
        f"- {case}, seed {seed}: `{each['recipe']}`"
        for (case, seed), each in together.items()
        if "recipe" in each
    ]
    reasons = sorted(
        {
            f"- {name} on {case}: {each['refused']}"
            for name, outcomes in alone.items()
            for (case, _), each in outcomes.items()
            if "refused" in each
        }
    )
    return (
        f"Where a technique trains: `{TUNED}`. A cell has times smaller, the share of the FLOPs, and points lost "
        f"(negative: gained). **No gain**: neither bytes nor FLOPs are fewer. The last row has `--target "
        f"{' --target '.join(TARGETS)}`.\n\n"
        + table(head, rows)
        + "\n\nThe recipes found:\n\n"
        + "\n".join(recipes)
        + ("\n\nRefused:\n\n" + "\n".join(reasons) if reasons else "")
    )


def _cell(own: Sequence[Outcome]) -> str:
    made = [each for each in own if "size" in each]
    if not made:
        return "refused" if own else "–"
    size, flops, points = (mean(each[key] for each in made) for key in ("size", "flops", "points"))
    pays = size < 0.99 or flops < 0.99
    return f"{1 / size:.1f}x, {flops:.2f}, {points:+.2f}" + ("" if pays else " **no gain**")


def _trainings() -> str:
    rows = [
        [case.name, case.task, ", ".join(f"{k}={v}" for k, v in case.options.items()), f"{case.training.epochs:g}",
         case.training.optimizer, f"{case.training.learning_rate:g}", case.training.precision]
        for case in {**CASES, **ALONE}.values()
    ]  # fmt: skip
    return table(("model", "task", "options", "epochs", "optimiser", "learning rate", "precision"), rows)


def _of(outcomes: Outcomes, case: str) -> list[Outcome]:
    return [outcome for (name, _), outcome in sorted(outcomes.items()) if name == case]


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) == 1:
        return form.format(values[0])
    return f"{form.format(mean(values))} ({form.format(min(values))} … {form.format(max(values))})"


def _percents(values: Sequence[float]) -> str:
    return f"{100 * mean(values):.2f} %"


def _shares(values: Sequence[float], target: float) -> str:
    return _spread(values, "{:.3f}") + ("" if target == 1 else f"; target {target:g}")


def _sizes(values: Sequence[float], target: float) -> str:
    mid, least, most = (f"1/{1 / value:.1f}" for value in (mean(values), max(values), min(values)))
    between = f" ({least} … {most})" if len(values) > 1 else ""
    return f"{mid}{between}; target 1/{1 / target:.0f}"


def _points(values: Sequence[float], target: float) -> str:
    return _spread(values, "{:.2f}") + f"; target {target:g}"
