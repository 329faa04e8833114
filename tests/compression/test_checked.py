"""Plain values into frozen dataclasses, profiles in files, and what Flower hands to its apps."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import pytest
from annotated_types import Ge

from slimfleet.compression import BadInput, DeviceProfile
from slimfleet.compression.edge.app_config import config_as, table, task_reference
from slimfleet.compression.edge.checked import checked
from slimfleet.compression.edge.input_files import read_profile, read_profiles

BOARD = DeviceProfile(
    name="board", device_class="sbc", ram_bytes=2**30, train_flops_per_s=1e8, idle_w=1.0, train_w=2.0,
    uplink_bytes_per_s=1e5, downlink_bytes_per_s=1e5,
    radio_j_per_byte_up=1e-6, radio_j_per_byte_down=1e-6, radio_j_per_burst=0.1,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Inner:
    steps: tuple[Annotated[int, Ge(1)], ...] = (1,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outer:
    rate: float
    inner: Inner = field(default_factory=Inner)
    by_class: Mapping[str, Inner] = field(default_factory=dict)


def test_tables_become_dataclasses_and_lists_become_tuples() -> None:
    values = {"rate": 1, "inner": {"steps": [4, 2]}, "by_class": {"phone": {"steps": [1]}}}
    expected = Outer(rate=1.0, inner=Inner(steps=(4, 2)), by_class={"phone": Inner()})
    assert checked(Outer, values, "here") == expected


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ["rate is missing"]),
        ({"rate": "fast"}, ['rate = "fast"', "number"]),
        ({"rate": "1"}, ['rate = "1"']),
        ({"rate": float("nan")}, ["NaN"]),
        ({"rate": 1, "inner": {"steps": [4, 0]}}, ["inner.steps.1 = 0", "1"]),
        ({"rate": 1, "inner": {"steps": [2.5]}}, ["inner.steps.0 = 2.5", "integer"]),
        ({"rate": 1, "inner": {"stepz": [4]}}, ["'inner.stepz'", "did you mean 'inner.steps'"]),
        ({"rate": 1, "by_class": {"phone": {"colour": 1}}}, ["'by_class.phone.colour'", "there are steps"]),
        (["rate"], ["must be a table"]),
    ],
)
def test_what_is_wrong_is_named(values: object, words: list[str]) -> None:
    with pytest.raises(BadInput) as refused:
        checked(Outer, values, "here")
    message = str(refused.value)
    assert message.startswith("here: ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_profile_comes_back_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "board.json"
    path.write_text(json.dumps(asdict(BOARD)))
    assert read_profile(path) == BOARD
    path.write_text(json.dumps([asdict(BOARD)] * 2))
    assert read_profiles(path) == [BOARD, BOARD]
    with pytest.raises(BadInput, match="2 devices, one is needed"):
        read_profile(path)


def test_flower_configs_are_read_by_table_and_with_dashes() -> None:
    config = {"task.name": "mine:Task", "task.alpha": 0.5, "server.out": "here", "rate": 2}
    assert table(config, "server") == {"out": "here"}
    assert task_reference(config) == ("mine:Task", {"alpha": 0.5})
    assert config_as(Outer, {"rate": 2.0}, "node-config") == Outer(rate=2.0)
    with pytest.raises(BadInput, match=r"task\.name is missing"):
        task_reference({"task.alpha": 0.5})
    with pytest.raises(BadInput, match="did you mean 'by_class'"):
        config_as(Outer, {"rate": 2.0, "by-klass": 1}, "node-config")
