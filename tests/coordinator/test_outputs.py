"""The folder of a run holds what it promises, and reads back."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from slimfleet.coordinator.reporting.outcome import RunRecord
from slimfleet.coordinator.reporting.outputs import write_outputs

MakeRecord = Callable[..., RunRecord]
MODEL = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "steps": np.array(7, dtype=np.int64),
    "empty": np.zeros((0, 3), dtype=np.float32),
}


def test_every_file_reads_back(make_record: MakeRecord, tmp_path: Path) -> None:
    record = make_record([0.5, None])
    summary = write_outputs(tmp_path, record, record, "rounds = 2\n", MODEL)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "baseline_rounds.csv", "devices.csv", "model.safetensors", "report.html", "summary.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "summary.json").read_text()) == summary
    assert "rounds = 2" in (tmp_path / "report.html").read_text()

    model = load_file(tmp_path / "model.safetensors")
    assert model.keys() == MODEL.keys()
    for name, array in MODEL.items():
        np.testing.assert_array_equal(model[name], array)
        assert model[name].shape == array.shape

    rounds = list(csv.DictReader((tmp_path / "baseline_rounds.csv").read_text().splitlines()))
    assert [row["accuracy"] for row in rounds] == ["0.5", ""]
    assert [int(row["uplink_bytes"]) for row in rounds] == [1_000, 1_000]
    devices = list(csv.DictReader((tmp_path / "devices.csv").read_text().splitlines()))
    assert [row["name"] for row in devices] == ["pi_5", "phone_mid_2019", "phone_mid_2019"]
    assert [row["battery_left"] for row in devices] == ["", "0.8", "0.8"]


def test_a_second_run_leaves_nothing_of_the_first(make_record: MakeRecord, tmp_path: Path) -> None:
    write_outputs(tmp_path, make_record(), make_record(), "", MODEL)
    write_outputs(tmp_path, make_record(), None, "", MODEL)
    assert not (tmp_path / "baseline_rounds.csv").exists()
    assert "baseline" not in json.loads((tmp_path / "summary.json").read_text())


def test_a_summary_stands_only_where_all_the_rest_does(make_record: MakeRecord, tmp_path: Path) -> None:
    write_outputs(tmp_path, make_record(), None, "", MODEL)
    (tmp_path / "report.html").unlink()
    (tmp_path / "report.html").mkdir()  # no file can be put in its place
    with pytest.raises(OSError, match="directory"):
        write_outputs(tmp_path, make_record(), None, "", MODEL)
    assert not (tmp_path / "summary.json").exists()
