"""The house rules that no other tool keeps (ruff, mypy and import-linter keep the rest).

After a change of the public names on purpose, write them down again:

    python tests/test_house.py
"""

import ast
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("client", "compression", "coordinator", "simulations")
PINNED = Path(__file__).parent / "public_names.txt"
FLOWER_PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}
FLOWER_INTERNAL = {"simulations/slimfleet/simulations/grids/flower.py"}


def sources() -> Iterator[Path]:
    for part in PARTS:
        yield from sorted((ROOT / part / "slimfleet" / part).rglob("*.py"))


def packages() -> list[str]:
    """Every package of the four parts, by its dotted name."""
    inits = [path for path in sources() if path.name == "__init__.py"]
    return [".".join(path.relative_to(ROOT).parts[1:-1]) for path in inits]


def public_modules() -> list[ModuleType]:
    modules = [importlib.import_module(name) for name in packages()]
    return [module for module in modules if hasattr(module, "__all__")]


def public_names() -> list[str]:
    return sorted(f"{module.__name__}.{name}" for module in public_modules() for name in module.__all__)


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in listing.stdout.split("\0") if name]


def test_the_outer_folders_are_source_roots_and_not_packages() -> None:
    """`compression/__init__.py` would break `import gzip` from Python 3.14 on, a `slimfleet/__init__.py`
    would hide the other three parts, and a module beside them would be importable by its bare name."""
    for part in PARTS:
        assert [path.name for path in (ROOT / part).iterdir() if path.name != "__pycache__"] == ["slimfleet"]
        inside = {path.name for path in (ROOT / part / "slimfleet").iterdir()} - {"__pycache__"}
        # `python -m slimfleet` has its home in the uppermost part: a namespace package may have a `__main__`.
        assert inside == ({part, "__main__.py"} if part == "simulations" else {part})


def test_every_folder_of_modules_is_a_package() -> None:
    """import-linter sees no further than packages."""
    assert {path.parent for path in sources() if not (path.parent / "__init__.py").exists()} == set()


def test_public_names_are_those_written_down() -> None:
    assert public_names() == PINNED.read_text().split()


@pytest.mark.parametrize("part", PARTS)
def test_every_part_says_what_is_public(part: str) -> None:
    assert importlib.import_module(f"slimfleet.{part}").__all__


def test_public_names_are_sorted_exist_and_explain_themselves() -> None:
    for module in public_modules():
        # The order that ruff's RUF022 keeps: constants, classes, the rest.
        order = sorted(module.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
        assert list(module.__all__) == order, module.__name__
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                words = inspect.getdoc(value)
                # A dataclass without a docstring gets its signature for one.
                assert words, f"{module.__name__}.{name} has no docstring"
                assert not words.startswith(f"{name}("), f"{module.__name__}.{name} has no docstring"


def test_flower_internals_are_touched_in_one_file_only() -> None:
    found = set()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if any(name.split(".")[0] == "flwr" and name not in FLOWER_PUBLIC for name in names):
                found.add(path.relative_to(ROOT).as_posix())
    assert found <= FLOWER_INTERNAL


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    personal = re.compile(rb"(?<![\w.$})-])/(?:work|root|home)/")
    found = [
        path.relative_to(ROOT)
        for path in tracked_files()
        if path.is_file() and personal.search(path.read_bytes())
    ]
    assert found == []


def test_every_command_answers_help() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    running = {
        name: subprocess.Popen(
            [Path(sys.executable).parent / name, "--help"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name in scripts
    }
    answers = {name: process.communicate(timeout=120)[0] for name, process in running.items()}
    for name, said in answers.items():
        assert running[name].returncode == 0, f"{name}: {said}"
        assert "Usage" in said
        assert name in said


def test_the_codec_needs_no_torch() -> None:
    """A device with 512 MB has room for numpy, not for torch."""
    code = (
        "import sys, slimfleet.compression, slimfleet.compression.codec;"
        "print(sorted({'torch', 'flwr', 'ray', 'grpc', 'prometheus_client'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


if __name__ == "__main__":
    PINNED.write_text("\n".join(public_names()) + "\n")
