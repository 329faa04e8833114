from dataclasses import fields

from slimfleet.compression import Budget
from slimfleet.compression.wire import REASONS
from slimfleet.simulations.reasons import explain, tally


def test_every_reason_of_the_wire_and_every_constraint_is_explained() -> None:
    words = {
        *REASONS,
        *(field.name for field in fields(Budget)),
        "battery",
        "message",
        "dropout",
        "late",
        "timeout",
    }
    assert {word for word in words if not explain(word)} == set()
    assert explain("a word nobody knows") == ""


def test_the_most_frequent_reason_of_each_kind_comes_first() -> None:
    assert tally({"battery": 1, "memory_bytes": 3, "power_w": 0}, {"norm": 2}, {"late": 2, "dropout": 2}) == [
        ("skipped", "memory_bytes", 3),
        ("skipped", "battery", 1),
        ("rejected", "norm", 2),
        ("failed", "dropout", 2),
        ("failed", "late", 2),
    ]
