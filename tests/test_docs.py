"""Documentation against the code: settings, links, the map of the house, and the Python of README.

docs/settings.md is written from the dataclasses that check scenarios and federation.toml. After a change of them:

    python tests/test_docs.py
"""

import ast
import inspect
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from math import inf
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from slimfleet.client.policy import Policy
from slimfleet.compression import Budget
from slimfleet.compression.edge.named import Named
from slimfleet.coordinator.gateway.settings import GatewaySettings, ServedTask
from slimfleet.coordinator.settings import NO_LIMIT, RENAMED, CoordinatorSettings
from slimfleet.simulations import FleetSettings, RunSettings, Scenario, TaskSettings

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "settings.md"
LONGEST_DEFAULT = 60
"""Characters of a default that fit into a cell of the table."""

INTRODUCTION = """\
# Settings

Written by `python tests/test_docs.py` from the dataclasses that check a file; a test holds the two together.

A scenario (`slimfleet-simulate FILE`) and a deployment (`federation.toml`) are TOML files with the same tables and
keys. A scenario also has `[task]`, `[fleet]` and `[run]`; without these three it is a SuperLink's `federation.toml`.
That of `slimfleet-coordinator serve` has a `[task]` and a `[gateway]` of its own; that of a Flower app
may have a `[gateway]`. A key that is left out has its default. One that is unknown, of the wrong type or out of bounds
is refused in one line that names it.

    slimfleet-simulate digits --set budget.energy_j=0.6 --set selection.policy=uniform

`--set` takes any key by its dotted name. Every run writes the file with all defaults filled in: `scenario.toml`.
"""

CLASSES = """\
`[budget.class.NAME]` overlays `[budget]` for devices whose profile says `device_class = "NAME"`. It has the same keys;
a limit that it leaves out is the common one, and `"none"` lifts a limit:

```toml
[budget]
energy_j = 2.0
uplink_bytes = 4_000

[budget.class.phone-low]
energy_j = 14.0         # uplink_bytes stays 4,000
```
"""


def page() -> str:
    """The whole page."""
    tables = [
        ("At the root", CoordinatorSettings),
        ("[selection]", type(CoordinatorSettings().selection)),
        ("[pacing]", type(CoordinatorSettings().pacing)),
        ("[budget]", Budget),
        ("[planner]", type(CoordinatorSettings().planner)),
        ("[client]", type(CoordinatorSettings().client)),
        ("[codec]", type(CoordinatorSettings().codec)),
        ("[server]", type(CoordinatorSettings().server)),
        ("[evaluation]", type(CoordinatorSettings().evaluation)),
        ("[task], in a federation that is served", ServedTask),
        ("[gateway], in a federation that is served", GatewaySettings),
        ("[task], in scenarios only", TaskSettings),
        ("[fleet], in scenarios only", FleetSettings),
        ("[fleet.policy], in scenarios only", Policy),
        ("[run], in scenarios only", RunSettings),
    ]
    parts = [INTRODUCTION]
    for heading, kind in tables:
        parts.append(f"## {heading}\n\n{_section(kind)}")
        if kind is Budget:
            parts.append(CLASSES)
    parts.append(
        "## Keys that were renamed\n\nAn old key is refused in one line that names the new one. `training.` stands "
        "for every other key of that table. `server.federation` of a Flower run-config is `name` here.\n\n"
        + _table(["old", "new"], [[f"`{old}`", f"`{new}`"] for old, new in RENAMED.items()])
    )
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section(kind: type) -> str:
    """The keys of one table."""
    words = _words(kind)
    rows, long = [], []
    for each, hint in _keys(kind):
        default = _toml(each.default if each.default is not MISSING else each.default_factory())  # type: ignore[misc]
        if len(default) > LONGEST_DEFAULT:
            long.append(f"{each.name} = {default}")
            default = "below"
        else:
            default = f"`{default}`"
        rows.append([f"`{each.name}`", default, _allowed(hint), words[each.name]])
    text = _table(["key", "default", "allowed", "meaning"], rows)
    document = " ".join((inspect.getdoc(kind) or "").split())
    about = document.partition("]`: ")[2] or document
    return "\n\n".join([about[0].upper() + about[1:], text, *(f"```toml\n{line}\n```" for line in long)])


def _keys(kind: type) -> Iterator[tuple[Field[Any], Any]]:
    """The fields that are keys, not tables, with their types."""
    hints = get_type_hints(kind, include_extras=True)
    for each in fields(kind):
        if not is_dataclass(hints[each.name]):
            yield each, hints[each.name]


