"""Scenario files: what is right resolves and reads back, what is wrong gives one line that helps."""

import subprocess
import sys
import tomllib
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from slimfleet.compression import BadInput, Budget
from slimfleet.compression.profiles import load_profiles
from slimfleet.coordinator.settings import CoordinatorSettings, ServerSettings, settings_of, tables_of
from slimfleet.simulations import FleetSettings, Scenario, TaskSettings, load_scenario
from slimfleet.simulations.scenario import baseline_settings, scenario_names


def complaint(path: Path | str, overrides: dict[str, str] | None = None) -> str:
    with pytest.raises(BadInput) as caught:
        load_scenario(str(path), overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", scenario_names())
def test_every_shipped_scenario_loads_and_reads_back_the_same(name: str, tmp_path: Path) -> None:
    scenario = load_scenario(name)
    assert scenario.coordinator.name == name
    assert load_scenario(str(written(tmp_path, scenario.to_toml()))) == scenario


def test_the_default_is_the_quickstart() -> None:
    scenario = load_scenario()
    assert (scenario.fleet.devices, scenario.coordinator.rounds) == (200, 20)
    assert scenario.coordinator.selection.per_round == 20
    assert {"digits", "fashion_mnist", "flash_crowd", "mixed_lte", "pi_farm"} <= set(scenario_names())
    assert load_scenario("fashion-mnist") == load_scenario("fashion_mnist")


def test_a_file_gets_its_name_from_itself_unless_it_has_one(tmp_path: Path) -> None:
    assert load_scenario(str(written(tmp_path, ""))).coordinator.name == "mine"
    assert load_scenario(str(written(tmp_path, 'name = "pilot"'))).coordinator.name == "pilot"


def test_overrides_reach_every_depth_and_keep_toml_types() -> None:
    scenario = load_scenario(
        "digits",
        {
            "seed": "7",
            "fleet.mix.pi_5": "3",
            "planner.widths": "[1.0, 0.5]",
            "task.name": "my_package.tasks:Birds",
            "task.options.folder": '"data"',
            "budget.class.sbc-mid.uplink_bytes": "5_000",
        },
    )
    assert scenario.coordinator.seed == 7
    assert scenario.fleet.mix == {"pi_5": 3.0}
    assert scenario.coordinator.planner.widths == (1.0, 0.5)
    assert scenario.task.name == "my_package.tasks:Birds"
    assert scenario.task.options == {"folder": "data"}
    assert scenario.coordinator.budget.of("sbc-mid").uplink_bytes == 5_000


def test_the_preset_of_the_codec_is_small_by_default() -> None:
    assert load_scenario("digits").coordinator.codec.preset == "small"
    assert load_scenario("digits", {"codec.preset": "fast"}).coordinator.codec.preset == "fast"


def test_a_scenario_is_read_without_what_runs_it() -> None:
    code = (
        "import sys, slimfleet.simulations as simulations; simulations.load_scenario();"
        "print(sorted({'torch', 'flwr', 'ray', 'matplotlib', 'sklearn'} & sys.modules.keys()))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_what_a_scenario_says_of_its_fleet_is_what_the_fleet_is() -> None:
    given = {"power_noise": 0.0, "network_spread": 1.5, "start_charge": (0.5, 0.6), "dropout": 0.3}
    options = {
        f"fleet.{key}": str(list(value) if isinstance(value, tuple) else value)
        for key, value in given.items()
    }
    assert load_scenario("digits", options).fleet == FleetSettings(**given)  # type: ignore[arg-type]


def test_the_coordinators_part_of_a_scenario_moves_to_production_as_it_is() -> None:
    for name in scenario_names():
        scenario = load_scenario(name)
        tables = tomllib.loads(scenario.to_toml())
        shared = {key: tables[key] for key in tables if key not in ("task", "fleet", "run")}
        assert settings_of(shared, "federation.toml") == scenario.coordinator
        assert shared == tomllib.loads(tomli_w.dumps(tables_of(scenario.coordinator)))


def test_the_baseline_ignores_budgets_and_changes_nothing_else() -> None:
    ours = load_scenario(
        "fashion_mnist", {"server.max_update_norm": "50.0", "run.baseline_rounds": "7", "seed": "3"}
    )
    theirs = baseline_settings(ours)
    assert (theirs.name, theirs.rounds, theirs.seed) == ("baseline", 7, 3)
    assert theirs.selection == replace(
        ours.coordinator.selection, policy="uniform", battery_floor=0.0, reputation=False
    )
    assert (theirs.planner.policy, theirs.planner.widths, theirs.planner.batch_sizes) == (
        "fixed",
        (1.0,),
        (32,),
    )
    assert theirs.codec == replace(ours.coordinator.codec, feedback=False)
    assert theirs.server == ServerSettings(max_update_norm=50.0, fleet_bounds=False)
    assert (theirs.budget, theirs.client) == (ours.coordinator.budget, ours.coordinator.client)


def test_a_class_changes_only_the_limits_it_names_and_may_lift_one(tmp_path: Path) -> None:
    text = """
        [budget]
        energy_j = 5
        memory_bytes = 300_000_000
        [budget.class.sbc-low]
        memory_bytes = 100_000_000
        [budget.class.edge-gpu]
        energy_j = "none"
    """
    scenario = load_scenario(str(written(tmp_path, text)))
    again = load_scenario(str(written(tmp_path, scenario.to_toml())))
    for budget in (scenario.coordinator.budget, again.coordinator.budget):
        assert budget.of("phone-mid") == Budget(energy_j=5, memory_bytes=300_000_000)
        assert budget.of("sbc-low") == Budget(energy_j=5, memory_bytes=100_000_000)
        assert budget.of("edge-gpu") == Budget(memory_bytes=300_000_000)


def test_a_scenario_is_frozen() -> None:
    scenario = load_scenario()
    with pytest.raises(FrozenInstanceError):
        scenario.fleet.devices = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("widhts = 1", ["unknown key 'widhts'", "there are budget, client, codec", "run, seed"]),
        ("[planner]\nwidhts = [1.0]", ["unknown key 'planner.widhts'", "did you mean 'planner.widths'?"]),
        ("devices = 5", ["unknown key 'devices'", "did you mean 'fleet.devices'?"]),
        ("[flete]\ndropout = 0.1", ["unknown key 'flete'", "did you mean 'fleet'?"]),
        ("energy_j = 1", ["unknown key 'energy_j'", "did you mean 'budget.energy_j'?"]),
        ("[fleet]\nper_round = 3", ["unknown key 'fleet.per_round'", "did you mean 'selection.per_round'?"]),
        ("[budget.class.sbc-low]\nenergi_j = 1", ["did you mean 'budget.class.sbc-low.energy_j'?"]),
        ("rounds = '3'", ['rounds = "3"', "must be a valid integer"]),
        ("rounds = true", ["rounds = true", "integer"]),
        ("seed = -1", ["seed = -1", "greater than or equal to 0"]),
        ("fleet = 3", ["fleet = 3", "must be a table"]),
        ("[fleet]\ndropout = 1.0", ["fleet.dropout = 1.0", "less than 1"]),
        ("[fleet]\nspeed_noise = nan", ["fleet.speed_noise = NaN", "finite"]),
        ("[fleet]\nstart_charge = [0.5]", ["fleet.start_charge.1 is missing"]),
        ("[fleet]\navailability = 1.5", ["fleet.availability = 1.5", "less than or equal to 1"]),
        ("[fleet]\nfaults = { late = 2 }", ["fleet.faults.late = 2", "less than or equal to 1"]),
        ("[task.options]\nx = inf", ["task.options.x = Infinity", "finite"]),
        ("[run]\nworkers = -1", ["run.workers = -1", "greater than or equal to 0"]),
        ("[planner]\nwidths = []", ["planner.widths = []", "at least one value"]),
        ("[planner]\nwidths = 0.5", ["planner.widths = 0.5", "must be a list"]),
        ("[planner]\nwidths = [0.5, 2.0]", ["planner.widths.1 = 2.0", "less than or equal to 1"]),
        ("[planner]\nnmse = [1.0]", ["planner.nmse.0 = 1.0", "less than 1"]),
        ("[codec]\npreset = 'tiny'", ['codec.preset = "tiny"', "'small', 'fast' or 'portable'"]),
        ("[codec]\ndownlink_bits = 9", ["codec.downlink_bits = 9", "8 or 32"]),
        (
            "[selection]\npolicy = 'magic'",
            ['selection.policy = "magic"', "'uniform', 'utility' or 'module:object'"],
        ),
        ("[budget]\nenergy_j = 'soon'", ['budget.energy_j = "soon"', "number"]),
        ("seed = -1\nrounds = 0\n", ["rounds = 0", "(and 1 more)"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_the_file_and_the_limit(
    tmp_path: Path, text: str, said: list[str]
) -> None:
    path = written(tmp_path, text)
    message = complaint(path)
    for part in [str(path), *said]:
        assert part in message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[fleet]\ndevices = 0", "fleet.devices = 0"),
        ("[fleet]\ndevices = 10", "selection.per_round = 20 is more than fleet.devices = 10"),
        ("[fleet.mix]\npi_5 = 0", "fleet.mix has no weight above 0"),
        ("[fleet]\nmix = {}", "fleet.mix has no weight above 0"),
        ("[fleet]\nstart_charge = [0.9, 0.1]", "fleet.start_charge = [0.9, 0.1]: must not fall"),
        ("[fleet.mix]\npi_5 = -1", "fleet.mix.pi_5 = -1"),
        ("[fleet.mix]\npi_six = 1", "fleet.mix has no 'pi_six'; did you mean 'pi_5'?"),
        ("[budget.class.phones]\nenergy_j = 1", "budget.class has no 'phones'"),
    ],
)
def test_an_impossible_fleet_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in complaint(written(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "now"),
    [
        ("[run]\nruntime = 'lite'", "client.runtime"),
        ("[run]\nevaluate_every = 2", "evaluate_every"),
        ("[run]\nround_timeout_s = 2.0", "round_timeout_s"),
        ("[codec]\nprofile = 'fast'", "codec.preset"),
    ],
)
def test_a_key_of_an_older_scenario_is_told_its_new_name(tmp_path: Path, text: str, now: str) -> None:
    path = written(tmp_path, text)
    message = complaint(path)
    assert str(path) in message
    assert message.endswith(f"is called {now!r} now")


def test_a_file_that_is_not_toml_names_the_line(tmp_path: Path) -> None:
    message = complaint(written(tmp_path, "rounds = 3\nseed = = 4\n"))
    assert "mine.toml" in message
    assert "line 2" in message


def test_unreadable_files_say_why(tmp_path: Path) -> None:
    assert "No such file" in complaint(tmp_path / "absent.toml")
    assert "s a directory" in complaint(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in complaint(tmp_path / "binary.toml")
    assert "did you mean 'digits'?" in complaint("digit")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("planner.widhts", "[1.0]", "did you mean 'planner.widths'?"),
        ("dropout", "0.1", "did you mean 'fleet.dropout'?"),
        ("flete.dropout", "0.1", "did you mean 'fleet'?"),
        ("fleet.mix.pi_six", "1", "fleet.mix has no 'pi_six'"),
        ("run.runtime", "lite", "is called 'client.runtime' now"),
        ("fleet.devices", "many", "must be a valid integer"),
        ("fleet.devices", "[1", "the value is not TOML"),
        ("fleet.devices", "1\nseed = 2", "give one value"),
        ("fleet.devices.x", "1", "fleet.devices is a value, not a table"),
        ("", "3", "unknown key ''"),
    ],
)
def test_a_wrong_option_is_blamed_on_the_option(key: str, value: str, said: str) -> None:
    message = complaint("digits", {key: value})
    assert message.startswith(f"--set {key}")
    assert said in message


names = st.text(min_size=1, max_size=20)
profiles = st.sampled_from([row.name for row in load_profiles()])


@given(
    name=names.filter(str.isprintable),
    mix=st.dictionaries(profiles, st.floats(1e-3, 1e3), min_size=1, max_size=5),
    options=st.dictionaries(names, st.one_of(names, st.booleans(), st.lists(st.integers(0, 9)))),
)
def test_whatever_a_scenario_holds_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, name: str, mix: dict[str, float], options: dict[str, object]
) -> None:
    scenario = Scenario(
        task=TaskSettings(options=options),
        fleet=FleetSettings(mix=mix),
        coordinator=CoordinatorSettings(name=name),
    )
    path = written(tmp_path_factory.mktemp("scenario"), scenario.to_toml())
    assert load_scenario(str(path)) == scenario
