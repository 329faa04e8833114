"""Sweeps and comparisons: which cells there are, what is kept, what fails, and what they come to."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from slimfleet.compression import BadInput
from slimfleet.simulations import cli
from slimfleet.simulations.sweeps.cells import cells_of
from slimfleet.simulations.sweeps.compare import compare_runs
from slimfleet.simulations.sweeps.sweep import run_sweep
from slimfleet.simulations.sweeps.sweep_file import load_sweep

HERE = Path(__file__).parent
BASE = f"""
rounds = 1
[task]
name = "points:Points"
import_from = [{json.dumps(str(HERE))}]
[fleet]
devices = 4
dropout = 0.0
availability = 1.0
[selection]
per_round = 4
battery_floor = 0.0
[planner]
batch_sizes = [8]
"""
SWEEP = """
scenario = "base.toml"
seeds = [3]
[grid]
client.learning_rate = [0.05, 0.2]
[variants.plain]
[variants.starved]
budget.energy_j = 1e-9
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A sweep file of this text beside a small scenario."""
    (tmp_path / "base.toml").write_text(BASE)

    def written(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text)
        return path

    return written


@pytest.fixture
def _without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plots take longer than these runs, and have tests of their own."""
    monkeypatch.setattr("slimfleet.coordinator.reporting.page.plots_possible", lambda extra: False)
    monkeypatch.setattr("slimfleet.simulations.sweeps.page.plots_possible", lambda extra: False)


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["slimfleet-simulate", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


BAD = {
    "no TOML": ("scenario = ", "is not TOML"),
    "unknown key": ("sceanrio = 'digits'", "did you mean 'scenario'"),
    "unknown table": ("[grids]\nrounds = [1]", "did you mean 'grid'"),
    "no scenario": ("scenario = 'nowhere'", "no scenario is called 'nowhere'"),
    "no list": ("[grid]\nrounds = 3", "grid.rounds = 3: must be a list"),
    "empty list": ("[grid]\nrounds = []", "must be a list of at least one value"),
    "twice": ("[grid]\nrounds = [1, 2, 1]", "grid.rounds has 1 twice"),
    "no seeds": ("seeds = []", "seeds = []"),
    "seed of its own": ("[grid]\nseed = [1]", "give the list 'seeds'"),
    "unknown setting": ("[grid]\nfleet.drpout = [0.1]", "did you mean 'fleet.dropout'"),
    "setting out of bounds": ("[grid]\nfleet.dropout = [0.1, 2.0]", "fleet.dropout = 2.0"),
    "variant that is no table": ("variants.a = 3", "variants.a = 3: must be a table"),
    "in grid and variant": ("grid.rounds = [1]\nvariants.a.rounds = 2", "in the grid and in the variant 'a'"),
    "too many": (f"[grid]\nrounds = {list(range(1, 20_000))}", "a sweep may have"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gives_one_line_and_exit_code_2(
    case: str,
    write: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text, expected = BAD[case]
    assert command(monkeypatch, "sweep", write(text), "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert expected in said
    assert len(said.strip().splitlines()) == 1
    assert "mine.toml" in said or case == "no scenario"
    assert not (tmp_path / "out").exists()


def test_cells_are_variants_times_grid_times_seeds(write: Write, tmp_path: Path) -> None:
    cells = cells_of(load_sweep(write("baseline = true\nset.rounds = 7\n" + SWEEP)), tmp_path)
    assert len(cells) == 2 * 2 + 1
    first, last = cells[0], cells[-1]
    assert first.point == "plain learning_rate=0.05"
    assert first.folder == tmp_path / "cells" / "plain-learning_rate-0.05" / "seed-3"
    assert (first.scenario.coordinator.rounds, first.scenario.coordinator.client.learning_rate) == (7, 0.05)
    assert (last.point, last.seed, last.scenario.coordinator.planner.policy) == ("FedAvg float32", 3, "fixed")
    assert len({cell.folder for cell in cells}) == len(cells)
    starved = [cell for cell in cells if cell.point.startswith("starved")]
    assert {cell.scenario.coordinator.budget.common.energy_j for cell in starved} == {1e-9}


def test_tables_as_values_and_keys_of_one_name_are_told_apart(write: Write, tmp_path: Path) -> None:
    text = "grid.fleet.mix = [{pi_5 = 1}, {pi_4b = 1}]\ngrid.client.momentum = [0.5]\ngrid.server.momentum = [0.1]"
    cells = cells_of(load_sweep(write(text)), tmp_path)
    assert [dict(cell.scenario.fleet.mix) for cell in cells] == [{"pi_5": 1}, {"pi_4b": 1}]
    assert "client.momentum=0.5 server.momentum=0.1" in cells[0].point
    assert cells[0].folder != cells[1].folder


@pytest.mark.usefixtures("_without_plots")
def test_a_sweep_keeps_what_is_finished_and_names_what_failed(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write(SWEEP), tmp_path / "out"
    assert command(monkeypatch, "sweep", path, "--out", out) == 1
    said = capsys.readouterr()
    assert "starved learning_rate=0.05, seed 3 failed (and 1 more): not one update was used" in said.err
    with (out / "sweep.csv").open() as file:
        lines = list(csv.DictReader(file))
    good, failed = [r for r in lines if not r["problem"]], [r for r in lines if r["problem"]]
    assert (len(good), len(failed)) == (2, 2)
    for line in good:
        cell = out / "cells" / f"plain-learning_rate-{line['client.learning_rate']}" / f"seed-{line['seed']}"
        summary = json.loads((cell / "summary.json").read_text())
        assert float(line["energy_j"]) == summary["energy_j"]
        assert (
            float(line["energy_by_phase.train.energy_j"]) == summary["energy_by_phase"]["train"]["energy_j"]
        )
    models = sorted(out.glob("cells/plain*/*/model.safetensors"))
    before = [(model.stat().st_mtime_ns, model.read_bytes()) for model in models]
    (models[0].parent / "summary.json").unlink()  # as if it had been killed while it wrote its results
    comparison = run_sweep(load_sweep(path), out)
    assert len(comparison.problems) == 2
    assert [model.read_bytes() for model in models] == [content for _, content in before]
    kept = [model.stat().st_mtime_ns == moment for model, (moment, _) in zip(models, before, strict=True)]
    assert kept == [False, True]
    with pytest.raises(
        BadInput, match=r"client.momentum is 0.0 in the sweep, for .*seed-3, but the run began with 0.9"
    ):
        run_sweep(load_sweep(write("set.client.momentum = 0.0\n" + SWEEP)), out)
    with pytest.raises(BadInput, match="something else than a sweep"):
        run_sweep(load_sweep(path), models[0].parent)


@pytest.mark.usefixtures("_without_plots")
def test_finished_runs_are_compared_by_what_differs(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write('scenario = "base.toml"\nseeds = [0, 1]\ngrid.rounds = [1, 2]')
    run_sweep(load_sweep(path), tmp_path / "sweep")
    folders = sorted((tmp_path / "sweep" / "cells").glob("*/*"))
    comparison = compare_runs(folders, tmp_path / "out")
    assert [(point.label, len(point.runs)) for point in comparison.points] == [
        ("rounds=1", 2),
        ("rounds=2", 2),
    ]
    assert "differ in rounds" in comparison.notes[0]
    [first, _] = comparison.points
    accuracies = [
        json.loads((folder / "summary.json").read_text())["accuracy_last5"] for folder in folders[:2]
    ]
    spread = first.spread("accuracy_last5")
    assert spread is not None
    assert spread.mean == pytest.approx(sum(accuracies) / 2)
    assert spread.deviation == pytest.approx(abs(accuracies[0] - accuracies[1]) / 2**0.5)
    assert len((tmp_path / "out" / "compare.csv").read_text().splitlines()) == 5
    html = (tmp_path / "out" / "report.html").read_text()
    assert 'href="../sweep/cells/rounds-1/seed-0/report.html"' in html
    capsys.readouterr()

    scenario = folders[0] / "scenario.toml"
    scenario.write_text(scenario.read_text().replace('name = "points:Points"', 'name = "digits"'))
    for wrong, expected in [
        (folders[:1], "two or more"),
        ([folders[0], tmp_path], "holds no finished run"),
        (folders[:2], "different tasks cannot be compared"),
    ]:
        assert command(monkeypatch, "compare", *wrong, "--out", tmp_path / "out") == 2
        said = capsys.readouterr().err
        assert expected in said
        assert len(said.strip().splitlines()) == 1
