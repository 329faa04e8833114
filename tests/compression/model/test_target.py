"""Targets are shares or amounts with a unit, and anything else is one line."""

import pytest

from slimfleet.compression import BadInput
from slimfleet.compression.model.evaluation.measuring import Measured
from slimfleet.compression.model.target import Target, target_of

BEFORE = Measured(
    parameters=1000, nonzero=900, flops=2e6, bytes=4000, peak_memory_bytes=10_000, latency_s=0.01,
    energy_j=None, energy_source=None, accuracy=0.9, loss=0.3,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "target", "limit"),
    [
        ("size=0.1", Target("size", share=0.1), 400),
        ("size = 3.5kB", Target("size", absolute=3500), 3500),
        ("size=1KiB", Target("size", absolute=1024), 1024),
        ("flops=0.3", Target("flops", share=0.3), 6e5),
        ("flops=2M", Target("flops", absolute=2e6), 2e6),
        ("parameters=500", Target("parameters", absolute=500), 500),
        ("latency=5ms", Target("latency", absolute=0.005), 0.005),
        ("memory=5e-1", Target("memory", share=0.5), 5000),
    ],
)
def test_a_target_is_what_its_text_says(text, target, limit):
    assert target_of(text) == target
    assert target_of(text).limit(BEFORE) == pytest.approx(limit)


def test_a_limit_that_is_kept_is_no_excess():
    assert target_of("size=8kB").excess(4000, BEFORE) == 0.5
    assert target_of("size=0.5").excess(4000, BEFORE) == 2


@pytest.mark.parametrize(
    "text",
    [
        "size",
        "sise=1",
        "size=0",
        "size=-1",
        "size=2",
        "size=1ms",
        "size=x",
        "size=1e999",
        "latency=3",
        "size=..1",
    ],
)
def test_a_mistake_gets_one_line(text):
    with pytest.raises(BadInput, match="target") as refusal:
        target_of(text)
    assert "\n" not in str(refusal.value)


def test_joules_need_a_device():
    with pytest.raises(BadInput, match="--device"):
        target_of("energy=0.5").limit(BEFORE)
