"""Entry points of the four commands, also as `python -m slimfleet COMMAND`.

Nothing is imported before Ctrl-C can be answered. (A namespace package may have a `__main__`, but no `__init__`.)
"""

import sys
from importlib import import_module
from typing import NoReturn

COMMANDS = {
    "simulate": "slimfleet.simulations.cli",
    "compress": "slimfleet.compression.cli",
    "device": "slimfleet.client.cli",
    "coordinator": "slimfleet.coordinator.cli",
}


def simulate() -> NoReturn:
    """`slimfleet-simulate`."""
    _run("simulate")


def compress() -> NoReturn:
    """`slimfleet-compress`."""
    _run("compress")


def device() -> NoReturn:
    """`slimfleet-device`."""
    _run("device")


def coordinator() -> NoReturn:
    """`slimfleet-coordinator`."""
    _run("coordinator")


def _run(command: str) -> NoReturn:
    try:
        main = import_module(COMMANDS[command]).main
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    main()
    raise AssertionError("a command exits by itself")


def _dispatch() -> NoReturn:
    """Run the command that the first argument names."""
    name, *rest = sys.argv[1:] or [""]
    if name in COMMANDS:
        sys.argv[1:] = rest
        _run(name)
    usage = f"usage: python -m slimfleet {{{','.join(COMMANDS)}}} ...; each answers to --help"
    if name in ("-h", "--help"):
        print(usage)
        sys.exit(0)
    print(f"error: {name!r} is not a command; {usage}" if name else usage, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    _dispatch()
