"""The report page: whole, alone, escaped, and saying what the record says."""

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from math import nan
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from slimfleet.compression import Budget
from slimfleet.coordinator.reporting import RunRecord, report_html, save_picture
from slimfleet.coordinator.reporting.plots import accuracy_by_round, width_shares
from slimfleet.coordinator.settings import Budgets

MakeRecord = Callable[..., RunRecord]
VOID = {"meta", "link", "br", "hr", "img", "input"}
HOSTILE = "<script>alert('x')</script>&\"]]>[red]"


class Page(HTMLParser):
    """Reads a page, insists that its tags nest, and keeps its text and attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.ids: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += " ".join(data.split()) + "\n"


def figure(html: str, title: str) -> str:
    """The markup of the figure of this title."""
    return html.split(f'<figure aria-label="{title}">')[1].split("</figure>")[0]


@pytest.fixture(scope="module")
def pair(make_record: MakeRecord) -> tuple[RunRecord, RunRecord]:
    ours = make_record([0.5, 0.6, 0.6, 0.7, 0.7, 0.7, 0.8, 0.9])
    return ours, make_record([0.65] * 6, rows={"uplink_bytes": 60_000, "energy_j": 12.0})


@pytest.fixture(scope="module")
def page_of_pair(pair: tuple[RunRecord, RunRecord]) -> str:
    return report_html(*pair, "rounds = 8", {"slimfleet": "9.8.7"})


def test_the_page_parses_and_stands_alone(page_of_pair: str) -> None:
    page = Page(page_of_pair)
    assert {"main", "svg", "table", "style"} <= page.seen
    assert not {"script", "link", "img", "iframe", "object"} & page.seen
    addresses = set(re.findall(r"(?:https?:)?//[^\s\"'<>)]+", page_of_pair))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in page_of_pair
    assert not re.search(r"url\((?!#)", page_of_pair)
    assert len(page.ids) == len(set(page.ids))


def test_the_page_says_what_the_record_says(page_of_pair: str) -> None:
    text = Page(page_of_pair).text
    # Ours: 6 rounds of 1,000 bytes to reach 65 %; the baseline: 5 rounds of 60,000.
    for said in [
        "The cost of reaching 65.0 %",
        "50×",
        "6 kB",
        "300 kB",
        "simulated",
        "memory_bytes",
        "rounds = 8",
        "9.8.7",
    ]:
        assert said in text
    assert "the narrowest model needs more memory than there is" in text
    assert "No power was measured" in text


def test_a_run_without_baseline_makes_no_comparison(make_record: MakeRecord) -> None:
    text = Page(report_html(make_record([0.5, 0.6]), None, "")).text
    assert "FedAvg" not in text
    assert "cost of reaching" not in text


def test_a_target_not_reached_is_said(make_record: MakeRecord) -> None:
    text = Page(report_html(make_record([0.3] * 6), make_record([0.9] * 6), "")).text
    assert "accuracy of 90.0 % was not reached in 6 rounds" in text


def test_broken_budgets_are_shown(make_record: MakeRecord) -> None:
    html = report_html(make_record(violations={"deadline_s": 3}), None, "")
    assert "budget broken" in Page(html).text
    assert 'class="tile bad"' in html
    assert 'class="tile bad"' not in report_html(make_record(), None, "")


def test_hostile_text_is_shown_and_never_run(make_record: MakeRecord) -> None:
    record = make_record(scenario=HOSTILE, backend=HOSTILE, skipped={HOSTILE: 1}, rejected={HOSTILE: 1})
    devices = tuple(replace(row, device_class=HOSTILE, name=HOSTILE) for row in record.device_rows)
    html = report_html(replace(record, device_rows=devices), record, f"# {HOSTILE}", {HOSTILE: HOSTILE})
    page = Page(html)
    assert "script" not in page.seen
    assert HOSTILE in page.text
    assert not any(name.startswith("on") for name, _ in page.attributes)


@pytest.mark.parametrize("accuracies", [[], [None, None], [0.5], [nan, nan], [0.1] * 6])
@pytest.mark.parametrize("spent", [4.0, 0.0, 1e308, nan])
def test_runs_that_came_to_nothing_still_have_a_page_and_a_picture(
    make_record: MakeRecord, tmp_path: Path, accuracies: list[float | None], spent: float
) -> None:
    """Warnings are errors here: a logarithmic scale of nothing makes matplotlib warn."""
    costs = dict.fromkeys(("energy_j", "compute_j", "radio_j", "predicted_energy_j", "loss"), spent)
    rows = {**costs, "uplink_bytes": 0, "downlink_bytes": 0, "completed": 0}
    record = make_record(accuracies, rows=rows, device_rows=(), skipped={}, failed={})
    plain = spent == 4.0 or len(accuracies) == 6
    for baseline in (record, None) if plain else (record,):
        assert "so the model is untrained" in Page(report_html(record, baseline, "")).text
        save_picture(record, baseline, tmp_path / "run.png")


def test_a_run_without_updates_says_why(make_record: MakeRecord) -> None:
    record = make_record(
        [0.1] * 4, rows={"completed": 0}, skipped={"energy_j": 75, "battery": 5}, failed={"late": 2}
    )
    html = report_html(record, None, "")
    said = (
        "No update was used in 4 rounds, so the model is untrained: most often (75 times) a device was skipped: "
        "energy_j, the smallest plan needs more joules than the budget holds."
    )
    assert said in Page(html).text
    assert 'class="tile good"' not in html


def test_classes_that_never_took_part_are_in_the_headline(make_record: MakeRecord) -> None:
    board, phone, old = make_record().device_rows
    reason = "energy_j: the least plan needs 12, the limit is 0.3"
    idle = [
        replace(old, device_class="phone-low", last_reason=reason),
        replace(old, device_class="phone-high", skips=0, last_reason=""),
        replace(old, device_class="sbc-low", skips=0, failures=1, last_reason="full width"),
    ]
    html = report_html(make_record(device_rows=(board, phone, old, *idle)), None, "")
    said = "Never took part: phone-high (never chosen), phone-low (energy_j), sbc-low (no update used)."
    assert said in Page(html[: html.index("<h2>")] + "</main></body></html>").text
    assert 'class="tile good"' not in html
    took_part = report_html(make_record(device_rows=(board, phone, old)), None, "")
    assert 'class="tile good"' in took_part
    assert "Never took part" not in took_part


def test_a_class_with_limits_of_its_own_is_named_with_them(make_record: MakeRecord) -> None:
    common = Budget(energy_j=0.3, uplink_bytes=4_000)
    budgets = Budgets(
        common=common, by_class={"sbc-mid": replace(common, energy_j=14.0), "phone-mid": common}
    )
    text = Page(report_html(make_record(budgets=budgets), None, "")).text
    assert "does not bind classes with limits of their own: sbc-mid (energy_j 14 instead of 0.3)." in text
    assert "14 J, 4 kB up" in text
    assert "0.3 J, 4 kB up" in text
    assert "limits of their own" not in Page(report_html(make_record(), None, "")).text


def test_the_headline_is_the_accuracy_of_the_last_model(make_record: MakeRecord) -> None:
    text = Page(report_html(make_record([0.4, 0.6, 0.7, 0.75, 0.88]), None, "")).text
    assert re.search(r"88\.0 %\s+accuracy of the last model; mean of the last five rounds 66\.6 %", text)


def test_accuracies_on_the_way_are_compared_too(make_record: MakeRecord) -> None:
    ours, baseline = (
        make_record([0.95] * 8),
        make_record([0.85] * 5 + [0.95] * 15, rows={"uplink_bytes": 9_000}),
    )
    text = Page(report_html(ours, baseline, "")).text
    way = text[text.index("On the way there") :]
    assert re.search(r"80\.0 %\s+5 / 5\s+9\.0×", way)
    assert re.search(r"90\.0 %\s+5 / 8\s+14×", way)


def test_every_round_is_in_a_table(make_record: MakeRecord) -> None:
    text = Page(report_html(make_record([0.5, None, 0.7]), None, "")).text
    table = text[text.index("Every round in numbers") :]
    assert re.search(r"3\s+70\.0 %\s+0\.3\s+3\s+4\s+1\s+0\s+1\s+1 kB\s+2 kB\s+4 J\s+10 s", table)
    assert re.search(r"2\s+–\s+–\s+3", table)


def test_batteries_are_shown_at_start_and_end(make_record: MakeRecord) -> None:
    text = Page(report_html(make_record(), None, "")).text
    assert re.search(r"battery at start\s+battery at end", text)
    assert re.search(r"phone-mid(\s+[^\n]+){6}\s+90\.0 %\s+80\.0 %", text)
    assert re.search(r"sbc-mid(\s+[^\n]+){6}\s+–\s+–", text)


def test_plots_are_no_wider_than_a_telephone(page_of_pair: str) -> None:
    widths = [float(width) for width in re.findall(r'<svg role="img" viewBox="0 0 ([\d.]+) ', page_of_pair)]
    assert len(widths) == 12
    assert max(widths) < 300  # points: text of 9.5 of them stays as large on a screen of 390 pixels
    assert not re.search(r"svg[^}]*min-width", page_of_pair)


def test_both_runs_are_in_the_plots_by_round(pair: tuple[RunRecord, RunRecord], page_of_pair: str) -> None:
    alone = report_html(pair[0], None, "")
    joules = "Joules by round (simulated)"
    by_bytes = ("Accuracy by bytes sent", "Accuracy by bytes received")
    for title in (*by_bytes, "Accuracy by round", "Loss by round", joules):
        assert "FedAvg float32" in figure(page_of_pair, title)
    assert "FedAvg float32" not in figure(alone, joules)


def test_the_bold_line_is_the_round_and_the_thin_one_the_mean(pair: tuple[RunRecord, RunRecord]) -> None:
    ours, _ = pair
    axes = Figure().add_subplot()
    accuracy_by_round(axes, ours, None)
    bold, thin = sorted(axes.lines, key=lambda line: -line.get_linewidth())
    assert list(bold.get_ydata()) == [row.accuracy for row in ours.rows]
    assert list(thin.get_ydata()) == [row.trailing_accuracy for row in ours.rows]


def test_names_are_no_formulae_and_do_not_crowd_the_plot_out(make_record: MakeRecord) -> None:
    device = make_record().device_rows[0]
    rows = tuple(replace(device, device_class=f"$\\frac{{{number:03}" + "x" * 60) for number in range(200))
    assert "$\\frac{007" in Page(report_html(make_record(device_rows=rows), None, "")).text


def test_a_deployment_does_not_speak_of_virtual_time(make_record: MakeRecord) -> None:
    record = make_record(backend="deployed", energy_source="mixed: estimated and measured")
    text = Page(report_html(record, None, "")).text
    assert "virtual time" not in text
    assert "byte for byte" not in text
    assert "estimated by the devices" in text
    assert "measured on the devices" in text
    assert "simulated" not in text


def test_without_matplotlib_the_page_has_no_plots_and_says_what_to_install() -> None:
    code = """
