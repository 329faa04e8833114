"""Both clients pass the conformance vectors, and the vectors are what `make.py` makes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from make import VECTORS, vectors
from node_client import CLIENT, node
from python_client import RUNS, check_update


def document(name: str) -> dict:
    return json.loads((VECTORS / f"{name}.json").read_bytes())


def cases(name: str) -> int:
    """How many cases a document has."""
    lists = [value for key, value in document(name).items() if key not in ("schemas", "groups")]
    return sum(map(len, lists))


def test_the_vectors_are_what_the_generator_makes() -> None:
    made = vectors()
    there = {path.relative_to(VECTORS).as_posix() for path in VECTORS.rglob("*") if path.is_file()}
    assert there == set(made)
    for path, content in made.items():
        assert (VECTORS / path).read_bytes() == content, path


@pytest.mark.parametrize("name", RUNS)
def test_the_python_client_passes(name: str) -> None:
    assert cases(name) >= 16
    assert list(RUNS[name](document(name))) == []


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, int], Path]:
    """The Node.js client's run: what passed, and the folder of what it encoded."""
    updates = tmp_path_factory.mktemp("updates")
    command = [node(), CLIENT / "conformance.js", "--updates", updates]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), updates


def test_the_node_client_passes(ran: tuple[dict[str, int], Path]) -> None:
    assert ran[0] == {name: cases(name) for name in RUNS}


def test_what_the_node_client_encodes_is_what_the_python_decoder_reads(
    ran: tuple[dict[str, int], Path],
) -> None:
    encoded = document("encode")["cases"]
    for number, case in enumerate(encoded):
        payload = (ran[1] / f"{number}.payload").read_bytes()
        assert list(check_update(case, payload)) == []
    assert len(list(ran[1].iterdir())) == len(encoded)


def test_a_vector_that_is_wrong_is_found() -> None:
    spoiled = document("decode")
    spoiled["cases"] = spoiled["cases"][:2]
    spoiled["cases"][0]["header"]["base_version"] += 1
    spoiled["cases"][1]["expected_integers"]["norm.num_batches_tracked"] = ["301"]
    assert len(list(RUNS["decode"](spoiled))) == 2
