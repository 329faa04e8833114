"""What the terminal shows during and after a run."""

import io
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console, RenderableType

from slimfleet.compression import Budget
from slimfleet.coordinator import Closed, CoordinatorSettings, Planned
from slimfleet.coordinator.environment import Instant
from slimfleet.coordinator.reporting.outcome import RunRecord
from slimfleet.coordinator.settings import Budgets, PlannerSettings
from slimfleet.simulations.closing import closing_table
from slimfleet.simulations.progress import RoundProgress

MakeRecord = Callable[..., RunRecord]


def printed(what: RenderableType, width: int = 100) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(what)
    return text.getvalue()


def line(text: str, start: str) -> str:
    return next(found for found in text.splitlines() if found.strip().startswith(start))


def test_the_table_has_what_a_person_asks(make_record: MakeRecord) -> None:
    text = printed(closing_table(make_record([0.5, 0.7])))
    assert "60.0 %" in line(text, "accuracy")
    assert "2 kB" in line(text, "sent by devices")
    assert "60 kB (30×)" in text
    assert "8 J" in line(text, "energy (simulated)")
    assert "6 J / 2 J" in line(text, "computing / radio")
    assert "20 s" in line(text, "virtual time")
    assert line(text, "skipped").split()[:3] == ["skipped", "4", "memory_bytes"]
    assert line(text, "failed").split()[:3] == ["failed", "2", "dropout"]
    assert line(text, "budgets broken").split()[-1] == "0"
    assert "FedAvg" not in text