def _words(kind: type) -> dict[str, str]:
    """Field -> the docstring under it, for all that have one."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    words = {}
    for statement, under in zip(body, [*body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(under, ast.Expr):
            words[ast.unparse(statement.target)] = " ".join(ast.literal_eval(under.value).split())
    return words


def _allowed(hint: Any) -> str:
    """A type and its bounds, as a person reads them."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        for named in (each for each in arguments[1:] if isinstance(each, Named)):
            return ", ".join([*(f"`{_toml(name)}`" for name in named.names), '`"module:object"`'])
        bounds = [bound for each in arguments[1:] for bound in _bound(each)]
        return ", ".join([_allowed(arguments[0]), *bounds])
    if origin is Literal:
        return ", ".join(f"`{_toml(value)}`" for value in arguments)
    if origin in (Union, UnionType):
        return (
            ", or ".join(_allowed(each) for each in arguments if each is not NoneType)
            + f', or `"{NO_LIMIT}"`'
        )
    if origin is tuple:
        inner = _allowed(arguments[0])
        return f"{'list of' if Ellipsis in arguments else len(arguments)} {_plural(inner)}"
    if origin is not None:  # a mapping
        value = "" if arguments[1] is Any else f" of {_plural(_allowed(arguments[1]))}"
        return f"table{value}"
    return {float: "number", int: "integer", str: "text", bool: "`true`, `false`"}[hint]


def _plural(words: str) -> str:
    noun, comma, bounds = words.partition(",")
    return f"{noun if noun == 'text' or noun.endswith('s') else f'{noun}s'}{comma}{bounds}"


def _bound(metadata: Any) -> list[str]:
    signs = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
    found = [
        f"{sign} {_number(getattr(metadata, key))}" for key, sign in signs.items() if hasattr(metadata, key)
    ]
    return [*found, *(["not empty"] if hasattr(metadata, "min_length") else [])]


def _number(value: float) -> str:
    powers = {2**53: "2⁵³", 2**63: "2⁶³"}
    # 3600 and 3600.0 are one bound: `typing` keeps the first of equal annotations, whatever module brought it.
    return powers.get(value, f"{int(value):,}") if value == int(value) else f"{value:g}"


def _toml(value: Any) -> str:
    """A value as a TOML file has it."""
    if value is None:
        return f'"{NO_LIMIT}"'
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(each)}" for key, each in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return "inf" if value == inf else json.dumps(value)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def test_the_page_of_settings_says_what_the_code_checks() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "write it anew: python tests/test_docs.py"


def test_the_page_of_settings_has_every_key() -> None:
    """Held against the tables of a scenario, which know nothing of how the page is written."""
    sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = {
        (re.sub(r"\W", "", section.split("\n", 1)[0].split(",")[0]), key)
        for section in sections
        for key in re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    }
    for table, values in Scenario().tables().items():
        for key in values if isinstance(values, dict) else [None]:
            if (table, key) == ("fleet", "policy"):
                assert {("fleetpolicy", each) for each in values[key]} <= shown
                continue
            assert ((table, key) if key else ("Attheroot", table)) in shown


def test_readmes_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One round of it each."""
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    shorter = code[0].replace('{"seed"', '{"rounds": "1", "run.baseline_rounds": "1", "seed"')
    assert shorter != code[0]
    monkeypatch.chdir(tmp_path)
    exec(compile(shorter, "README.md", "exec"), {})
    assert "(simulated)" in capsys.readouterr().out


def test_readmes_figures_are_those_that_commands_wrote() -> None:
    readme, results = (ROOT / "README.md").read_text(encoding="utf-8"), ROOT / "docs" / "results"
    written = (results / "quickstart.md").read_text(encoding="utf-8").splitlines()
    shown = [line for line in re.findall(r"```text\n(.*?)```", readme, re.DOTALL)[0].splitlines() if line]
    assert len(shown) >= 5
    assert [line for line in shown if line not in written] == []
    rows = re.findall(r"^\| \d \|.*$", readme, re.MULTILINE)
    assert len(rows) == 3
    written = (results / "fashion-mnist.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in written] == []


def test_pages_link_to_what_is_there() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(path for path in (ROOT / "deploy").rglob("*.md") if "node_modules" not in path.parts),
        ROOT / "tests" / "conformance" / "README.md",
    ]
    broken = [
        f"{each.relative_to(ROOT)}: {target}"
        for each in pages
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", each.read_text(encoding="utf-8"))
        if "://" not in target and not (each.parent / target).exists()
    ]
    assert broken == []


def test_the_map_names_rooms_that_are_there() -> None:
    parts = ("client", "compression", "coordinator", "simulations")
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    named = re.findall(rf"`((?:{'|'.join(parts)})/[\w/]+(?:\.\w+)?)", text)
    inside = {name: name.partition("/") for name in named if not name.startswith("compression/slimfleet")}
    missing = [
        name
        for name, (part, _, rest) in inside.items()
        if not (ROOT / part / "slimfleet" / part / rest).exists()
    ]
    assert inside
    assert missing == []


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"{PAGE} is written\n")
