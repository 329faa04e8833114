"""The report page of a compression: whole, alone, escaped, and saying what summary.json says."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from html.parser import HTMLParser
from math import inf, nan

import pytest

from slimfleet.compression.model.compress import Request, compress
from slimfleet.compression.model.evaluation.device_costs import profile_named
from slimfleet.compression.model.evaluation.pareto import front_of, front_plot
from slimfleet.compression.model.outputs import write_outputs
from slimfleet.compression.model.recipes.journal import Journal
from slimfleet.compression.model.recipes.recipe import recipe_of
from slimfleet.compression.model.report.page import report_html
from slimfleet.compression.model.summary import summary_of
from slimfleet.compression.model.target import target_of
from slimfleet.compression.model.technique import Curve, LayerChange, Plot
from slimfleet.compression.profiles import load_profiles
from slimfleet.compression.task import Evaluation

HOSTILE = "<script>alert('x')</script>&\"]]>$\\frac{"
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """Insists that tags nest, and keeps text, tags and ids."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.seen.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += " ".join(data.split()) + "\n"


@pytest.fixture(scope="module")
def made(central, trained, tmp_path_factory):
    """By a recipe that measures on its way, with targets of which one is missed."""
    folder = tmp_path_factory.mktemp("made")
    request = Request(
        targets=(target_of("size=0.001"), target_of("flops=0.9")),
        recipe=recipe_of(
            "prune: share=0.2, epochs=0, sensitivity=true; share: values=8, epochs=0; quantise: activations=8; round"
        ),
        max_loss=50.0,
        device=profile_named(load_profiles()[0].name),
    )
    compressed = compress(trained.model, central.task, request, folder)
    write_outputs(compressed, folder, "slimfleet-compress model net.pt --recipe 'x; y'")
    return compressed, folder


