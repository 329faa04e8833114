"""The settings tree: what a file says, what is refused, and that the tables of a scenario are those of a deployment."""

from dataclasses import asdict
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from slimfleet.compression import BadInput, Budget
from slimfleet.compression.cost import RUNTIMES
from slimfleet.compression.edge.named import Named
from slimfleet.coordinator import CoordinatorSettings, read_settings
from slimfleet.coordinator.learning.server_optimizer import OPTIMIZERS
from slimfleet.coordinator.planning import PLANNERS
from slimfleet.coordinator.planning.selection import ORDERS
from slimfleet.coordinator.settings import (
    Budgets,
    ClientSettings,
    CodecSettings,
    PlannerSettings,
    SelectionSettings,
    ServerSettings,
    settings_of,
    tables_of,
)

FULL = """
name = "phones"
rounds = 7
seed = 3
evaluate_every = 2
codec = {preset = "fast", downlink_bits = 8, feedback = false}
client = {learning_rate = 0.1, runtime = "lite"}
budget = {energy_j = 3, deadline_s = 60, class.phone = {uplink_bytes = 900, deadline_s = "none"}}
selection = {policy = "uniform", per_round = 4, min_devices = 2}
planner = {policy = "enumerate", widths = [1, 0.5], nmse = [0.1], window = "rolling"}
server = {optimizer = "fedadam", momentum = 0.5}
"""
SETTINGS = CoordinatorSettings(
    name="phones",
    rounds=7,
    seed=3,
    evaluate_every=2,
    codec=CodecSettings(preset="fast", downlink_bits=8, feedback=False),
    client=ClientSettings(learning_rate=0.1, runtime="lite"),
    budget=Budgets(
        common=Budget(energy_j=3.0, deadline_s=60.0),
        by_class={"phone": Budget(energy_j=3.0, uplink_bytes=900)},
    ),
    selection=SelectionSettings(policy="uniform", per_round=4, min_devices=2),
    planner=PlannerSettings(widths=(1.0, 0.5), nmse=(0.1,), window="rolling"),
    server=ServerSettings(optimizer="fedadam", momentum=0.5),
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "federation.toml"
    path.write_text(text)
    return path


def test_what_is_not_given_is_as_in_the_settings_themselves(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, "")) == CoordinatorSettings()


def test_every_table_becomes_the_settings_of_its_part(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, FULL)) == SETTINGS


def test_a_class_budget_overlays_the_common_one() -> None:
    assert SETTINGS.budget.of("phone") == Budget(energy_j=3.0, uplink_bytes=900)
    assert SETTINGS.budget.of("board") == Budget(energy_j=3.0, deadline_s=60.0)


def test_tables_say_the_settings_again() -> None:
    assert settings_of(tables_of(SETTINGS), "here") == SETTINGS
    assert settings_of(tables_of(CoordinatorSettings()), "here") == CoordinatorSettings()


def test_training_follows_the_settings_and_the_round() -> None:
    settings = CoordinatorSettings(seed=9, client=ClientSettings(learning_rate=0.1, learning_rate_decay=0.5))
    assert [settings.training(number).learning_rate for number in (1, 2, 3)] == [0.1, 0.05, 0.025]
    values = asdict(settings.training(1))
    codec, client = asdict(settings.codec), asdict(settings.client)
    assert values.pop("seed") == 9
    assert values.pop("held_out") == settings.evaluation.on_devices
    for name, value in values.items():
        assert name == "learning_rate" or {**codec, **client}[name] == value


@pytest.mark.parametrize(
    ("kind", "key", "table"),
    [
        (SelectionSettings, "policy", ORDERS),
        (PlannerSettings, "policy", PLANNERS),
        (ClientSettings, "runtime", RUNTIMES),
        (ServerSettings, "optimizer", OPTIMIZERS),
    ],
)
def test_every_name_of_a_table_can_be_set(kind: type, key: str, table: dict[str, object]) -> None:
    hint, *bounds = get_args(get_type_hints(kind, include_extras=True)[key])
    named = [bound.names for bound in bounds if isinstance(bound, Named)]
    assert set(named[0] if named else (hint, *bounds)) == set(table)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rounds = 0", ["rounds = 0", "1"]),
        ("rounds = inf", ["rounds = Infinity", "finite"]),
        ("rounds = 2026-11-24", ["rounds", "integer"]),
        ("selection.per_rond = 4", ["'selection.per_rond'", "did you mean 'selection.per_round'"]),
        ("selection.per_round = 0", ["selection.per_round = 0"]),
        (
            "selection.policy = 'best'",
            ['selection.policy = "best"', "'uniform', 'utility' or 'module:object'"],
        ),
        ("planner = 'guess'", ['planner = "guess"', "must be a table"]),
        ("planner.policy = 'guess'", ['planner.policy = "guess"', "'enumerate'"]),
        ("client.runtime = 'jax'", ['client.runtime = "jax"', "'torch'"]),
        ("planner.nmse = [1]", ["planner.nmse.0 = 1", "less than 1"]),
        ("planner.widths = []", ["planner.widths = []", "at least one value"]),
        ("server.momentum = 1.0", ["server.momentum = 1.0", "less than 1"]),
        ("budget.energy_j = -1", ["budget.energy_j = -1"]),
        ("budget = 3", ["budget = 3", "must be a table"]),
        ("budget.energy = 3", ["'budget.energy'", "did you mean 'budget.energy_j'"]),
        ("budget.class.phone.energy_j = 'lots'", ['budget.class.phone.energy_j = "lots"', "number"]),
        ("budget.class.phone.joules = 3", ["'budget.class.phone.joules'", "energy_j"]),
        ("budget.class = 3", ["budget.class = 3", "must be a table"]),
        ("budget.class.phone = 3", ["budget.class.phone = 3", "must be a table"]),
        ("momentum = 0.5", ["'momentum'", "did you mean 'client.momentum'"]),
        ("codec.preset = 'tiny'", ['codec.preset = "tiny"', "'small', 'fast' or 'portable'"]),
        ("rounds =", ["not TOML"]),
    ],
)
def test_what_is_wrong_is_named_with_its_file(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(BadInput) as refused:
        read_settings(written(tmp_path, text))
    assert "\n" not in str(refused.value)
    for word in ["federation.toml", *words]:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ("codec_profile = 'fast'", "codec.preset"),
        ("codec.profile = 'fast'", "codec.preset"),
        ("training.learning_rate = 0.1", "client.learning_rate"),
        ("training.feedback = true", "codec.feedback"),
        ("training.seed = 1", "seed"),
        ("planner_settings.widths = [1]", "planner"),
        ("class_budgets.phone.energy_j = 1", "budget.class"),
        ("run.runtime = 'lite'", "client.runtime"),
        ("run.evaluate_every = 2", "evaluate_every"),
        ("run.round_timeout_s = 2", "round_timeout_s"),
    ],
)
def test_a_key_of_an_older_file_is_answered_with_its_new_name(tmp_path: Path, text: str, now: str) -> None:
    with pytest.raises(BadInput, match=f"is called '{now}' now"):
        read_settings(written(tmp_path, text))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"absent\.toml"):
        read_settings(tmp_path / "absent.toml")
