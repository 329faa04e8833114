"""The example of one round over plain function calls does what it says."""

import re
import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "one_round" / "one_round.py"


def test_the_example_plans_trains_and_learns(capsys, monkeypatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE))["main"]()
    said = capsys.readouterr().out
    accepted = [int(size.replace(",", "")) for size in re.findall(r"accepted: ([\d,]+) bytes up", said)]
    assert len(accepted) == 4
    assert min(accepted) <= 600 < max(accepted)  # the old phone keeps its own limit
    assert "4 updates used" in said
    assert list(tmp_path.iterdir()) == []