@pytest.mark.parametrize("compared", [False, True])
def test_the_tables_fit_80_columns(make_record: MakeRecord, compared: bool) -> None:
    broken = dict.fromkeys(("energy_j", "deadline_s", "memory_bytes", "uplink_bytes", "power_w"), 12345)
    ours = make_record([0.7] * 5, scenario="x" * 70, violations=broken, skipped={"local_steps": 10**6})
    baseline = make_record([0.6] * 5, violations=broken, rows={"uplink_bytes": 57_000_123_456})
    text = printed(closing_table(ours, baseline if compared else None), width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert line(text, "accuracy, last five rounds").split()[4] == "70.0"
    assert line(text, "as float32").split()[2:5] == ["150", "kB", "(30×)"]
    assert line(text, "energy (simulated)").split()[2:4] == ["20", "J"]


def test_the_table_names_what_was_broken(make_record: MakeRecord) -> None:
    text = printed(closing_table(make_record(violations={"energy_j": 2, "deadline_s": 1})))
    assert "3 (deadline_s 1, energy_j 2)" in line(text, "budgets broken")


def test_the_table_compares_at_the_target(make_record: MakeRecord) -> None:
    ours, baseline = make_record([0.7] * 5), make_record([0.6] * 5, rows={"uplink_bytes": 57_000})
    text = printed(closing_table(ours, baseline))
    target = text[text.index("The cost of reaching") :]
    assert line(target, "sent by devices").split() == ["sent", "by", "devices", "5", "kB", "285", "kB", "57×"]


def test_the_table_says_when_the_target_was_not_reached(make_record: MakeRecord) -> None:
    text = printed(
        closing_table(make_record([0.85] * 5), make_record([0.9] * 5, rows={"uplink_bytes": 57_000}))
    )
    assert "90.0 % was not reached" in text
    assert line(text, "80.0 %").split()[2:6] == ["5", "/", "5", "57×"]
    assert line(text, "90.0 %").split()[2:] == ["not", "reached", "/", "5", "–", "–", "–"]


def test_names_with_brackets_are_names(make_record: MakeRecord) -> None:
    record = make_record(scenario="[red]x[/]", skipped={"[/bold]": 1})
    text = printed(closing_table(record))
    assert "[red]x[/]" in text
    assert "[/bold]" in text


def tell(
    progress: RoundProgress,
    record: RunRecord,
    name: str,
    rounds: int,
    closed_before: int = 0,
    **settings_of_run: Any,
) -> None:
    """The events that a run of `record` makes, of which `closed_before` rounds were closed by an earlier process."""
    settings = CoordinatorSettings(name=name, rounds=rounds, **settings_of_run)
    state: Any = SimpleNamespace(rows=list(record.rows[:closed_before]))
    for row in record.rows[closed_before:]:
        progress(
            Planned(
                round_number=row.round, dispatches=(), skipped={}, reachable=frozenset(), seconds=0.0,
                at=Instant(now_s=0.0, at=0.0),
                settings=settings, state=state,
            )
        )  # fmt: skip
        progress(Closed(row=row, answers=(), evaluation=None, seconds={}, settings=settings, state=state))


def test_progress_is_a_few_lines_where_there_is_no_terminal(make_record: MakeRecord) -> None:
    text = io.StringIO()
    with RoundProgress(Console(file=text, width=60)) as progress:
        tell(progress, make_record([0.5] * 20), "baseline", 20)
        tell(progress, make_record([0.5] * 40), "[digits]", 40)
    lines = text.getvalue().splitlines()
    assert len(lines) == 20
    assert lines[9] == "baseline: round 20 of 20, accuracy 50.0 %, sent 20 kB, 80 J"
    assert lines[-1] == "[digits]: round 40 of 40, accuracy 50.0 %, sent 40 kB, 160 J"


def test_progress_of_a_resumed_run_counts_what_it_had_sent(make_record: MakeRecord) -> None:
    text = io.StringIO()
    with RoundProgress(Console(file=text, width=60)) as progress:
        tell(progress, make_record([0.5] * 4), "digits", 4, closed_before=3)
    assert text.getvalue() == "digits: round 4 of 4, accuracy 50.0 %, sent 4 kB, 16 J\n"


def test_progress_is_live_on_a_terminal(make_record: MakeRecord) -> None:
    text = io.StringIO()
    with RoundProgress(Console(file=text, width=100, force_terminal=True)) as progress:
        tell(progress, make_record([0.5, 0.5]), "[digits]", 2)
    assert "2/2" in text.getvalue()
    assert "[digits]" in text.getvalue()
    assert "round 2 of 2" not in text.getvalue()


def test_progress_shows_the_accuracy_of_the_last_model_and_not_its_mean(make_record: MakeRecord) -> None:
    text = io.StringIO()
    with RoundProgress(Console(file=text, width=60)) as progress:
        tell(progress, make_record([0.2, 0.4, 0.88, None]), "digits", 4, closed_before=2)
    assert [line.split(", ")[1] for line in text.getvalue().splitlines()] == ["accuracy 88.0 %"] * 2


def test_a_run_begins_with_the_classes_that_the_common_budget_does_not_bind(make_record: MakeRecord) -> None:
    common = Budget(energy_j=0.3)
    budgets = Budgets(common=common, by_class={"phone-low": Budget(energy_j=14.0), "sbc-mid": common})
    fixed = PlannerSettings(policy="fixed")
    text = io.StringIO()
    with RoundProgress(Console(file=text, width=60)) as progress:
        tell(progress, make_record([0.5]), "baseline", 1, budget=budgets, planner=fixed)
        tell(progress, make_record([0.5]), "digits", 1, budget=budgets)
    first, second, _ = text.getvalue().splitlines()
    assert first.startswith("baseline: round 1")
    assert second == (
        "digits: the common budget does not bind classes with limits of their own: "
        "phone-low (energy_j 14 instead of 0.3)"
    )


def test_a_broken_model_is_said_aloud(make_record: MakeRecord) -> None:
    record = make_record([0.5, 0.1], rows={"alarm": "the evaluation is not finite"})
    assert "Round 2: the evaluation is not finite (2 rounds in all)." in printed(closing_table(record))
    assert "not finite" not in printed(closing_table(make_record([0.5])))


def test_classes_that_never_took_part_are_named(make_record: MakeRecord) -> None:
    record = make_record([0.5])
    assert "Never took part" not in printed(closing_table(record))
    *others, old = record.device_rows
    idle = replace(
        old, device_class="phone-low", last_reason="energy_j: the least plan needs 12, the limit is 2"
    )
    record = replace(record, device_rows=(*others, idle))
    assert "Never took part: phone-low (energy_j)." in printed(closing_table(record))
