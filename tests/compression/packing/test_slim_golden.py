"""The format of slim files is frozen: golden files are read byte for byte, here and by hand, and written as ever."""

from pathlib import Path
from runpy import run_path

import pytest
from plain_decoder.slim import PlainSlim

from slimfleet.compression.codec.native.library import load
from slimfleet.compression.packing import SlimFile, write_slim

GOLDEN = Path(__file__).parent / "golden"
MAKE = run_path(str(GOLDEN / "make.py"))
NAMES = ("exact", "small", "fast")


def test_all_golden_files_are_known():
    assert {path.stem for path in GOLDEN.glob("*.slim")} == set(NAMES)


@pytest.mark.skipif(load() is None, reason="the native coder wrote them")
@pytest.mark.parametrize("name", NAMES)
def test_files_are_read_as_ever(name):
    with SlimFile.open(GOLDEN / f"{name}.slim") as slim:
        assert slim.fields == MAKE["FIELDS"]
        assert b"".join(slim.held(n).tobytes() for n in slim.names) == (GOLDEN / f"{name}.bytes").read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_a_reader_written_from_the_page_agrees(name):
    plain = PlainSlim((GOLDEN / f"{name}.slim").read_bytes())
    assert plain.fields == MAKE["FIELDS"]
    tensors = plain.tensors()
    expected = MAKE["exact" if name == "exact" else "searched"]()
    assert list(tensors) == [entry.name for entry in expected]
    assert b"".join(tensors.values()) == (GOLDEN / f"{name}.bytes").read_bytes()


@pytest.mark.skipif(load() is None, reason="the native coder wrote them")
def test_files_are_written_as_ever(tmp_path):
    """But for deflate, of which every zlib has its own."""
    path = tmp_path / "exact.slim"
    write_slim(path, MAKE["exact"](), MAKE["FIELDS"])
    ours, golden = (PlainSlim(p.read_bytes()) for p in (path, GOLDEN / "exact.slim"))
    assert ours.sections == golden.sections
    assert ours.records == golden.records
