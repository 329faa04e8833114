"""A package with lazy exports looks like any other, and imports no more than what is used."""

import importlib
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from slimfleet.compression.lazy import lazy_exports

INIT = """
from slimfleet.compression.lazy import lazy_exports

__all__ = ["Heavy", "light"]
__getattr__, __dir__ = lazy_exports(__name__, {"Heavy": "lazy_sample.heavy", "light": "lazy_sample.other"})
"""


@pytest.fixture
def sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of two modules; the name of the package."""
    folder = tmp_path / "lazy_sample"
    folder.mkdir()
    (folder / "__init__.py").write_text(INIT)
    (folder / "heavy.py").write_text("class Heavy:\n    pass\n")
    (folder / "other.py").write_text("def light():\n    return 3\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("lazy_sample", "lazy_sample.heavy", "lazy_sample.other"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "lazy_sample"


def test_a_module_is_imported_when_a_name_of_it_is_used(sample: str) -> None:
    package = importlib.import_module(sample)
    assert "lazy_sample.heavy" not in sys.modules
    assert package.Heavy is importlib.import_module("lazy_sample.heavy").Heavy
    assert "lazy_sample.other" not in sys.modules
    assert package.light() == 3


def test_star_imports_dir_and_pickles_work_as_with_plain_imports(sample: str) -> None:
    package = importlib.import_module(sample)
    assert {"Heavy", "light", "__name__"} <= set(dir(package))
    namespace: dict[str, object] = {}
    exec(f"from {sample} import *", namespace)
    assert {"Heavy", "light"} <= namespace.keys()
    assert pickle.loads(pickle.dumps(package.Heavy)) is package.Heavy


def test_an_unknown_name_is_an_attribute_error(sample: str) -> None:
    package = importlib.import_module(sample)
    with pytest.raises(AttributeError, match="'lazy_sample' has no attribute 'Absent'"):
        _ = package.Absent
    assert not hasattr(package, "Absent")


def test_a_name_that_its_own_submodule_would_hide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"simulate would be hidden"):
        lazy_exports("fleet", {"simulate": "fleet.simulate"})


@pytest.mark.parametrize("part", ["client", "compression", "coordinator", "simulations"])
def test_importing_a_part_loads_no_heavy_library(part: str) -> None:
    code = f"import sys, slimfleet.{part}; print(sorted({{'torch', 'flwr', 'ray', 'sklearn'}} & sys.modules.keys()))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
