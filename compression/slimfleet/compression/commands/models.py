"""Commands `slimfleet-compress model` and `slimfleet-compress techniques`."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slimfleet.compression.edge.command_line import (
    ImportFrom,
    Quiet,
    TaskArguments,
    interruptible,
    json_text,
    keyword_arguments,
    stdout_kept_clean,
)
from slimfleet.compression.edge.terminal import progress

if TYPE_CHECKING:
    from rich.table import Table

    from slimfleet.compression.model.compress import Compressed

__all__ = ["model", "techniques"]

MOST_WHOLE = 3
"""Layers left whole that are named on the terminal."""

Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder for the model and what is said of it.")
]


def model(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            metavar="CHECKPOINT", help="Trained weights: .safetensors, .pt, .npz or a model.slim."
        ),
    ],
    task: Annotated[str, typer.Option(help="A built-in task, or module:object.")],
    out: Out,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="What the model may have at most: size, parameters, flops, memory, latency or energy, as a share "
            "(size=0.1) or with a unit (latency=5ms); several times for several."
        ),
    ] = None,
    max_loss: Annotated[float, typer.Option(min=0, help="Points of accuracy that may be lost.")] = 1.0,
    recipe: Annotated[
        str | None, typer.Option(help="Techniques in order, as in 'prune: share=0.6; quantise: weights=4'.")
    ] = None,
    minutes: Annotated[
        float, typer.Option(min=0, help="Time for training, where a recipe is searched for.")
    ] = 10.0,
    train: Annotated[float, typer.Option(min=0, metavar="EPOCHS", help="Train the model before.")] = 0.0,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="A trained model of the task to learn from, for soft labels; several times.",
        ),
    ] = None,
    teacher_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE", help="An option of the task that differs for teachers, as in model=minilm."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device profile whose joules are reported.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="What is drawn, is drawn from it.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print summary.json.")] = False,
    option: TaskArguments = None,
    import_from: ImportFrom = None,
    quiet: Quiet = False,
) -> None:
    """Make a trained model small, to targets, and prove it.

    Without a recipe one is searched for: what fits the targets is measured,
    and trained in turns. An interrupted search goes on with the same command.

    DIR gets model.slim, model.safetensors, summary.json and report.html. Exit
    code 1 where a target or the allowed loss is missed; the best model found is
    written all the same.

    For example:
      slimfleet-compress model net.pt --task digits --target size=0.1 --out small
      slimfleet-compress model net.pt --task digits --recipe quantise --out small
    """
    with interruptible():
        from slimfleet.compression.model.compress import Request, compress
        from slimfleet.compression.model.evaluation.device_costs import profile_named
        from slimfleet.compression.model.outputs import read_checkpoint, write_outputs
        from slimfleet.compression.model.recipes.recipe import recipe_of
        from slimfleet.compression.model.summary import summary_of
        from slimfleet.compression.model.target import target_of
        from slimfleet.compression.model.training.tuning import Tuning

    learnt = 0.7 if teacher else 0.0
    training = Tuning(epochs=train, optimizer="adamw", learning_rate=0.002, soft_labels=learnt)
    request = Request(
        targets=tuple(target_of(text) for text in target or ()),
        max_loss=max_loss,
        recipe=None if recipe is None else recipe_of(recipe),
        minutes=minutes,
        train=training if train else None,
        device=None if device is None else profile_named(device),
        seed=seed,
    )
    with stdout_kept_clean():
        loaded = _task(task, option, import_from, seed)
        trained = read_checkpoint(checkpoint, loaded)
        of_teachers = _task(task, [*(option or ()), *(teacher_option or ())], import_from, seed)
        request = replace(
            request, teachers=tuple(read_checkpoint(path, of_teachers) for path in teacher or ())
        )
    with progress(quiet) as told:
        compressed = compress(trained, loaded, request, out, told)
    write_outputs(compressed, out, shlex.join(["slimfleet-compress", *sys.argv[1:]]))
    if as_json:
        print(json_text(summary_of(compressed)))
    elif not quiet:
        _show(compressed, out)
    raise typer.Exit(0 if compressed.met else 1)


def techniques(
    as_json: Annotated[bool, typer.Option("--json", help="Print a list as JSON.")] = False,
) -> None:
    """List the techniques that a recipe may name, with their settings, defaults and ranges."""
    from rich.console import Console

    from slimfleet.compression.model.listing import listing

    entries = listing()
    if as_json:
        print(json.dumps(entries, indent=2))
        return
    console = Console()
    for each in entries:
        console.print(f"[bold]{each['name']}[/bold]  {each['summary']} ({each['stage']})", highlight=False)
        for setting in each["settings"]:
            console.print(
                f"    {setting['name']}={setting['default']}  {setting['range']}",
                highlight=False,
                markup=False,
            )


def _task(reference: str, option: list[str] | None, import_from: list[Path] | None, seed: int) -> Any:
    from slimfleet.compression.edge.task_loader import BUILT_IN, existing_folders, load_task, make_importable

    make_importable(existing_folders(import_from or [Path()]))
    return load_task(reference, BUILT_IN, partitions=1, seed=seed, options=keyword_arguments(option))


def _show(compressed: Compressed, out: Path) -> None:
    from rich.console import Console

    from slimfleet.compression.model.summary import bound_of, lost

    console = Console()
    console.print(_table(compressed))
    before, after = compressed.before, compressed.after
    console.print(
        f"{out / 'model.slim'}: {after.bytes:,} bytes, 1/{before.bytes / after.bytes:.3g} of float32; "
        f"{lost(compressed)} on test data",
        highlight=False,
        markup=False,
    )
    for line in _whole(compressed):
        console.print(line, highlight=False, markup=False)
    if bound := bound_of(compressed):
        console.print(f"missed: {bound}", style="red", highlight=False, markup=False)


def _whole(compressed: Compressed) -> Iterator[str]:
    """Lines on layers that a step left whole and no other changed, those that take most bytes of the file."""
    from slimfleet.compression.model.saving.stored import bytes_of_layer

    changed = {each.layer for step in compressed.steps for each in step.report.changed}
    left = [
        (bytes_of_layer(compressed.layers, each.layer), step.step.technique, each)
        for step in compressed.steps
        for each in step.report.whole
        if each.layer not in changed
    ]
    left.sort(key=lambda item: -item[0])
    for size, technique, each in left[:MOST_WHOLE]:
        yield f"left whole by {technique}: {each.layer}, {size:,.0f} bytes of the file ({each.change})"
    if len(left) > MOST_WHOLE:
        yield f"and {len(left) - MOST_WHOLE} more: report.html lists them"


def _table(compressed: Compressed) -> Table:
    """A row a step: what it gave, measured on validation data."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="Each step, accuracy on validation data", title_justify="left")
    table.add_column("step", overflow="fold")
    for name in ("bytes", "parameters", "non-zero", "FLOPs", "accuracy"):
        table.add_column(name, justify="right")
    rows = [("before", compressed.before), *((escape(str(s.step)), s.after) for s in compressed.steps)]
    for name, each in rows:
        accuracy = "" if each.accuracy is None else f"{100 * each.accuracy:.2f} %"
        table.add_row(
            name,
            f"{each.bytes:,}",
            f"{each.parameters:,}",
            f"{each.nonzero:,}",
            f"{each.flops:,.0f}",
            accuracy,
        )
    return table
