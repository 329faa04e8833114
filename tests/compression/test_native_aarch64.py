"""A 64-bit Raspberry Pi computes what this machine computes: real aarch64 Python, numpy and codec, under qemu.

Needs what tests/setup-debian.sh installs and the folder that tests/setup-aarch64.sh makes; `make test` runs both.
"""

import json
import os
import platform
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from slimfleet.compression.codec.native import build

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).parent / "machine_digests.py"
COMPILER = "aarch64-linux-gnu-gcc"
QEMU = "qemu-aarch64-static"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
PI = CACHE / "slimfleet" / "aarch64"
EM_AARCH64 = 183


def missing() -> str | None:
    """Why nothing can be said about aarch64 here, or None."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return f"cross-checked from Linux on x86-64 only, this is {sys.platform} on {platform.machine()}"
    tools = [tool for tool in (COMPILER, QEMU) if not shutil.which(tool)]
    if tools:
        return f"{', '.join(tools)} not installed: as root, bash tests/setup-debian.sh"
    setup = ROOT / "tests" / "setup-aarch64.sh"
    if not (PI / "made-by").exists() or (PI / "made-by").read_bytes() != setup.read_bytes():
        return f"{PI} is not there or not up to date: bash tests/setup-aarch64.sh {sys.executable}"
    return None


@pytest.fixture
def pi() -> Path:
    """The folder with an aarch64 Python. Its absence is a failure where SLIMFLEET_REQUIRE_AARCH64 is set, as in CI."""
    reason = missing()
    if reason is not None and os.environ.get("SLIMFLEET_REQUIRE_AARCH64"):
        pytest.fail(f"aarch64 must be tested here: {reason}")
    if reason is not None:
        pytest.skip(f"NOT TESTED on aarch64: {reason}")
    return PI


@pytest.fixture
def library(pi, tmp_path) -> Path:
    """The native coder, cross-compiled; a warning is an error."""
    return build.compile_library(tmp_path / "_slimcodec.so", [COMPILER], ["-Werror"])


def run(command: list[str], python_path: list[Path], **environ: str) -> str:
    """What the command prints. It sees of the environment only what is given."""
    environ |= {"PYTHONPATH": os.pathsep.join(map(str, python_path)), "PATH": os.environ["PATH"]}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout


def run_on_pi(pi: Path, library: Path, *arguments: str) -> str:
    return run(
        [QEMU, "-L", str(pi), str(pi / "usr/bin/python3.11"), *arguments],
        [ROOT / "compression", pi / "site-packages"],
        SLIMFLEET_NATIVE_LIBRARY=str(library),
        # Compiled once and kept beside the packages; the checkout stays clean.
        PYTHONPYCACHEPREFIX=str(pi / "pycache"),
    )


@pytest.mark.slow
def test_aarch64_computes_what_this_machine_computes(pi, library):
    elf = library.read_bytes()
    assert elf[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", elf, 18) == (EM_AARCH64,)
    here = json.loads(run([sys.executable, str(SCRIPT)], [ROOT / "compression"]))
    there = json.loads(run_on_pi(pi, library, str(SCRIPT)))
    assert there["machine"] == "aarch64"
    assert here["native"] == there["native"]
    assert here["digests"].keys() == there["digests"].keys()
    for words, count in (
        ("golden", 7),
        ("portable", 2),
        ("fast with reference", 24),
        ("small trellis with reference", 8),
    ):
        assert sum(words in name for name in here["digests"]) == count
    # Named one by one when it fails.
    assert [name for name, digest in here["digests"].items() if digest != there["digests"][name]] == []
    # There is no wheel of constriction for it: the codec reads all the same, and says what writing takes.
    assert "constriction" in there["portable"]
    assert "apt-get install gcc libc6-dev" in there["portable"]
