"""What `pip install slimfleet` takes for each role: megabytes with and without compiled files, and resident memory.

Every role gets a fresh virtual environment of slimfleet's own wheel and what it asks for, without pip and setuptools.

    make sizes
    make sizes ARGS="--only light device"
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from page_parts import table, when

ROOT = Path(__file__).parents[2]
ROLES = {
    "light": "",
    "light, with gRPC": "grpc",
    "device": "device",
    "device of a SuperNode": "flower",
    "coordinator": "coordinator",
    "coordinator on Flower": "coordinator,flower",
    "model toolbox": "model",
    "simulation": "simulation",
}
RESIDENT = {"light": ("slimfleet-device", "--help")}
"""Roles of which the memory of a command is measured, too."""


def main() -> None:
    """Print a row for each role."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=ROLES, default=list(ROLES))
    chosen = parser.parse_args().only
    rows = []
    with tempfile.TemporaryDirectory(prefix="slimfleet-sizes-") as name:
        scratch = Path(name)
        pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(scratch), str(ROOT))
        (wheel,) = scratch.glob("*.whl")
        for role in chosen:
            rows.append(measured(role, wheel, scratch / "venv"))
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    print(table(("role", "install", "MB", "MB compiled", "largest packages, MB compiled"), rows))
    print(f"\n{when()}")


def measured(role: str, wheel: Path, venv: Path) -> tuple[str, ...]:
    """The row of a role; its environment is made and removed."""
    extra = f"[{ROLES[role]}]" if ROLES[role] else ""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    python = venv / "bin" / "python"
    constraints = str(ROOT / "constraints.txt")
    pip(str(python), "install", "--no-compile", "--constraint", constraints, f"{wheel}{extra}")
    (packages,) = venv.glob("lib/python*/site-packages")
    plain = size(packages)
    subprocess.run([python, "-m", "compileall", "-q", packages], stdout=subprocess.DEVNULL, check=False)
    compiled = size(packages)
    largest = sorted(((size(each), each.name) for each in packages.iterdir()), reverse=True)[:6]
    if role in RESIDENT:
        print(f"{' '.join(RESIDENT[role])}: {peak_mb(venv, *RESIDENT[role]):.1f} MB of memory at its peak")
    shutil.rmtree(venv)
    shown = ", ".join(f"{name} {mb(count)}" for count, name in largest)
    return role, f"`slimfleet{extra}`", mb(plain), mb(compiled), shown


def pip(python: str, command: str, *arguments: str) -> None:
    """Run this environment's pip for the interpreter `python`."""
    start = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python]
    subprocess.run([*start, command, *arguments], check=True)


def peak_mb(venv: Path, command: str, *arguments: str) -> float:
    """The most memory that a command had resident, its own imports included."""
    script = str(venv / "bin" / command)
    child = os.posix_spawn(
        script,
        [script, *arguments],
        os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )
    _, status, used = os.wait4(child, 0)
    if status:
        sys.exit(f"{command} failed: {status}")
    return used.ru_maxrss * 1024 / 1e6


def size(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    return (
        path.stat().st_size
        if path.is_file()
        else sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    )


def mb(count: int) -> str:
    """Bytes as megabytes."""
    return f"{count / 1e6:,.0f}"


if __name__ == "__main__":
    main()
