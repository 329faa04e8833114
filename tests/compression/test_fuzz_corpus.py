"""Ten thousand committed inputs of a fuzzer, and two thousand seeded mutations, with and without sanitisers.

tests/fuzz/ has the inputs, and what finds more: `make fuzz SECONDS=600`, `make fuzz-corpus SECONDS=600`.
"""

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from slimfleet.compression.codec.native import build

ROOT = Path(__file__).parents[2]
FUZZ = ROOT / "tests" / "fuzz"
MOST_CORPUS_BYTES = 1_000_000
LEAST_COMMITTED = 10_000
INPUTS = 13_000
EXPECTED = {"None", "checksum", "counts", "entropy", "grid", "header", "nonfinite", "schema", "truncated"}
"""Reached by so many inputs on any day: the inner decoder was, and the envelope's checks were."""
SANITISED = [
    "-Og",  # compiles in less than half the time of -O1 and runs as fast
    "-DHOT=inline",  # and in an eighth of that
    "-g1",  # line numbers; variables would take longer than all else
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
]


def replay(count: int, **environ: str) -> dict:
    """What tests/fuzz/replay.py prints; a finding fails with its traceback or the sanitiser's report."""
    done = subprocess.run(
        [sys.executable, str(FUZZ / "replay.py"), str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "compression"), **environ},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return json.loads(done.stdout)


def test_the_committed_corpus_is_large_and_its_file_small():
    assert (FUZZ / "corpus.tar.xz").stat().st_size < MOST_CORPUS_BYTES
    with tarfile.open(FUZZ / "corpus.tar.xz") as archive:
        assert len(archive.getnames()) >= LEAST_COMMITTED


@pytest.mark.slow
def test_every_input_is_read_or_refused():
    reasons = replay(INPUTS)["reasons"]
    assert sum(reasons.values()) == INPUTS
    assert reasons.keys() >= EXPECTED


@pytest.fixture
def sanitisers() -> dict[str, str]:
    """Environment in which Python can load libraries with gcc's address and undefined-behaviour sanitisers."""
    found = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True)
    runtime = Path(found.stdout.strip()).resolve()
    if found.returncode != 0 or not runtime.is_absolute() or not runtime.exists():
        pytest.skip("NOT TESTED with sanitisers: gcc has no libasan here (Debian: apt-get install gcc)")
    return {
        "LD_PRELOAD": str(runtime),
        "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=16",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }


@pytest.mark.slow
def test_every_input_leaves_the_sanitisers_silent(sanitisers, tmp_path):
    library = build.compile_library(tmp_path / build.LIBRARY, ["gcc"], SANITISED)
    replayed = replay(INPUTS, **sanitisers, SLIMFLEET_NATIVE_LIBRARY=str(library))
    assert replayed["native"]
    assert sum(replayed["reasons"].values()) == INPUTS


def test_the_sanitisers_would_speak(sanitisers, tmp_path, monkeypatch):
    """The same build of a library that reads past an allocation ends the process."""
    source = tmp_path / "wrong.c"
    source.write_text(
        '#include <stdlib.h>\n#include "slimcodec.h"\n'
        "static __attribute__((noinline)) char at(volatile char *p, int n) { return p[n]; }\n"
        "uint32_t slimcodec_abi(void) { return (uint32_t)at(calloc(4, 1), 4); }\n"
    )
    monkeypatch.setattr(build, "sources", lambda: [source])
    library = build.compile_library(tmp_path / build.LIBRARY, ["gcc"], [f"-I{build.HERE}", *SANITISED])
    done = subprocess.run(
        [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(library)!r}).slimcodec_abi()"],
        env={**os.environ, **sanitisers},
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
