"""Every reason is explained, and the most frequent ones come first."""

from slimfleet.compression import Budget
from slimfleet.compression.wire import REASONS
from slimfleet.coordinator.reporting.words import explain, own_budgets, tally
from slimfleet.coordinator.settings import Budgets

SKIPS = {"energy_j", "memory_bytes", "deadline_s", "uplink_bytes", "downlink_bytes", "battery"}
FAILURES = {"dropout", "late", "timeout", "worker", "error", "refused", "incomplete", "local_steps"}


def test_every_reason_of_the_wire_and_of_the_coordinator_is_explained() -> None:
    assert {word for word in SKIPS | FAILURES | REASONS | {"message"} if not explain(word)} == set()
    assert explain("an unknown word") == ""


def test_the_most_frequent_reason_of_each_kind_comes_first() -> None:
    assert tally({"battery": 1, "memory_bytes": 3, "power_w": 0}, {"norm": 2}, {"late": 2, "dropout": 2}) == [
        ("skipped", "memory_bytes", 3),
        ("skipped", "battery", 1),
        ("rejected", "norm", 2),
        ("failed", "dropout", 2),
        ("failed", "late", 2),
    ]


def test_limits_that_a_class_lifts_or_adds_are_named_too() -> None:
    budgets = Budgets(
        common=Budget(energy_j=2.5), by_class={"a": Budget(deadline_s=60.0), "b": Budget(energy_j=2.5)}
    )
    assert own_budgets(budgets).endswith(": a (energy_j none instead of 2.5, deadline_s 60 instead of none)")
    assert own_budgets(Budgets(common=Budget(energy_j=2.5), by_class={"b": Budget(energy_j=2.5)})) == ""
