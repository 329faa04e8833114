"""The native coder is built by every installation, and where it is missing a message says what to do."""

import os
import shlex
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from slimfleet.compression.codec.native import build, library
from slimfleet.compression.errors import BadInput

ROOT = Path(__file__).parents[2]
INSIDE = "slimfleet/compression/codec/native"


def test_this_installation_has_the_native_coder():
    """`make test` installs with a compiler, unless the environment says portable."""
    if os.environ.get(build.PORTABLE_VARIABLE, "0") not in ("", "0"):
        pytest.skip(f"{build.PORTABLE_VARIABLE} is set")
    assert library.require().slimcodec_abi() == library.ABI


def test_the_environment_chooses_the_library(tmp_path):
    beside = tmp_path / build.LIBRARY
    assert library.find({}, beside) is None
    beside.touch()
    assert library.find({}, beside) == beside
    assert library.find({"SLIMFLEET_PORTABLE": "0"}, beside) == beside
    assert library.find({"SLIMFLEET_PORTABLE": "1"}, beside) is None
    assert library.find({"SLIMFLEET_NATIVE_LIBRARY": "/some/where.so"}, beside) == Path("/some/where.so")


def test_no_library_means_the_portable_coder_unless_it_is_required(without_native_coder):
    without_native_coder()
    assert library.load() is None
    with pytest.raises(BadInput, match=r"apt-get install gcc libc6-dev.*SLIMFLEET_PORTABLE=1"):
        library.require()


def test_a_library_that_is_broken_foreign_or_stale_is_not_passed_over_in_silence(tmp_path, monkeypatch):
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"not a library")
    with pytest.raises(BadInput, match="cannot be loaded"):
        library.open_library(broken)
    monkeypatch.setattr(build, "sources", lambda: [source])
    source = tmp_path / "other.c"
    for code, complaint in (
        ("int nothing(void) { return 0; }", "cannot be loaded"),
        (
            '#include "slimcodec.h"\nuint32_t slimcodec_abi(void) { return 99; }',
            f"has ABI 99, .* needs {library.ABI};",
        ),
    ):
        source.write_text(code)
        built = build.compile_library(tmp_path / f"{len(code)}.so", build.compiler(), [f"-I{build.HERE}"])
        with pytest.raises(BadInput, match=complaint):
            library.open_library(built)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".c", ".so", ".so", ".so"]


@pytest.mark.parametrize("environ", [{"PATH": "/nonexistent"}, {"CC": "no-such-compiler"}])
def test_without_a_compiler_both_ways_out_are_named(environ):
    with pytest.raises(build.BuildError, match=r"apt-get install gcc libc6-dev.*SLIMFLEET_PORTABLE=1"):
        build.compiler(environ)


def test_what_the_compiler_says_is_passed_on(tmp_path, monkeypatch):
    source = tmp_path / "wrong.c"
    source.write_text("int f(void) { return undeclared(); }")
    monkeypatch.setattr(build, "sources", lambda: [source])
    target = tmp_path / build.LIBRARY
    target.write_bytes(b"the one before")
    with pytest.raises(build.BuildError, match=r"(?s)undeclared.*SLIMFLEET_PORTABLE=1"):
        build.compile_library(target, build.compiler())
    assert target.read_bytes() == b"the one before"


def build_distribution(kind: str, into: Path, **environ: str) -> list[Path]:
    pytest.importorskip("hatchling", reason="hatchling is not installed: make .venv/.installed-dev")
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(into)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environ}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return list(into.iterdir())


@pytest.mark.slow
def test_a_wheel_brings_a_library_for_every_python_3_that_compiles_without_a_warning(tmp_path):
    # Inlining less, it compiles in a quarter of the time; all of it is inlined, without a warning, for aarch64.
    strict = shlex.join([*build.compiler(), "-Werror", "-DHOT=inline"])
    (wheel,) = build_distribution("wheel", tmp_path, SLIMFLEET_PORTABLE="0", CC=strict)
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        built = archive.extract(f"{INSIDE}/{build.LIBRARY}", tmp_path)
    assert library.open_library(Path(built)).slimcodec_abi() == library.ABI
    assert not [name for name in names if name.startswith(("tests/", "hatch_build"))]


def test_a_source_distribution_brings_the_c_sources_and_no_library(tmp_path):
    (sdist,) = build_distribution("sdist", tmp_path)
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames()}
    assert {f"compression/{INSIDE}/{path.name}" for path in build.HERE.glob("*.[ch]")} <= names
    assert "hatch_build.py" in names
    assert not [name for name in names if "_slimcodec." in name or name.startswith(".venv")]
