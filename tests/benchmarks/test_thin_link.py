"""The benchmark of a thin link: its rounds are read off, and its verdict on a cut upload follows from them."""

from dataclasses import replace

import pytest
from thin_link.page import Interrupted, page, said, wrong
from thin_link.runs import Cut, Round, cutting, rounds_of

EVENTS = [
    '{"given": 7, "at": 10.0}', '{"answer": 7, "verdict": "accepted", "at": 12.0}',
    '{"closed": 1, "used": [7], "at": 12.5}', '{"given": 8, "at": 13.0}', '{"closed": 2, "used": [], "at": 14.0}',
]  # fmt: skip
CSV = ["round,uplink_bytes,downlink_bytes", "1,300,900", "2,200,100"]
KEPT = Interrupted(
    Round(50.0, 400_000, 400_000), Round(20.0, 400_000, 400_000),
    (Cut("reset", 100_000), Cut("down", 200_000), Cut("reset", 290_000)), 500_000, 450_000, 1, True,
)  # fmt: skip


def test_rounds_are_from_the_plan_to_their_end():
    assert rounds_of(EVENTS, CSV) == [Round(2.5, 300, 900), Round(1.0, 200, 100)]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"used": 2}, "the update was used 2 times"),
        ({"used": 0}, "the update was used 0 times"),
        ({"is_same": False}, "the model is another one"),
        ({"cuts": (Cut("reset", 200), Cut("down", 100))}, "uploads went on from [200, 100]"),
        ({"cuts": (Cut("reset", 0),)}, "uploads went on from [0]"),
    ],
)
def test_a_cut_must_cost_nothing_that_had_come(changes, found):
    assert wrong(KEPT) == []
    assert wrong(replace(KEPT, **changes)) == [found]
    assert found in said(replace(KEPT, **changes))


def test_the_page_has_both_ways_side_by_side():
    runs = {
        "compressed": [
            Round(9.0, 300, 900),
            Round(1.0, 300, 200),
            Round(2.0, 300, 200),
            Round(1.0, 300, 200),
        ],
        "float32": [Round(30.0, 4_000, 4_000), Round(10.0, 4_000, 4_000), Round(12.0, 4_000, 4_000)],
    }
    text = page(runs, KEPT, 0.101, "bbr")
    assert "11.0 times as long in float32" in text
    assert "measured: 10.1%" in text
    assert "was used once, and the model is that of the same round left alone" in text


def test_cuts_are_made_once_a_quarter_has_passed_and_noted_by_where_it_goes_on(tmp_path, monkeypatch):
    """The device's log and the link's counter are all that it looks at."""
    log, sent, done, published = tmp_path / "cut-device.log", [0], [], tmp_path / "cut" / "model.safetensors"
    log.write_text("plan 1: 0 of 400 bytes of its update are there\n")

    def counted():
        sent[0] += 30
        return sent[0]

    def cut(how):
        done.append((how, sent[0]))
        with log.open("a") as file:
            file.write(f"plan 1: {100 * len(done)} of 400 bytes of its update are there\n")
        if len(done) == 2:
            published.parent.mkdir()
            published.touch()

    monkeypatch.setattr("thin_link.network.sent_bytes", counted)
    monkeypatch.setattr("thin_link.network.reset", lambda lasts_s: cut("reset"))
    monkeypatch.setattr("thin_link.network.unplug", lambda lasts_s: cut("down"))
    cuts, whole = [], []
    cutting(("reset", "down"), cuts, whole)(log)
    assert cuts == [Cut("reset", 100), Cut("down", 200)]
    assert done[0][1] >= 100
    assert done[1][1] - done[0][1] >= 100
    assert whole == [sent[0] - 30]
