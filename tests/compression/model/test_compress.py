"""From a trained model to a file that is what was measured; a search that goes on; mistakes in one line."""

import json

import pytest
import torch
from torch import nn

from slimfleet.compression import BadInput, PayloadError
from slimfleet.compression.cost.flops import FlopCounter
from slimfleet.compression.model.compress import Request, compress
from slimfleet.compression.model.evaluation.device_costs import profile_named
from slimfleet.compression.model.evaluation.measuring import flops_of
from slimfleet.compression.model.outputs import read_checkpoint, write_outputs
from slimfleet.compression.model.recipes.recipe import recipe_of
from slimfleet.compression.model.saving.file import load_model, save_model
from slimfleet.compression.model.slim_model import SlimModel
from slimfleet.compression.model.target import target_of
from slimfleet.compression.profiles import load_profiles

RECIPE = (
    "prune: share=0.4, epochs=2, learning_rate=0.02; sparsify: share=0.5, epochs=1; "
    "quantise: weights=4, activations=8"
)


@pytest.fixture(scope="module")
def made(central, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    device = load_profiles()[0].name
    request = Request(
        targets=(target_of("size=0.2"), target_of("flops=0.7"), target_of("energy=0.7")),
        recipe=recipe_of(RECIPE),
        max_loss=5.0,
        device=profile_named(device),
    )
    compressed = compress(trained.model, central.task, request, folder)
    write_outputs(compressed, folder)
    assert all(
        torch.equal(*pair) for pair in zip(trained.model.state_dict().values(), before.values(), strict=True)
    )
    return compressed, folder


def test_the_file_is_the_model_that_was_measured(made, central):
    compressed, folder = made
    again = load_model(folder / "model.slim", central.task)
    state = compressed.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    assert central.tested(again) == compressed.tested_after
    assert compressed.after.bytes == (folder / "model.slim").stat().st_size
    assert compressed.after.flops == flops_of(again, central.example_inputs) < 0.7 * compressed.before.flops
    assert compressed.met


def test_the_exported_graph_has_the_flops_that_are_reported(made, central):
    compressed, _ = made
    exported = torch.export.export(compressed.model, central.example_inputs).module()
    with torch.no_grad(), FlopCounter() as counter:
        exported(*central.example_inputs)
    assert counter.flops == compressed.after.flops < 0.7 * compressed.before.flops


def test_a_student_learns_from_the_teachers_given(central, trained, tmp_path):
    torch.manual_seed(5)
    student = central.task.build_model()
    recipe = recipe_of("distil: epochs=3, learning_rate=0.05, soft_labels=1.0")
    request = Request(recipe=recipe, teachers=(trained.model,))
    compressed = compress(student, central.task, request, tmp_path)
    with torch.no_grad():
        x = central.validation.arguments[0]
        agreed = (compressed.model(x).argmax(1) == trained.model(x).argmax(1)).float().mean()
    assert agreed > 0.8


def test_every_step_is_measured(made):
    compressed, _ = made
    prune, sparsify, quantise = (step.after for step in compressed.steps)
    assert prune.parameters < compressed.before.parameters
    assert sparsify.nonzero < 0.6 * prune.nonzero
    assert sparsify.parameters == quantise.parameters
    assert quantise.bytes < 0.4 * prune.bytes
    assert quantise.peak_memory_bytes < prune.peak_memory_bytes
    assert quantise.energy_j == prune.energy_j < compressed.before.energy_j
    assert [step.before for step in compressed.steps] == [compressed.before, prune, sparsify]


def test_the_folder_says_what_became_of_the_model(made, central):
    compressed, folder = made
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["met"] is True
    assert summary["bound"] is None
    assert summary["after"]["accuracy"] == compressed.tested_after.accuracy
    assert summary["after"]["energy_source"] == "simulated"
    assert [step["step"].split(":")[0] for step in summary["steps"]] == ["prune", "sparsify", "quantise"]
    assert summary["targets"][0]["reached"] == compressed.after.bytes
    with pytest.raises(BadInput, match="no checkpoint"):
        read_checkpoint(folder / "model.safetensors", central.task)  # of the reduced architecture
    assert central.tested(read_checkpoint(folder / "model.slim", central.task)) == compressed.tested_after


def test_layers_left_whole_are_named_with_what_they_cost(made):
    _, folder = made
    summary = json.loads((folder / "summary.json").read_text())
    whole = summary["steps"][0]["whole"]
    sizes = {each["name"]: each["bytes"] for each in summary["layers"]}
    assert whole["fc"]["bytes"] == round(sum(sizes[name] for name in sizes if name.startswith("fc."))) > 0
    assert whole["fc"]["why"] == "they are outputs of the model"


def test_a_search_meets_its_targets_and_goes_on_where_it_was(central, trained, tmp_path):
    request = Request(targets=(target_of("size=0.1"),), minutes=0.02, max_loss=100.0)
    compressed = compress(trained.model, central.task, request, tmp_path)
    assert compressed.excess <= 1
    assert compressed.after.bytes <= 0.1 * compressed.before.bytes
    journal = (tmp_path / "search.jsonl").read_text()
    told: list[str] = []
    again = compress(trained.model, central.task, request, tmp_path, lambda what, done, of: told.append(what))
    assert (tmp_path / "search.jsonl").read_text() == journal
    assert "what fits" not in told
    assert [str(step.step) for step in again.steps] == [str(step.step) for step in compressed.steps]
    with pytest.raises(BadInput, match="another search"):
        compress(
            trained.model, central.task, Request(targets=(target_of("size=0.2"),), minutes=0.02), tmp_path
        )


def test_what_cannot_be_reached_is_said(central, trained, tmp_path):
    from slimfleet.compression.model.summary import bound_of

    request = Request(targets=(target_of("size=10B"),), recipe=recipe_of("quantise: weights=8"))
    compressed = compress(trained.model, central.task, request, tmp_path)
    assert not compressed.met
    assert bound_of(compressed).startswith("size=10: ")


def test_a_model_of_another_task_or_of_no_numbers_is_refused(central, trained, tmp_path):
    request = Request(recipe=recipe_of("quantise"))
    with pytest.raises(BadInput, match="no model of task 'digits'"):
        compress(nn.Linear(4, 2), central.task, request, tmp_path)
    broken = SlimModel(trained.model).copy().model
    broken.fc.weight.data[0, 0] = float("nan")
    with pytest.raises(BadInput, match=r"'fc\.weight' holds NaN"):
        compress(broken, central.task, request, tmp_path)
    with pytest.raises(BadInput, match="nothing to do"):
        compress(trained.model, central.task, Request(), tmp_path)


def test_a_damaged_file_is_refused(central, trained, tmp_path):
    path = tmp_path / "model.slim"
    save_model(trained, path, central.task)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PayloadError):
        load_model(path, central.task)


def test_the_command(trained, tmp_path, monkeypatch, compress):
    monkeypatch.chdir(tmp_path)
    torch.save(trained.model.state_dict(), tmp_path / "net.pt")
    common = ("model", "net.pt", "--task", "digits", "--recipe", "quantise: weights=8", "--teacher", "net.pt")
    common += ("--teacher-option", "alpha=2", "--out", "small")
    code, out, _ = compress(*common, "--target", "size=0.5")
    assert code == 0
    assert "quantise" in out
    assert {path.name for path in (tmp_path / "small").iterdir()} == {
        "model.slim",
        "model.safetensors",
        "summary.json",
        "report.html",
    }
    code, out, _ = compress(*common, "--target", "size=0.001", "--json")
    assert code == 1
    assert json.loads(out)["met"] is False
    code, _, err = compress(*common, "--target", "sise=0.5")
    assert (code, err.count("\n")) == (2, 1)
    code, out, _ = compress("techniques", "--json")
    assert {"prune", "quantise", "distil"} <= {each["name"] for each in json.loads(out)}
