"""Command line `slimfleet-compress`: updates to payloads, checkpoints to slim files, both back, and what is in them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slimfleet.compression.edge.command_line import Quiet, Version, command_app, run_app
from slimfleet.compression.errors import BadInput, PayloadError
from slimfleet.compression.model.cli import model, techniques

# Each command imports what it needs: help and mistakes should not wait for numpy, nor for the codec.
if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from slimfleet.compression.codec.operating_point import OperatingPoint
    from slimfleet.compression.packing import Lossless, SlimFile, ToError, ToRate


app = command_app(no_args_is_help=True)
app.command()(model)
app.command()(techniques)

PayloadFile = Annotated[Path, typer.Argument(metavar="PAYLOAD", help="A file that holds one payload.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.callback()
def _commands(version: Version = False) -> None:
    """Compress updates and checkpoints of models, look into what was made, and turn it into tensors again."""


@app.command(context_settings={"allow_extra_args": True})
def update(
    context: typer.Context,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Tensors by name: .npz, .npy, .safetensors or .pt.")
    ],
    nmse: Annotated[
        list[float] | None,
        typer.Option(
            help="Targets of squared error / squared norm; several may follow.", show_default="0.3 0.1 0.03"
        ),
    ] = None,
    size: Annotated[
        int | None, typer.Option("--bytes", help="Also: the best update of at most so many bytes.")
    ] = None,
    preset: Annotated[
        Literal["small", "fast", "portable"],
        typer.Option(help="small: fewest bytes; fast; portable: without the native coder."),
    ] = "small",
    profile: Annotated[str | None, typer.Option(hidden=True, help="Former name of --preset.")] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="A file of tensors that the other end has too and that resembles this one."),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(help="Write the payload of the last result here, for `inspect` and `decode`."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of results as JSON.")] = False,
    quiet: Quiet = False,
) -> None:
    """Compress an update to each target error.

    Float tensors are coded, but not the running_mean and running_var of batch norms.
    The encoding speed is that of the whole search for the target.

    For example:
      slimfleet-compress update update.npz --nmse 0.3 0.1 0.03
      slimfleet-compress update model.safetensors --bytes 20000 --save update.slim
    """
    from slimfleet.compression.codec import Coding
    from slimfleet.compression.codec.operating_point import STAGES, meet_bytes, meet_nmse
    from slimfleet.compression.edge.update_files import load_reference, load_update
    from slimfleet.compression.files import write_atomically

    if profile is not None:
        raise BadInput(f"--profile is called --preset now: give --preset {profile}")
    targets = [*(nmse or []), *(_number(text) for text in context.args)]
    if not targets and size is None:
        targets = [0.3, 0.1, 0.03]
    if save is not None:
        _refuse_folder(save)
    loaded = load_update(file)
    tensors = loaded.tensors
    shapes = {name: array.shape for name, array in tensors.items()}
    coding = Coding(preset, None if reference is None else load_reference(reference, shapes))
    with _progress(f"coding {file.name}", STAGES * (len(targets) + (size is not None)), quiet) as stage_done:
        try:
            made = [meet_nmse(tensors, target, coding, stage_done) for target in targets]
            if size is not None:
                made.append(meet_bytes(tensors, size, coding, stage_done))
        except PayloadError as error:
            raise BadInput(f"{file} cannot be coded ({error.reason}): {error}") from error
    points = [point for point, _ in made]
    if save is not None:
        with _writing(save):
            write_atomically(save, made[-1][1])
    if not quiet:
        for remark in loaded.remarks:
            print(f"{file.name}: {remark}", file=sys.stderr)
    if as_json:
        print(json.dumps([point.as_dict() for point in points], indent=2))
    else:
        _show(_table(file.name, points, loaded.nbytes))


@app.command()
def pack(
    weights: Annotated[
        Path, typer.Argument(metavar="WEIGHTS", help="A checkpoint: .safetensors, .npz or .pt.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FILE.slim", help="The file to write.")],
    nmse: Annotated[
        float | None, typer.Option(help="Squared error / squared norm that each matrix may have.")
    ] = None,
    bits: Annotated[
        float | None, typer.Option("--bits-per-parameter", help="Size of the file, in bits a parameter.")
    ] = None,
    lossless: Annotated[bool, typer.Option("--lossless", help="Bit for bit.")] = False,
    preset: Annotated[
        Literal["small", "fast"],
        typer.Option(help="small: fewest bytes; fast: some 7 % more, in a fifth of the time."),
    ] = "small",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads that code.", show_default="one a core")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a checkpoint as a small file, with or without loss.

    Tensor by tensor, so that a checkpoint may be larger than the memory. With loss, matrices and kernels go on a grid;
    vectors, which are few and act on whole channels, keep 1/16 of the error; integers stay as they are.

    For example:
      slimfleet-compress pack model.safetensors --lossless -o model.slim
      slimfleet-compress pack model.pt --bits-per-parameter 2 -o model.slim
    """
    import time

    from slimfleet.compression.packing import pack_file

    coding = _coding(nmse, bits, lossless)
    _refuse_folder(out)
    begun = time.perf_counter()
    with _byte_progress(f"packing {weights.name}", quiet) as progress:
        summary = pack_file(weights, out, coding, preset=preset, threads=threads, progress=progress)
    seconds = time.perf_counter() - begun
    made = {
        "bytes_in": weights.stat().st_size,
        "bytes": summary.bytes,
        "ratio": weights.stat().st_size / summary.bytes,
        "bits_per_parameter": 8 * summary.bytes / summary.parameters if summary.parameters else None,
        "nmse": summary.nmse,
        "seconds": seconds,
        "mb_per_s": summary.tensor_bytes / 1e6 / seconds,
    }
    if as_json:
        print(json.dumps(made, indent=2))
    elif not quiet:
        rate = (
            ""
            if made["bits_per_parameter"] is None
            else f"{made['bits_per_parameter']:.3f} bits a parameter, "
        )
        print(
            f"{out}: {summary.bytes:,} bytes of {made['bytes_in']:,}, {made['ratio']:.2f}x smaller, {rate}"
            f"NMSE {summary.nmse:.3g}, {seconds:.1f} s, {made['mb_per_s']:.0f} MB/s"
        )


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE.slim", help="What `pack` wrote.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="WEIGHTS.safetensors", help="The file to write.")
    ],
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads that decode.", show_default="one a core")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Turn a slim file into a checkpoint again, in the types that it was packed in."""
    from slimfleet.compression.packing import unpack_file

    if out.suffix != ".safetensors":
        raise BadInput(f"--out {out}: give a name that ends in .safetensors")
    _refuse_folder(out)
    with _byte_progress(f"unpacking {file.name}", quiet) as progress:
        count = unpack_file(file, out, threads=threads, progress=progress)
    if not quiet:
        print(f"{count} tensors in {out}")


