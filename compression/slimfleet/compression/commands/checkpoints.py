"""Commands `slimfleet-compress pack` and `slimfleet-compress unpack`, and what `inspect` says of a slim file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slimfleet.compression.edge.command_line import Quiet
from slimfleet.compression.edge.output_files import refuse_folder
from slimfleet.compression.edge.terminal import byte_progress, show
from slimfleet.compression.errors import BadInput, PayloadError

if TYPE_CHECKING:
    from rich.table import Table

    from slimfleet.compression.packing import Lossless, SlimFile, ToError, ToRate

__all__ = ["inspect_slim", "pack", "unpack"]

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


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
    refuse_folder(out)
    begun = time.perf_counter()
    with byte_progress(f"packing {weights.name}", quiet) as progress:
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
    refuse_folder(out)
    with byte_progress(f"unpacking {file.name}", quiet) as progress:
        count = unpack_file(file, out, threads=threads, progress=progress)
    if not quiet:
        print(f"{count} tensors in {out}")


def inspect_slim(path: Path, as_json: bool) -> None:
    """Print which tensors a slim file has."""
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
                show(_slim_table(path, slim))
    except PayloadError as error:
        raise BadInput(f"{path} is not a sound slim file ({error.reason}): {error}") from error


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
