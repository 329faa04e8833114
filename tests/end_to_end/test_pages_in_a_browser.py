"""Report pages as a browser lays them out, at the width of a desktop and of a telephone."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import pytest

from slimfleet.coordinator.learning.class_row import ClassRow
from slimfleet.coordinator.reporting import RunRecord, report_html
from slimfleet.simulations.sweeps.outcomes import Comparison, Finished, Point
from slimfleet.simulations.sweeps.page import comparison_html

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESKTOP, TELEPHONE = 1200, 390
LEAST_TEXT = 7.0
"""Pixels of the smallest letters that are still read."""

MEASURE = """
function measure(frame) {
  const page = frame.contentDocument, found = {figures: page.querySelectorAll("figure svg").length, wrong: []};
  const root = page.documentElement;
  if (root.scrollWidth > root.clientWidth + 1) found.wrong.push(`scrolls sideways: ${root.scrollWidth}`);
  for (const tile of page.querySelectorAll(".tile"))
    if (tile.scrollWidth > tile.clientWidth + 1) found.wrong.push(`a tile is cut: ${tile.textContent}`);
  for (const figure of page.querySelectorAll("figure")) {
    const name = figure.getAttribute("aria-label"), svg = figure.querySelector("svg").getBoundingClientRect();
    if (svg.width < 100 || svg.height < 60) found.wrong.push(`${name}: no room`);
    const texts = [...figure.querySelectorAll("svg text")].map(t => [t.textContent, t.getBoundingClientRect(), t]);
    for (const [text, box, element] of texts) {
      const style = page.defaultView.getComputedStyle(element);
      const size = element.getScreenCTM().a * parseFloat(style.fontSize);
      if (size < LEAST) found.wrong.push(`${name}: "${text}" is ${size} pixels high`);
      if (box.left < svg.left - 2 || box.right > svg.right + 2 || box.top < svg.top - 2 || box.bottom > svg.bottom + 2)
        found.wrong.push(`${name}: "${text}" is cut off`);
    }
    texts.forEach(([one, a], i) => texts.slice(i + 1).forEach(([other, b]) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 2 && high > 4) found.wrong.push(`${name}: "${one}" and "${other}" overlap`);
    }));
  }
  return found;
}
"""


def looked_at(pages: dict[str, str], folder: Path) -> dict[str, dict[str, Any]]:
    """What a browser finds of each page at both widths: its figures, and what is wrong with it."""
    names = [f"{name} at {width}" for name in pages for width in (DESKTOP, TELEPHONE)]
    frames = "".join(
        f'<iframe width="{width}" height="900" srcdoc="{escape(html)}"></iframe>'
        for html in pages.values()
        for width in (DESKTOP, TELEPHONE)
    )
    script = MEASURE.replace("LEAST", str(LEAST_TEXT)) + (
        "onload = () => document.getElementById('found').textContent ="
        " JSON.stringify([...document.querySelectorAll('iframe')].map(measure));"
    )
    wrapper = folder / "wrapper.html"
    wrapper.write_text(
        f'<!DOCTYPE html><meta charset="utf-8"><pre id="found"></pre>{frames}<script>{script}</script>'
    )
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000",
        f"--user-data-dir={folder / 'profile'}", "--dump-dom", wrapper.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=True)
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found is not None, done.stderr[-2_000:]
    text = found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    return dict(zip(names, json.loads(text), strict=True))


@pytest.fixture
def run_page(make_record: Callable[..., RunRecord]) -> str:
    """A run beside its baseline, with everything that the page can show."""
    plain = ClassRow(
        device_class="phone-mid", ended=3, used=2, mean_width=0.75, mean_nmse=0.09, energy_j_median=4.0,
        energy_j_high=6.0, time_s_median=8.0, time_s_high=20.0, battery_low=0.3, battery_median=0.6, battery_high=0.9,
    )  # fmt: skip
    record = make_record([0.1 + 0.04 * number for number in range(20)])
    classes = (plain, replace(plain, device_class="sbc-low", battery_low=None, battery_median=None))
    devices = tuple(
        replace(row, device=number, device_class=name, energy_j=number + 1.0)
        for number, (row, name) in enumerate(
            (row, name)
            for name in ("phone-low", "phone-mid", "phone-high", "sbc-low", "sbc-mid", "edge-gpu")
            for row in record.device_rows
        )
    )
    ours = replace(
        record, rows=tuple(replace(row, classes=classes) for row in record.rows), device_rows=devices
    )
    baseline = make_record([0.65] * 20, rows={"uplink_bytes": 60_000, "energy_j": 12.0})
    return report_html(ours, baseline, 'name = "digits"', {})


@pytest.fixture
def sweep_page() -> str:
    """Five points on three seeds."""

    def run(point: int, seed: int) -> Finished:
        summary = {
            "seed": seed, "rounds": 20, "devices": 200, "loss": 0.3, "budget_violations": 0,
            "accuracy_last5": 0.7 + 0.04 * point + 0.005 * seed, "uplink_bytes": 10_000 * 3**point + 300 * seed,
            "downlink_bytes": 90_000 * 2**point, "energy_j": 40.0 + 90 * point, "energy_source": "simulated",
            "virtual_time_s": 900.0 + 600 * point + 30 * seed,
        }  # fmt: skip
        rounds = [{"round": float(n), "accuracy": 0.9 - 0.8 / n - 0.02 * point} for n in range(1, 21)]
        return Finished(name=f"point {point}, seed {seed}", folder=Path(), summary=summary, rounds=rounds)

    points = tuple(
        Point(
            label=f"energy_j={0.5 * (point + 1)} preset=small",
            settings={"budget.energy_j": 0.5 * (point + 1), "codec.preset": "small"},
            varied={"budget.energy_j": 0.5 * (point + 1)},
            runs=tuple(run(point, seed) for seed in range(3)),
        )
        for point in range(5)
    )
    problems = {"point 9, seed 1": "not one update was used in 20 rounds"}
    return comparison_html(
        Comparison(title="budgets", about="5 points", points=points, problems=problems, source="x = 1")
    )


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here: apt-get install chromium")
def test_pages_have_room_for_all_they_show(run_page: str, sweep_page: str, tmp_path: Path) -> None:
    spoiled = run_page.replace(".scroll { overflow-x: auto; }", "").replace("9.5px", "4px")
    found = looked_at({"run": run_page, "sweep": sweep_page, "spoiled": spoiled}, tmp_path)
    for name, page in found.items():
        if name.startswith("spoiled"):
            continue
        assert page["figures"] == (12 if name.startswith("run") else 6), name
        assert page["wrong"] == [], name
    wrong = found[f"spoiled at {TELEPHONE}"]["wrong"]
    assert any("sideways" in each for each in wrong), "the measurement is blind"
    assert any("pixels high" in each for each in wrong), "the measurement is blind"