import sys
sys.modules["matplotlib"] = None
from slimfleet.coordinator.reporting import RunRecord, report_html
record = RunRecord(scenario="digits", seed=1, backend="deployed", devices=0, rows=(), device_rows=())
print(report_html(record, None, ""))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    page = Page(done.stdout)
    assert "svg" not in page.seen
    assert "pip install 'slimfleet[coordinator]'" in page.text
    assert "pip install 'slimfleet[coordinator]'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_same_record_gives_the_same_page(pair: tuple[RunRecord, RunRecord], page_of_pair: str) -> None:
    assert report_html(*pair, "rounds = 8", {"slimfleet": "9.8.7"}) == page_of_pair


def test_the_picture_is_a_png(pair: tuple[RunRecord, RunRecord], tmp_path: Path) -> None:
    save_picture(*pair, tmp_path / "docs" / "run.png")
    assert (tmp_path / "docs" / "run.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_widths_are_grouped_around_quarters_and_sum_to_one(make_record: MakeRecord) -> None:
    one, other, idle = make_record().device_rows
    group = [
        replace(one, device_class="c", mean_width=width) for width in (0.25, 0.3, 0.5, 0.75, 0.8, 1.0)
    ] + [replace(idle, device_class="c")] * 2
    assert width_shares([*group, other]) == {
        "c": [0, 0.25, 0, 0.25, 0.125, 0.25, 0.125],
        other.device_class: [0, 0, 0, 0, 0, 1, 0],
    }


def test_the_never_chosen_are_not_counted_as_without_a_plan(make_record: MakeRecord) -> None:
    idle = make_record().device_rows[2]
    plain = replace(idle, device_class="c", skips=0, failures=0, rejections=0)
    group = [plain, plain, replace(plain, skips=1), replace(plain, skips=1, failures=1)]
    assert width_shares(group) == {"c": [0.5, 0.25, 0.25, 0, 0, 0, 0]}
