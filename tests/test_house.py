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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PARTS = ("client", "compression", "coordinator", "simulations")
PINNED = Path(__file__).parent / "public_names.txt"
FLOWER_PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy"}
FLOWER_INTERNAL = {"simulations/slimfleet/simulations/grids/flower.py"}
HEAVY = {"torch", "flwr", "ray", "matplotlib", "sklearn"}
MOST_PARAMETERS = 7
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


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


def imports(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every import of a file: the module, and the names that are taken from it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            yield node.module or "", tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)


def test_flower_internals_are_touched_in_one_file_only() -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if any(name.split(".")[0] == "flwr" and name not in FLOWER_PUBLIC for name, _ in imports(path))
    }
    assert found <= FLOWER_INTERNAL


def test_what_an_operator_copies_uses_public_names_only() -> None:
    """A name that a package lists is kept; a module's path or a private name may change with any commit."""
    public = {module.__name__: set(module.__all__) for module in public_modules()}
    ours = [
        (path.name, module, names)
        for path in (ROOT / "deploy").rglob("*.py")
        for module, names in imports(path)
        if module.split(".")[0] == "slimfleet"
    ]
    assert ours
    for path, module, names in ours:
        assert names, f"{path}: import names from {module}"
        assert set(names) <= public.get(module, set()), f"{path}: {module} has no public {', '.join(names)}"


def test_no_function_takes_more_than_seven_parameters() -> None:
    """Apart from command lines, where a parameter is an option, and `forward`, which torch calls."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in [*sources(), *(ROOT / "deploy").rglob("*.py")]
        if path.name != "cli.py"
        and "commands" not in path.parts
        and path.parts[-2:] != ("edge", "options.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name != "forward"
        and len(parameters(node.args)) > MOST_PARAMETERS
    ]
    assert found == []


def parameters(arguments: ast.arguments) -> list[str]:
    """The names of a function's parameters, `self` and `cls` left out."""
    single = [arguments.vararg, arguments.kwarg]
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *filter(None, single)]
    return [each.arg for each in every if each.arg not in ("self", "cls")]


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


def in_processes(commands: Mapping[str, Sequence[str | Path]]) -> dict[str, tuple[int, str]]:
    """Run them all at once: exit code and output of each."""
    running = {
        name: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for name, command in commands.items()
    }
    said = {name: process.communicate(timeout=120)[0] for name, process in running.items()}
    return {name: (running[name].returncode, said[name]) for name in commands}


def test_every_command_answers_help() -> None:
    answers = in_processes({name: [Path(sys.executable).parent / name, "--help"] for name in SCRIPTS})
    assert len(answers) == 4
    for name, (code, said) in answers.items():
        assert code == 0, f"{name}: {said}"
        assert "Usage" in said
        assert name in said


HELP = """
import atexit, sys
from {module} import {function}
heavy = {heavy}
atexit.register(lambda: print("loaded:", sorted(heavy & sys.modules.keys())))
sys.argv = ["{name}", "--help"]
{function}()
"""


def test_help_loads_no_heavy_library() -> None:
    """torch alone takes seconds, on a Raspberry Pi ten of them."""
    codes = {}
    for name, entry in SCRIPTS.items():
        module, function = entry.split(":")
        codes[name] = HELP.format(module=module, function=function, name=name, heavy=HEAVY)
    for name, (code, said) in in_processes({n: [sys.executable, "-c", c] for n, c in codes.items()}).items():
        assert code == 0, f"{name}: {said}"
        assert said.splitlines()[-1] == "loaded: []", name


WITHOUT_FLOWER = f"""
import sys
sys.modules["flwr"] = None
sys.path.insert(0, {str(ROOT / "tests" / "simulations")!r})
import slimfleet.client, slimfleet.compression, slimfleet.coordinator
from slimfleet.simulations import load_scenario
from slimfleet.simulations.in_process import InProcess
small = {{
    "task.name": "points:Points", "fleet.devices": "4", "selection.per_round": "4", "fleet.dropout": "0.0",
    "fleet.availability": "1.0", "selection.battery_floor": "0.0", "rounds": "1",
}}
print(InProcess.of(load_scenario("digits", small)).round().row.completed)
"""


def test_devices_and_rounds_work_without_flower() -> None:
    """Flower is an extra: a device that is reached otherwise, and a federation in one process, do without."""
    assert in_processes({"round": [sys.executable, "-c", WITHOUT_FLOWER]})["round"] == (0, "4\n")


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