@app.command()
def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A payload, or a slim file as `pack` writes it.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show what the header of a payload says, or which tensors a slim file has."""
    from slimfleet.compression.packing.layout import MAGIC

    if _starts_with(file, MAGIC):
        _inspect_slim(file, as_json)
    else:
        _inspect_payload(file, as_json)


def _inspect_payload(payload: Path, as_json: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    from slimfleet.compression.wire import unseal

    data = _payload(payload)
    try:
        header = unseal(data).header
    except PayloadError as error:
        raise BadInput(f"{payload} is not a sound payload ({error.reason}): {error}") from error
    found = {
        "bytes": len(data),
        "kind": header.kind.name.lower(),
        "coder": header.coder.name.lower(),
        "sections": ", ".join(s.name.lower() for s in header.sections if s.name) or "none: all zeros",
        "schema": header.schema_digest.hex(),
        "tensors": header.tensors,
        "elements": header.elements,
        "base version": header.base_version,
        "plan": header.plan_id,
        "side bytes": len(header.side),
    }
    if as_json:
        print(json.dumps({name.replace(" ", "_"): value for name, value in found.items()}, indent=2))
        return
    table = Table(title=escape(payload.name), show_header=False)
    for name, value in found.items():
        table.add_row(name, str(value))
    _show(table)


def _inspect_slim(path: Path, as_json: bool) -> None:
    from slimfleet.compression.packing import SlimFile

    try:
        with SlimFile.open(path) as slim:
            if as_json:
                tensors = [
                    {name: getattr(each, name) for name in each.__slots__}
                    for each in map(slim.describe, slim.names)
                ]
                print(
                    json.dumps(
                        {"bytes": path.stat().st_size, "fields": dict(slim.fields), "tensors": tensors},
                        indent=2,
                    )
                )
            else:
                _show(_slim_table(path, slim))
    except PayloadError as error:
        raise BadInput(f"{path} is not a sound slim file ({error.reason}): {error}") from error


@app.command()
def decode(
    payload: PayloadFile,
    like: Annotated[
        Path,
        typer.Option(help="A file of tensors with the same names, shapes and types as those of the payload."),
    ],
    out: Annotated[Path, typer.Option(help="Where to write the tensors: a new .npz or .safetensors file.")],
    reference: Annotated[
        Path | None, typer.Option(help="The file that --reference named when the payload was made.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Turn a payload into tensors again.

    A payload has no names, shapes or types in it: they are read from a file that has the same ones.

    For example:
      slimfleet-compress update update.npz --nmse 0.1 --save update.slim
      slimfleet-compress decode update.slim --like update.npz --out again.npz
    """
    from slimfleet.compression.codec import decode as decode_payload
    from slimfleet.compression.edge.tensor_files import SUFFIXES, write_tensors
    from slimfleet.compression.edge.update_files import load_reference, possible_schemas
    from slimfleet.compression.wire import unseal

    if out.suffix not in SUFFIXES:
        raise BadInput(f"--out {out}: give a name that ends in {' or '.join(SUFFIXES)}")
    _refuse_folder(out)
    data = _payload(payload)
    try:
        header = unseal(data).header
        schemas = list(possible_schemas(like))
        schema = next((each for each in schemas if each.digest == header.schema_digest), None)
        if schema is None:
            raise BadInput(
                f"{payload} was not made of tensors like those of {like}: it has {header.tensors} of "
                f"{header.elements:,} elements, {like.name} has "
                + " or ".join(dict.fromkeys(f"{len(s.tensors)} of {s.elements:,}" for s in schemas))
                + "; their names, shapes, types and order must agree"
            )
        shapes = {spec.name: spec.shape for spec in schema.weights}
        known = None if reference is None else load_reference(reference, shapes)
        tensors = decode_payload(data, schema, known).tensors
    except PayloadError as error:
        raise BadInput(f"{payload} cannot be decoded ({error.reason}): {error}") from error
    with _writing(out):
        write_tensors(out, tensors)
    if not quiet:
        print(f"{len(tensors)} tensors in {out}")


