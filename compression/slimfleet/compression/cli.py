"""Command line `slimfleet-compress`: what the codec makes of one update, and what is in a payload."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slimfleet.compression.edge.command_line import run_app
from slimfleet.compression.errors import BadInput, PayloadError

# Each command imports what it needs: help and mistakes should not wait for numpy, nor for the codec.
if TYPE_CHECKING:
    from rich.table import Table

    from slimfleet.compression.codec.operating_point import OperatingPoint


app = typer.Typer(no_args_is_help=True, add_completion=False)


@app.callback()
def _commands() -> None:
    """Compress updates of a model and look into payloads."""


@app.command(context_settings={"allow_extra_args": True})
def update(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A .npz file: name -> float array.")],
    nmse: Annotated[
        list[float] | None, typer.Option(help="Targets of squared error / squared norm; several may follow.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--bytes", help="Also: the best update of at most so many bytes.")
    ] = None,
    preset: Annotated[
        Literal["small", "fast", "portable"],
        typer.Option(help="small: fewest bytes; fast; portable: without the native coder."),
    ] = "small",
    profile: Annotated[str | None, typer.Option(hidden=True)] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="A .npz file that the other end has too and that resembles this one."),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write the payload of the last result here, for `inspect`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of results as JSON.")] = False,
) -> None:
    """Compress an update to each target error.

    Counters and the running_mean and running_var of batch norms are left out.

    The encoding speed is that of the whole search for the target.
    """
    from slimfleet.compression.codec import Coding
    from slimfleet.compression.codec.operating_point import meet_bytes, meet_nmse
    from slimfleet.compression.edge.input_files import load_reference, load_update
    from slimfleet.compression.files import write_atomically

    if profile is not None:
        raise BadInput(f"--profile is called --preset now: give --preset {profile}")
    targets = [*(nmse or []), *(_number(text) for text in context.args)]
    if not targets and size is None:
        targets = [0.3, 0.1, 0.03]
    tensors = load_update(file)
    coding = Coding(preset, None if reference is None else load_reference(reference, tensors))
    made = [meet_nmse(tensors, target, coding) for target in targets]
    if size is not None:
        made.append(meet_bytes(tensors, size, coding))
    points = [point for point, _ in made]
    if save is not None:
        write_atomically(save, made[-1][1])
    if as_json:
        print(json.dumps([point.as_dict() for point in points], indent=2))
    else:
        _show(_table(file.name, points))


@app.command()
def inspect(payload: Annotated[Path, typer.Argument(help="A file that holds one payload.")]) -> None:
    """Show what the header of a payload says."""
    from rich.table import Table

    from slimfleet.compression.wire import unseal

    try:
        data = payload.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {payload}: {error.strerror}") from error
    try:
        header = unseal(data).header
    except PayloadError as error:
        raise BadInput(f"{payload} is not a sound payload ({error.reason}): {error}") from error
    table = Table(title=payload.name, show_header=False)
    for name, value in (
        ("bytes", str(len(data))),
        ("kind", header.kind.name.lower()),
        ("coder", header.coder.name.lower()),
        ("sections", ", ".join(s.name.lower() for s in header.sections if s.name) or "none: all zeros"),
        ("schema", header.schema_digest.hex()),
        ("tensors", str(header.tensors)),
        ("elements", str(header.elements)),
        ("base version", str(header.base_version)),
        ("plan", str(header.plan_id)),
        ("side bytes", str(len(header.side))),
    ):
        table.add_row(name, value)
    _show(table)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"{text!r} is not a number: --nmse takes numbers, as in --nmse 0.3 0.1 0.03") from None


def _table(title: str, points: list[OperatingPoint]) -> Table:
    from rich.table import Table

    table = Table(title=title)
    for heading in ("target NMSE", "NMSE", "bytes", "bits/parameter", "ratio", "encode MB/s", "decode MB/s"):
        table.add_column(heading, justify="right")
    for point in points:
        table.add_row(
            "-" if point.target_nmse is None else f"{point.target_nmse:g}",
            f"{point.nmse:.4f}",
            f"{point.bytes:,}",
            f"{point.bits_per_parameter:.4f}",
            f"{32 / point.bits_per_parameter:.0f}x",
            f"{point.encode_mb_per_s:.0f}",
            f"{point.decode_mb_per_s:.0f}",
        )
    return table


def _show(table: Table) -> None:
    from rich.console import Console

    Console().print(table)


def main() -> None:
    """Entry point of `slimfleet-compress`."""
    run_app(app)


if __name__ == "__main__":
    main()
