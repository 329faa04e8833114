"""Command line `slimfleet-compress`: updates to payloads, checkpoints to slim files, models to small models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from slimfleet.compression.commands.checkpoints import inspect_slim, pack, unpack
from slimfleet.compression.commands.models import model, techniques
from slimfleet.compression.commands.payloads import decode, inspect_payload, update
from slimfleet.compression.edge.command_line import command_app, run_app

app = command_app(no_args_is_help=True)
app.command()(model)
app.command()(techniques)
app.command(context_settings={"allow_extra_args": True})(update)
app.command()(pack)
app.command()(unpack)


@app.callback()
def _commands() -> None:
    """Compress updates and checkpoints of models, look into what was made, and turn it into tensors again."""


@app.command()
def inspect(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A payload, or a slim file as `pack` writes it.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Show what the header of a payload says, or which tensors a slim file has."""
    from slimfleet.compression.edge.tensor_files import head_of
    from slimfleet.compression.packing.layout import MAGIC

    if head_of(file).startswith(MAGIC):
        inspect_slim(file, as_json)
    else:
        inspect_payload(file, as_json)


app.command()(decode)


def main() -> None:
    """Entry point of `slimfleet-compress`."""
    run_app(app, "slimfleet-compress", extra="model")


if __name__ == "__main__":
    main()
