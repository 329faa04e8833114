"""The report page: whole, alone, escaped, and saying what the record says."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from slimfleet.coordinator.reporting import report_html, save_picture
from slimfleet.coordinator.reporting.outcome import RunRecord
from slimfleet.coordinator.reporting.plots import width_shares

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


@pytest.fixture
def pair(make_record: MakeRecord) -> tuple[RunRecord, RunRecord]:
    ours = make_record([0.5, 0.6, 0.6, 0.7, 0.7, 0.7, 0.8, 0.9])
    return ours, make_record([0.65] * 6, rows={"uplink_bytes": 60_000, "energy_j": 12.0})


def test_the_page_parses_and_stands_alone(pair: tuple[RunRecord, RunRecord]) -> None:
    html = report_html(*pair, 'name = "digits"', {"slimfleet": "0.1.0"})
    page = Page(html)
    assert {"main", "svg", "table", "style"} <= page.seen
    assert not {"script", "link", "img", "iframe", "object"} & page.seen
    addresses = set(re.findall(r"(?:https?:)?//[^\s\"'<>)]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert len(page.ids) == len(set(page.ids))


def test_the_page_says_what_the_record_says(pair: tuple[RunRecord, RunRecord]) -> None:
    text = Page(report_html(*pair, "rounds = 8", {"slimfleet": "9.8.7"})).text
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


@pytest.mark.parametrize("accuracies", [[], [None, None], [0.5]])
def test_the_shortest_runs_still_have_a_page_and_a_picture(
    make_record: MakeRecord, tmp_path: Path, accuracies: list[float | None]
) -> None:
    record = make_record(accuracies, device_rows=(), skipped={}, failed={})
    assert "None: every device" in Page(report_html(record, record, "")).text
    save_picture(record, record, tmp_path / "run.png")


def test_the_same_record_gives_the_same_page(pair: tuple[RunRecord, RunRecord]) -> None:
    assert report_html(*pair, "", {}) == report_html(*pair, "", {})


def test_the_picture_is_a_png(pair: tuple[RunRecord, RunRecord], tmp_path: Path) -> None:
    save_picture(*pair, tmp_path / "docs" / "run.png")
    assert (tmp_path / "docs" / "run.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_widths_are_grouped_around_quarters_and_sum_to_one(make_record: MakeRecord) -> None:
    one, other, idle = make_record().device_rows
    group = [
        replace(one, device_class="c", mean_width=width) for width in (0.25, 0.3, 0.5, 0.75, 0.8, 1.0)
    ] + [replace(idle, device_class="c")] * 2
    assert width_shares([*group, other]) == {
        "c": [0.25, 0.25, 0.125, 0.25, 0.125],
        other.device_class: [0, 0, 0, 1, 0],
    }
