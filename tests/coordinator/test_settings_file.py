"""A coordinator's settings in a TOML file."""

from pathlib import Path

import pytest

from slimfleet.compression import BadInput, Budget, Training
from slimfleet.coordinator import CoordinatorSettings
from slimfleet.coordinator.learning.server_optimizer import ServerSettings
from slimfleet.coordinator.planning import PlannerSettings
from slimfleet.coordinator.planning.selection import SelectionSettings
from slimfleet.coordinator.settings_file import read_settings

FULL = """
rounds = 7
codec_preset = "fast"
downlink_bits = 8
training = {learning_rate = 0.1, feedback = false}
budget.energy_j = 3
class_budgets.phone.uplink_bytes = 900
selection = {policy = "uniform", per_round = 4, min_devices = 2}
planner_settings = {widths = [1, 0.5], nmse = [0.1]}
server = {optimizer = "fedadam", momentum = 0.5}
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "federation.toml"
    path.write_text(text)
    return path


def test_what_is_not_given_is_as_in_the_settings_themselves(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, "rounds = 3")) == CoordinatorSettings(rounds=3)


def test_every_table_becomes_the_settings_of_its_part(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, FULL)) == CoordinatorSettings(
        rounds=7,
        codec_preset="fast",
        downlink_bits=8,
        training=Training(learning_rate=0.1, feedback=False),
        budget=Budget(energy_j=3.0),
        class_budgets={"phone": Budget(uplink_bytes=900)},
        selection=SelectionSettings(policy="uniform", per_round=4, min_devices=2),
        planner_settings=PlannerSettings(widths=(1.0, 0.5), nmse=(0.1,)),
        server=ServerSettings(optimizer="fedadam", momentum=0.5),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["rounds is missing"]),
        ("rounds = 0", ["rounds = 0", "1"]),
        ("rounds = inf", ["infinity"]),
        ("rounds = 2026-11-24", ["rounds", "integer"]),
        ("rounds = 3\nselection.per_rond = 4", ["selection.per_rond", "selection.per_round"]),
        ("rounds = 3\nselection.per_round = 0", ["selection.per_round = 0"]),
        ("rounds = 3\nselection.policy = 'best'", ["selection.policy = 'best'", "uniform, utility"]),
        ("rounds = 3\nplanner = 'guess'", ["planner = 'guess'", "enumerate"]),
        ("rounds = 3\nruntime = 'jax'", ["runtime = 'jax'", "torch"]),
        ("rounds = 3\nplanner_settings.nmse = [1]", ["planner_settings.nmse.0 = 1", "less than 1"]),
        ("rounds = 3\nplanner_settings.widths = []", ["planner_settings.widths = []", "at least 1"]),
        ("rounds = 3\nserver.momentum = 1.0", ["server.momentum = 1.0", "less than 1"]),
        ("rounds = 3\nbudget.energy_j = -1", ["budget.energy_j = -1"]),
        ("rounds = 3\ncodec_preset = 'tiny'", ['codec_preset = "tiny"', "'small', 'fast' or 'portable'"]),
        ("rounds =", ["not TOML"]),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(BadInput) as refused:
        read_settings(written(tmp_path, text))
    for word in ["federation.toml", *words]:
        assert word in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.toml"):
        read_settings(tmp_path / "absent.toml")