def _coding(nmse: float | None, bits: float | None, lossless: bool) -> Lossless | ToError | ToRate:
    from slimfleet.compression.packing import Lossless, ToError, ToRate

    if (nmse is not None) + (bits is not None) + lossless != 1:
        raise BadInput("say how: give one of --nmse, --bits-per-parameter and --lossless")
    try:
        if nmse is not None:
            return ToError(nmse)
        return Lossless() if bits is None else ToRate(bits)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadInput(f"{text!r} is not a number: --nmse takes numbers, as in --nmse 0.3 0.1 0.03") from None


def _payload(path: Path) -> bytes:
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"cannot read {path}: it is not a file")
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"cannot read {path}: it is not a file")
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error


def _refuse_folder(path: Path) -> None:
    """Raise BadInput where no file can be written under that name, before the work rather than after it."""
    if path.is_dir() or not path.name:
        raise BadInput(f"cannot write {path}: it is a folder")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def _progress(title: str, total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on stderr where that is a terminal; yields what moves it by one of `total` steps."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, TimeElapsedColumn

    console = Console(stderr=True)
    silent = quiet or not console.is_terminal
    columns = (*Progress.get_default_columns(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task(escape(title), total=total)
        yield lambda: bar.advance(task)


@contextmanager
def _byte_progress(title: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal; yields what is told the bytes done, of how many."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    silent = quiet or not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task(escape(title), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _slim_table(path: Path, slim: SlimFile) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from slimfleet.compression.foreign_text import foreign_text

    size = path.stat().st_size
    table = Table(title=f"{escape(path.name)}: {size:,} bytes", title_justify="left", box=box.SIMPLE_HEAD)
    for heading, justify in (("tensor", "left"), ("dtype", "left"), ("shape", "left"), ("coding", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for heading in ("bytes", "ratio"):
        table.add_column(heading, justify="right")
    for name in slim.names:
        each = slim.describe(name)
        coding = each.coding if each.tied_to is None else f"as {foreign_text(each.tied_to)}"
        table.add_row(
            escape(foreign_text(name)),
            each.dtype,
            " x ".join(map(str, each.shape)) or "scalar",
            escape(coding),
            f"{each.bytes:,.0f}",
            f"{slim.size_of(name) / each.bytes:.1f}x" if each.bytes else "-",
        )
    if slim.fields:
        table.caption = escape("fields: " + ", ".join(foreign_text(name) for name in slim.fields))
    return table


def _table(title: str, points: list[OperatingPoint], nbytes: int) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"{escape(title)}: {nbytes:,} bytes", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in (
        "target",
        "NMSE",
        "bytes",
        "bits per\nparameter",
        "ratio",
        "encode\nMB/s",
        "decode\nMB/s",
    ):
        table.add_column(heading, justify="right")
    for point in points:
        table.add_row(
            "-" if point.target_nmse is None else f"{point.target_nmse:g}",
            f"{point.nmse:.4f}",
            f"{point.bytes:,}",
            f"{point.bits_per_parameter:.4f}",
            f"{nbytes / point.bytes:.0f}x",
            f"{point.encode_mb_per_s:.0f}",
            f"{point.decode_mb_per_s:.0f}",
        )
    return table


def _show(table: Table) -> None:
    from rich.console import Console

    Console().print(table)


def main() -> None:
    """Entry point of `slimfleet-compress`."""
    run_app(app, "slimfleet-compress")


if __name__ == "__main__":
    main()
