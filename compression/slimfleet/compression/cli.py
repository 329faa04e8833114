"""Command line `slimfleet-compress`: updates to payloads, checkpoints to slim files, models to small models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimfleet.compression.commands.checkpoints import inspect_slim, pack, unpack
from slimfleet.compression.commands.models import model, techniques
from slimfleet.compression.commands.payloads import decode, inspect_payload, update
from slimfleet.compression.edge.command_line import Version, command_app, run_app
from slimfleet.compression.errors import BadInput

app = command_app(no_args_is_help=True)
app.command()(model)
app.command()(techniques)
app.command(context_settings={"allow_extra_args": True})(update)
app.command()(pack)
app.command()(unpack)


@app.callback()
def _commands(version: Version = False) -> None:
    """Compress updates and checkpoints of models, look into what was made, and turn it into tensors again."""


@app.command()
def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A payload, or a slim file as `pack` writes it.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show what the header of a payload says, or which tensors a slim file has."""
    from slimfleet.compression.packing.layout import MAGIC

    if _starts_with(file, MAGIC):
        inspect_slim(file, as_json)
    else:
        inspect_payload(file, as_json)


app.command()(decode)


def _starts_with(path: Path, magic: bytes) -> bool:
    try:
        if path.exists() and not path.is_file():
            raise BadInput(f"cannot read {path}: it is not a file")
        with path.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}") from error


def main() -> None:
    """Entry point of `slimfleet-compress`."""
    run_app(app, "slimfleet-compress")


if __name__ == "__main__":
    main()
