"""Commands `slimfleet-compress update` and `slimfleet-compress decode`, and what `inspect` says of a payload."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from slimfleet.compression.edge.command_line import Quiet
from slimfleet.compression.edge.logs import say
from slimfleet.compression.edge.output_files import refuse_folder, writing
from slimfleet.compression.edge.terminal import progress, show
from slimfleet.compression.errors import BadInput, PayloadError

if TYPE_CHECKING:
    from rich.table import Table

    from slimfleet.compression.codec.operating_point import OperatingPoint

__all__ = ["decode", "inspect_payload", "update"]

PayloadFile = Annotated[Path, typer.Argument(metavar="PAYLOAD", help="A file that holds one payload.")]


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
        refuse_folder(save)
    loaded = load_update(file)
    tensors = loaded.tensors
    shapes = {name: array.shape for name, array in tensors.items()}
    coding = Coding(preset, None if reference is None else load_reference(reference, shapes))
    stages, done = STAGES * (len(targets) + (size is not None)), count(1)
    with progress(quiet) as told:

        def stage_done() -> None:
            told(f"coding {file.name}", next(done), stages)

        try:
            made = [meet_nmse(tensors, target, coding, stage_done) for target in targets]
            if size is not None:
                made.append(meet_bytes(tensors, size, coding, stage_done))
        except PayloadError as error:
            raise BadInput(f"{file} cannot be coded ({error.reason}): {error}") from error
    points = [point for point, _ in made]
    if save is not None:
        with writing(save):
            write_atomically(save, made[-1][1])
    if not quiet:
        for remark in loaded.remarks:
            say(f"{file.name}: {remark}")
    if as_json:
        print(json.dumps([point.as_dict() for point in points], indent=2))
    else:
        show(_table(file.name, points, loaded.nbytes))


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
    refuse_folder(out)
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
    with writing(out):
        write_tensors(out, tensors)
    if not quiet:
        print(f"{len(tensors)} tensors in {out}")


def inspect_payload(payload: Path, as_json: bool) -> None:
    """Print what the header of a payload says."""
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
    show(table)


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
