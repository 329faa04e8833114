"""Every reason is explained, and the most frequent ones come first."""

from slimfleet.compression.wire import REASONS
from slimfleet.simulations.words import explain, tally

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
