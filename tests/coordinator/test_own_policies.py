"""A planner, a selection policy and a server optimiser of the user's own, `module:object`, good and bad."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from slimfleet.compression import BadInput, Plan, Skip
from slimfleet.coordinator.settings import ServerSettings, settings_of

PLAN = Plan(width=0.5, local_steps=2, batch_size=8, nmse=0.2, reason="mine")


def planner_of(choose):
    class Mine:
        def __init__(self, settings):
            self.settings = settings

        def plan(self, profile, budget, cost_model, history):
            return choose(history)

    return Mine


@pytest.fixture
def mine(monkeypatch):
    """A module `mine` that holds what is given."""

    def make(**members):
        monkeypatch.setitem(sys.modules, "mine", SimpleNamespace(**members))

    return make


def test_an_own_planner_plans(federate, mine):
    mine(Planner=planner_of(lambda history: PLAN))
    federation = federate(planner={"policy": "mine:Planner"})
    planned = federation.plan()
    assert [dispatch.assignment.plan for dispatch in planned.dispatches] == [PLAN] * 4
    assert federation.state.registry[11].last_reason == "mine"


def test_an_own_planner_may_skip_and_use_numpys_numbers(federate, mine):
    counted = Plan(width=np.float64(1.0), local_steps=np.int64(3), batch_size=8, nmse=0.2)
    few = Skip(constraint="deadline_s", needed=3.0, limit=1.0)
    mine(Planner=planner_of(lambda history: counted if history.examples > 24 else few))
    planned = federate(planner={"policy": "mine:Planner"}).plan()
    assert [type(dispatch.assignment.plan.local_steps) for dispatch in planned.dispatches] == [int] * 3
    assert planned.skipped == {11: few}


def fails(history):
    raise RuntimeError("out of ideas")


def leaves(history):
    sys.exit(3)


@pytest.mark.parametrize(
    ("choose", "said"),
    [
        (lambda history: None, "gives a NoneType, must be a Plan or a Skip"),
        (lambda history: {"width": 1.0}, "gives a dict"),
        (
            lambda history: Plan(width=0.6, local_steps=1, batch_size=8, nmse=0.2),
            "width = 0.6: must be one of",
        ),
        (lambda history: Plan(width=1.0, local_steps=0, batch_size=8, nmse=0.2), "local_steps = 0"),
        (lambda history: Plan(width=1.0, local_steps=1, batch_size=8, nmse=float("nan")), "nmse"),
        (lambda history: Plan(width=1.0, local_steps=object(), batch_size=8, nmse=0.2), "TypeError"),
        (lambda history: Skip(constraint="x", needed="much", limit=0.0), "needed"),
        (fails, "RuntimeError: out of ideas"),
        (leaves, "it ended the program"),
    ],
)
def test_nonsense_for_one_device_leaves_the_others_their_round(choose, said, federate, mine, caplog):
    mine(Planner=planner_of(lambda history: choose(history) if history.examples == 24 else PLAN))
    federation = federate(planner={"policy": "mine:Planner"})
    closed = federation.round()
    assert (closed.row.completed, closed.row.skipped) == (3, 1)
    assert federation.state.totals.skipped == {"planner": 1}
    assert federation.state.registry[11].last_reason == "planner: the planner gave no plan that can be used"
    [line] = [record.getMessage() for record in caplog.records if "no plan" in record.getMessage()]
    assert said in line
    assert "'mine:Planner'" in line
    assert "\n" not in line


def test_a_planner_that_is_wrong_for_all_is_logged_once_a_round(federate, mine, caplog):
    mine(Planner=planner_of(lambda history: None))
    federation = federate(planner={"policy": "mine:Planner"})
    federation.run(2)
    assert sum("no plan" in record.getMessage() for record in caplog.records) == 2


def test_an_own_selection_decides_who_is_asked_and_sees_the_candidates(federate, mine):
    seen = []

    def pick(candidates, settings, rng):
        seen.append((candidates, settings.per_round))
        return [np.int64(14), 12]

    mine(pick=pick)
    planned = federate(selection={"policy": "mine:pick"}).plan()
    assert [dispatch.node for dispatch in planned.dispatches] == [14, 12]
    [(candidates, per_round)] = seen
    assert ([each.node for each in candidates], per_round) == ([11, 12, 13, 14], 20)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ([11, 99], "returns node 99: not a candidate"),
        ([11, 12, 11], "returns node 11 twice"),
        (["11"], "TypeError"),
        (None, "TypeError"),
    ],
)
def test_what_a_selection_may_not_return_is_refused_in_one_line(returned, said, federate, mine):
    mine(pick=lambda candidates, settings, rng: returned)
    federation = federate(selection={"policy": "mine:pick"})
    with pytest.raises(BadInput, match=said) as refusal:
        federation.plan()
    assert str(refusal.value).startswith("selection policy 'mine:pick'")
    assert "\n" not in str(refusal.value)
    assert federation.state.in_flight == {}


def adagrad(parameters, settings):
    return torch.optim.Adagrad(parameters, lr=settings.learning_rate, eps=1e-3)


def test_an_own_optimiser_moves_the_model_and_its_state_outlasts_a_restart(federate, mine, tmp_path):
    mine(adagrad=adagrad)
    server = {"optimizer": "mine:adagrad", "learning_rate": 0.05}
    federation, plain = federate(server=server), federate(state="plain")
    federation.run(2)
    plain.run(2)
    assert federation.model_bytes() != plain.model_bytes()
    federation.save(tmp_path / "kept")
    resumed = federate(server=server)
    resumed.restore(tmp_path / "kept")
    assert resumed.state_bytes() == federation.state_bytes()
    for each in (federation, resumed):
        each.state.server.step({name: np.ones_like(v) for name, v in each.state.server.model().items()})
    assert resumed.state_bytes() == federation.state_bytes()


def test_a_checkpoint_of_another_optimiser_is_refused_by_name(federate, mine, tmp_path):
    mine(adagrad=adagrad, other=adagrad)
    federation = federate(server={"optimizer": "mine:adagrad"})
    federation.run(1)
    federation.save(tmp_path / "kept")
    with pytest.raises(BadInput, match=r"server optimiser mine:adagrad, expected is mine:other"):
        federate(server={"optimizer": "mine:other"}).restore(tmp_path / "kept")


class Rows(torch.optim.Optimizer):
    """Keeps a state of the shape of a row."""

    def __init__(self, parameters, settings):
        super().__init__(parameters, {})

    def step(self):
        for group in self.param_groups:
            for parameter in group["params"]:
                self.state[parameter]["rows"] = torch.zeros(7)


class Diverges(torch.optim.SGD):
    def step(self):
        with torch.no_grad():
            self.param_groups[0]["params"][0].fill_(float("nan"))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda parameters, settings: None, "gives a NoneType, must be a torch.optim.Optimizer"),
        (lambda parameters, settings: torch.optim.SGD(parameters[1:], lr=1), "all the parameters"),
        (lambda parameters, settings: torch.optim.SGD(parameters[::-1], lr=1), "in their order"),
        (lambda parameters: None, "TypeError"),
    ],
)
def test_what_is_no_optimiser_of_the_model_is_refused_at_the_start(make, said, federate, mine):
    mine(make=make)
    with pytest.raises(BadInput, match=said) as refusal:
        federate(server={"optimizer": "mine:make"})
    assert "'mine:make'" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Rows, "its state 'rows' cannot be kept in a checkpoint"),
        (lambda parameters, settings: Diverges(parameters, lr=1.0), "is no longer finite"),
    ],
)
def test_an_optimiser_that_misbehaves_is_named(make, said, federate, mine, tmp_path):
    mine(make=make)
    federation = federate(server={"optimizer": "mine:make"})

    def run_and_save():
        federation.run(1)
        federation.save(tmp_path / "kept")

    with pytest.raises(BadInput, match=said) as refusal:
        run_and_save()
    assert "'mine:make'" in str(refusal.value)


@pytest.mark.parametrize(
    ("key", "name", "said"),
    [
        ("planner.policy", "nowhere:Planner", "cannot load 'nowhere:Planner': ModuleNotFoundError"),
        ("planner.policy", "mine:Missing", "cannot load 'mine:Missing': AttributeError"),
        ("planner.policy", "mine:number", "it is of type int, must be a class or a function"),
        ("planner.policy", "mine:unplanned", "it gives a SimpleNamespace without a method plan"),
        ("planner.policy", "mine:fails", "RuntimeError: out of ideas"),
        ("selection.policy", "mine:number", "it is of type int, must be a class or a function"),
        ("server.optimizer", "nowhere:make", "cannot load 'nowhere:make'"),
        ("server.optimizer", "mine:number", "it is of type int, must be a class or a function"),
    ],
)
def test_what_cannot_be_loaded_is_one_line_that_names_it(key, name, said, federate, mine):
    mine(number=7, unplanned=lambda settings: SimpleNamespace(), fails=fails)
    table, leaf = key.split(".")
    with pytest.raises(BadInput) as refusal:
        federate(**{table: {leaf: name}})
    assert said in str(refusal.value)
    assert name in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        (
            "planner.policy",
            "enumerat",
            "must be 'enumerate', 'fixed' or 'module:object' of your own (did you mean",
        ),
        ("selection.policy", ":pick", "must be 'uniform', 'utility' or 'module:object'"),
        ("server.optimizer", "my package:make", "must be 'fedavg', 'fedadam' or 'module:object'"),
        ("server.optimizer", 3, "must be a valid string"),
    ],
)
def test_a_name_that_is_neither_built_in_nor_a_reference_is_refused_when_it_is_read(key, value, said):
    table, leaf = key.split(".")
    with pytest.raises(BadInput) as refusal:
        settings_of({table: {leaf: value}}, "the file")
    assert str(refusal.value).startswith(f"the file: {key} = ")
    assert said in str(refusal.value)


def test_an_own_name_is_kept_as_it_is_written():
    assert settings_of({"server": {"optimizer": "a.b:c"}}, "x").server == ServerSettings(optimizer="a.b:c")
