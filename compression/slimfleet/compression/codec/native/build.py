"""Build of the native coder: `python build.py` puts the library beside the sources, where `library.py` looks for it.

Needs nothing but the standard library and a C compiler, since `hatch_build.py` runs it before anything is installed.
Imports stand inside functions: `library.py` takes names from here whenever the codec is imported.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
LIBRARY = "_slimcodec" + {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
BESIDE = HERE / LIBRARY
PORTABLE_VARIABLE = "SLIMFLEET_PORTABLE"
"""1: install, and run, without the native coder."""
LIBRARY_VARIABLE = "SLIMFLEET_NATIVE_LIBRARY"
"""Path of a library to load instead of the installed one, for example one built with sanitisers."""
INSTALL_COMPILER = "install a C compiler (Debian: apt-get install gcc libc6-dev) and then slimfleet again"
WAYS_OUT = f"{INSTALL_COMPILER}, or set {PORTABLE_VARIABLE}=1 to do without the native coder"

# The same bytes on every machine: no contraction to fused multiply-add, no reordering of floating-point sums.
FLAGS = (
    "-O3",
    "-std=c11",
    "-shared",
    "-fPIC",
    "-ffp-contract=off",
    "-fno-fast-math",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Werror=implicit-function-declaration",
    "-Werror=implicit-int",
    "-Werror=int-conversion",
    "-Werror=incompatible-pointer-types",
)


class BuildError(Exception):
    """The library could not be compiled; the message says what to do."""


def sources() -> list[Path]:
    """The C files, in an order that does not depend on the machine."""
    return sorted(HERE.glob("*.c"))


def compiler(environ: Mapping[str, str] = os.environ) -> list[str]:
    """CC from the environment, else the compiler that Python was built with, else cc, gcc or clang.

    Raises BuildError when there is none.
    """
    import shlex
    import shutil
    import sysconfig

    named = environ.get("CC")
    built_with = sysconfig.get_config_var("CC") or "cc"
    for command in [named] if named else [built_with, "cc", "gcc", "clang"]:
        words = shlex.split(command)
        if words and shutil.which(words[0], path=environ.get("PATH")):
            return words
    missing = f"CC={named} is not a command" if named else "there is no C compiler"
    raise BuildError(f"slimfleet's native coder cannot be built, {missing}: {WAYS_OUT}")


def compile_library(target: Path, cc: Sequence[str], extra: Sequence[str] = ()) -> Path:
    """Compile every C file into the shared library `target`, with `extra` flags after our own; returns `target`.

    What was there before is replaced in one step, so a process that has it loaded keeps the old one. Raises
    BuildError with what the compiler said.
    """
    import subprocess

    fresh = target.with_name(f"{target.name}.{os.getpid()}.new")
    command = [*cc, *FLAGS, *extra, *map(str, sources()), "-o", str(fresh)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BuildError(
                f"{done.stderr}\nslimfleet's native coder cannot be built, {cc[0]} failed (see above): {WAYS_OUT}"
            )
        sys.stderr.write(done.stderr)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    return target


def main() -> None:
    """Command line: `build.py [--out FILE] [EXTRA FLAGS]`; CC names the compiler."""
    import argparse

    parser = argparse.ArgumentParser(description="compile slimfleet's native coder; CC names the compiler")
    parser.add_argument("--out", type=Path, default=BESIDE)
    options, extra = parser.parse_known_args()
    try:
        print(compile_library(options.out, compiler(), extra))
    except BuildError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
