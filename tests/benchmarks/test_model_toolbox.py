"""Benchmark of the model toolbox: what is kept, which jobs there are, and the page that is made of them."""

from __future__ import annotations

import pytest
import torch
from model_toolbox.alone import RECIPES, alone
from model_toolbox.cases import ALONE, CASES, Case
from model_toolbox.jobs import STAGES, jobs
from model_toolbox.kept import Kept
from model_toolbox.page import page
from model_toolbox.plot import draw
from model_toolbox.recipes import applied

from slimfleet.compression.model.central import silent
from slimfleet.compression.model.recipes.recipe import recipe_of
from slimfleet.compression.model.training.tuning import Tuning

TINY = Case(name="tiny", task="digits", options={}, training=Tuning(epochs=2, learning_rate=0.05))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trained")


def test_a_model_is_trained_once_and_every_share_is_of_it(folder):
    torch.set_num_threads(1)
    first = applied(TINY, 0, "quantise: weights=8, activations=8; round", folder, silent)
    stamp = (folder / "tiny-0.pt").stat().st_mtime_ns
    again = applied(TINY, 0, "prune: share=0.5, epochs=0", folder, silent)
    assert (folder / "tiny-0.pt").stat().st_mtime_ns == stamp
    assert first["before"] == again["before"]
    assert first["parameters"] == first["flops"] == 1
    assert first["size"] < 0.3
    assert again["flops"] <= 0.5
    assert first["points"] == pytest.approx(100 * (first["before"] - first["after"]))


def test_a_student_stands_beside_its_teacher(folder):
    student = Case(name="tiny", task="digits", options={}, training=TINY.training, student={"alpha": 2.0})
    made = applied(student, 0, "distil: epochs=1", folder, silent)
    assert made["steps"][0]["step"] == "distil: epochs=1.0"
    assert made["parameters"] == 1


def test_a_technique_that_does_nothing_says_why(folder):
    refused = alone(TINY, 0, "recurrent", folder, silent)
    assert refused.keys() == {"refused"}
    assert "recurrent finds no layer" in refused["refused"]


def test_an_outcome_is_kept_until_another_recipe_is_asked_for(tmp_path):
    kept = Kept(tmp_path / "stage")
    assert kept.get("one", "prune") is None
    kept.put("one", "prune", {"points": 0.5})
    assert kept.get("one", "prune") == {"points": 0.5}
    assert kept.get("one", "quantise") is None


def test_every_recipe_can_be_read_and_every_job_has_a_name_of_its_own(tmp_path):
    for case in CASES.values():
        recipe_of(case.recipe)
    for text in RECIPES.values():
        recipe_of(text)
    found = list(jobs((0, 1), tmp_path, silent))
    assert {job.stage for job in found} == set(STAGES)
    assert len({(job.stage, job.name) for job in found}) == len(found)


def outcome(case, points):
    return {
        "parameters": case.parameters, "flops": case.flops, "size": 0.9 * case.size, "bytes": 1000,
        "before": 0.9, "after": 0.9 - points / 100, "points": points, "steps": [], "seconds": 1.0, "cpu_s": 1.0,
    }  # fmt: skip


def test_the_page_says_what_is_met_missed_and_not_measured(tmp_path):
    lenet, resnet = CASES["lenet-5"], CASES["resnet20"]
    recipes = {("lenet-5", 0): outcome(lenet, 0.4), ("lenet-5", 1): outcome(lenet, 0.55)}
    recipes |= {("resnet20", 0): outcome(resnet, 1.5)}
    sizes = {"NNCodec": 100, "round": 50, "pack": 90}
    coded = [{"method": method, "bytes": size, "test_lost": 0.1} for method, size in sizes.items()]
    found = {
        "recipes": {"": recipes},
        "eight_bits": {"": {("lenet-5", 0): outcome(lenet, 0.1) | {"size": 0.24}}},
        "peers": {"nncodec": {("lenet-5", 0): coded}},
        "alone": {
            "prune": {("images-cnn", 0): outcome(lenet, 0.2)},
            "tie": {("images-cnn", 0): {"refused": "tie: no stack"}},
        },
        "together": {"": {("images-cnn", 0): outcome(lenet, 0.2) | {"recipe": "prune", "met": True}}},
    }
    text = page(found, ["torch 2"])
    rows = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if "90.00 %" in line}
    assert rows["resnet20"].endswith("| missed |")
    assert "0.48 (0.40 … 0.55); target 0.5 | 2 | met on average |" in rows["lenet-5"]
    assert "| mobilenet | not measured |" in text
    assert "- tie on images-cnn: tie: no stack" in text
    draw(recipes, found["peers"]["nncodec"], tmp_path / "models.png")
    assert (tmp_path / "models.png").stat().st_size > 10_000
    assert set(ALONE) == {"images-cnn", "speech-lstm", "sensors-cnn1d", "text-transformer"}