@pytest.fixture(scope="module")
def searched(central, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    request = Request(targets=(target_of("size=0.1"),), minutes=0.01, max_loss=100.0)
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # as on an idle machine: a busy one has time for one candidate alone
        patch.setattr("slimfleet.compression.model.recipes.search._epoch_s", lambda *_: 0.05)
        compressed = compress(trained.model, central.task, request, folder)
    return compressed, folder


def svgs(html: str) -> int:
    return len(re.findall("<svg ", html))


def test_the_page_stands_alone_and_says_what_the_summary_says(made):
    compressed, folder = made
    html = (folder / "report.html").read_text()
    page = Page(html)
    summary = json.loads((folder / "summary.json").read_text())
    assert not {"script", "link", "img", "iframe", "object"} & page.seen
    addresses = set(re.findall(r"(?:https?:)?//[^\s\"'<>)]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert len(page.ids) == len(set(page.ids))
    for when in ("before", "after"):
        numbers = summary[when]
        for key in ("parameters", "nonzero", "flops", "bytes", "peak_memory_bytes"):
            assert f"{numbers[key]:,.0f}" in page.text, key
        for said in (
            f"{100 * numbers['accuracy']:.2f} %",
            f"{numbers['loss']:.4g}",
            f"{1000 * numbers['latency_s']:.3g} ms",
            f"{1000 * numbers['energy_j']:.3g} mJ",
            numbers["energy_source"],
        ):
            assert said in page.text
    for step in summary["steps"]:
        assert step["step"] in page.text
        assert f"{step['after']['bytes']:,}" in page.text
    for layer in summary["layers"]:
        assert layer["name"] in page.text
    ratio = f"1/{summary['before']['bytes'] / summary['after']['bytes']:.3g} of the bytes"
    title = html[html.index("<h1>") : html.index("</h1>")]
    assert ratio in title
    assert f"{abs(summary['points_lost']):.2f} points of accuracy" in title
    assert "missed: size=0.001" in title
    assert summary["bound"] in page.text
    assert "slimfleet-compress model net.pt --recipe 'x; y'" in page.text
    assert str(compressed.recipe) in page.text


def test_there_is_a_picture_for_every_plot(made):
    compressed, folder = made
    measured = sum(len(step.report.plots) for step in compressed.steps)
    assert measured > 1
    html = (folder / "report.html").read_text()
    assert svgs(html) == 5 + measured
    for step in compressed.steps:
        for title in step.report.plots:
            assert title in Page(html).text
    widths = [float(width) for width in re.findall(r'<svg role="img" viewBox="0 0 ([\d.]+) ', html)]
    assert max(widths) < 300  # points: no wider than a telephone


def test_the_tensors_are_what_the_file_has(made):
    compressed, folder = made
    layers = {each["name"]: each for each in json.loads((folder / "summary.json").read_text())["layers"]}
    assert list(layers) == list(compressed.model.state_dict())
    assert sum(each["elements"] for each in layers.values()) == sum(
        tensor.numel() for tensor in compressed.model.state_dict().values()
    )
    for name, tensor in compressed.model.state_dict().items():
        assert layers[name]["zeros"] == int((tensor == 0).sum())
    shared = layers["fc.weight"]
    assert shared["coding"] == "codebook"
    assert shared["values"] == len(compressed.model.fc.weight.unique()) <= 8
    assert shared["bits"] <= 3
    assert layers["fc.bias"]["bits"] == 32
    assert 0 < sum(each["bytes"] for each in layers.values()) < compressed.after.bytes


def test_a_search_shows_its_front_and_its_first_look(searched):
    compressed, folder = searched
    html = report_html(compressed)
    page = Page(html)
    found = compressed.found
    assert found.tried
    assert found.sensitivity
    path = folder / "search.jsonl"
    journal = Journal(path, json.loads(path.read_text().splitlines()[0])["about"])
    assert journal.sensitivity == found.sensitivity
    measured = sum(len(step.report.plots) for step in compressed.steps)
    assert svgs(html) == 5 + measured + len(found.sensitivity) + 1
    assert "Size against points lost" in page.text
    assert "Pareto front" in page.text
    for recipe, after in found.tried.items():
        assert recipe in page.text
        assert f"{after.bytes:,}" in page.text
    assert "all targets met" in html[html.index("<h1>") : html.index("</h1>")]


def test_a_recipe_without_plots_and_a_task_without_accuracy_have_a_page(made):
    compressed, _ = made
    steps = tuple(
        replace(
            step,
            report=replace(step.report, plots={}, whole=()),
            before=replace(step.before, accuracy=None),
            after=replace(step.after, accuracy=None),
        )
        for step in compressed.steps
    )
    plain = replace(
        compressed,
        found=replace(compressed.found, steps=steps),
        before=replace(compressed.before, accuracy=None),
        after=replace(compressed.after, accuracy=None),
        tested_before=Evaluation(2.0),
        tested_after=Evaluation(2.1),
        points_lost=5.0,
        request=replace(compressed.request, targets=(), max_loss=1.0),
    )
    html = report_html(plain)
    text = Page(html).text
    assert svgs(html) == 5
    assert "5.00 % more loss; more than the 1 % more loss allowed" in text
    assert "points of accuracy" not in text
    assert "None: every step changed all layers" in text
    assert "loss 0." in html


def test_hostile_names_are_shown_and_never_run(made):
    compressed, _ = made
    step = compressed.steps[0]
    curves = tuple(
        Curve(f"{number}{HOSTILE}", (1.0, 2.0, inf), (1.0, number / 9 + 0.1, nan)) for number in range(60)
    )
    plots = {HOSTILE: Plot(HOSTILE, HOSTILE, curves, 1.5), "nothing": Plot("x", "y", (Curve("z", (), ()),))}
    report = replace(step.report, plots=plots, whole=(LayerChange(HOSTILE, HOSTILE),) * 20)
    layers = [replace(compressed.layers[0], name=f"{number}{HOSTILE}") for number in range(80)]
    hostile = replace(
        compressed,
        task=HOSTILE,
        layers=tuple(layers),
        found=replace(compressed.found, steps=(replace(step, report=report), *compressed.steps[1:])),
    )
    page = Page(report_html(hostile, HOSTILE))
    assert "script" not in page.seen
    assert HOSTILE in page.text
    assert "The 30 largest of two or more dimensions; the table has all 80 tensors" in page.text
    assert "nothing was measured" in page.text


def test_the_curves_that_change_most_are_named_and_the_rest_are_grey():
    from matplotlib.figure import Figure

    from slimfleet.compression.model.report.plots import NAMED, curves
    from slimfleet.compression.reporting import figure as look

    axes = Figure().add_subplot()
    curves(axes, Plot("x", "y", tuple(Curve(f"c{n}", (1.0, 2.0), (1.0, 1.0 + n)) for n in range(40))))
    named = {text.get_text() for text in axes.get_legend().get_texts()}
    assert named == {f"c{n}" for n in range(40 - NAMED, 40)}
    assert sum(line.get_color() == look.MUTED for line in axes.lines) == 30


def test_a_front_keeps_what_nothing_beats():
    points = [(3.0, 1.0), (1.0, 5.0), (2.0, 5.0), (2.0, 2.0), (4.0, 1.0)]
    assert front_of(points) == [(1.0, 5.0), (2.0, 2.0), (3.0, 1.0)]
    tried, front, chosen = front_plot(("cost", "error"), points, (2.0, 2.0), None).curves
    assert (len(tried.x), len(front.x), chosen.x) == (5, 3, (2.0,))
    assert (tried.joined, front.joined) == (False, True)


def test_the_same_compression_gives_the_same_page(made):
    assert report_html(made[0]) == report_html(made[0])
    assert asdict(made[0].layers[0]) == summary_of(made[0])["layers"][0]


WITHOUT = """
import sys
sys.modules["matplotlib"] = None
import torch
from pathlib import Path
from slimfleet.client.tasks import TASKS
from slimfleet.compression.model.compress import Request, compress
from slimfleet.compression.model.outputs import write_outputs
from slimfleet.compression.model.recipes.recipe import recipe_of
task = TASKS["digits"](partitions=1)
made = compress(task.build_model(), task, Request(recipe=recipe_of("quantise: rounding=nearest")), Path("."))
write_outputs(made, Path("."))
"""


def test_without_matplotlib_the_files_are_written_and_a_line_says_what_to_install(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ, timeout=120,
    )  # fmt: skip
    assert done.stderr.count("\n") == 1
    assert "pip install 'slimfleet[model]'" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.slim",
        "model.safetensors",
        "summary.json",
        "report.html",
    }
    page = Page((tmp_path / "report.html").read_text())
    assert "svg" not in page.seen
    assert "pip install 'slimfleet[model]'" in page.text
