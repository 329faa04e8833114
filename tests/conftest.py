"""Whole test run: one thread a process, long tests first, no deadline on properties; and records as runs leave them."""

from __future__ import annotations

import os

# Before torch is imported, here and in the processes that tests start: two workers share the machine already.
os.environ["OMP_NUM_THREADS"] = "1"

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from statistics import fmean

import hypothesis
import pytest

from slimfleet.coordinator import RoundRow
from slimfleet.coordinator.reporting import DeviceRow, RunRecord

hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")

MakeRecord = Callable[..., RunRecord]


@pytest.fixture(scope="session", autouse=True)
def _findings_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests find out about models is no business of the user's cache, nor of the next run."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _loggers_as_before() -> Iterator[None]:
    """Commands and deployed apps set up logging for their process, which here goes on to other tests."""
    logging.disable(logging.NOTSET)
    own = [name for name in logging.root.manager.loggerDict if name.split(".")[0] == "slimfleet"]
    for name in own:
        logging.getLogger(name).disabled = False
    loggers = [logging.getLogger(name) for name in (None, "slimfleet", "flwr", *own)]
    before = [(logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield
    for logger, (level, propagate, handlers) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.propagate = propagate
        logger.handlers[:] = handlers


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests start first, so that the short ones fill the gaps beside them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def make_rows(accuracies: Sequence[float | None], **fields: float) -> tuple[RoundRow, ...]:
    """A round each: 1,000 bytes up, 2,000 down, 3 J of compute and 1 J of radio, 10 s."""
    plain = RoundRow(
        round=0, selected=4, completed=3, skipped=1, rejected=0, failed=1,
        accuracy=None, loss=None, trailing_accuracy=None,
        uplink_bytes=1_000, uplink_bytes_float32=30_000, downlink_bytes=2_000, downlink_bytes_float32=40_000,
        energy_j=4.0, compute_j=3.0, radio_j=1.0, virtual_time_s=10.0,
        mean_width=0.5, mean_nmse=0.3, mean_steps=8.0,
        predicted_energy_j=3.5, size_error=0.1, violations=0, wall_time_s=0.5,
    )  # fmt: skip
    rows: list[RoundRow] = []
    known: list[float] = []
    for number, accuracy in enumerate(accuracies, start=1):
        known += [] if accuracy is None else [accuracy]
        trailing = fmean(known[-5:]) if known else None
        loss = None if accuracy is None else 1 - accuracy
        own = {"round": number, "accuracy": accuracy, "loss": loss, "trailing_accuracy": trailing}
        rows.append(replace(plain, **own | fields))
    return tuple(rows)


def make_devices() -> tuple[DeviceRow, ...]:
    """Three devices of two classes; one of them was never able to take part."""
    plain = DeviceRow(
        device=0, name="pi_5", device_class="sbc-mid", participations=3, skips=0, rejections=0, failures=1,
        energy_j=12.0, uplink_bytes=3_000, downlink_bytes=8_000, time_s=20.0, mean_width=0.75,
        battery_start=None, battery_left=None, violations=0, last_reason="dropout",
    )  # fmt: skip
    phone = replace(
        plain, device=1, name="phone_mid_2019", device_class="phone-mid", battery_start=0.9, battery_left=0.8
    )
    old = replace(
        phone, device=2, participations=0, failures=0, mean_width=None, skips=4, last_reason="memory_bytes"
    )
    return plain, phone, old


@pytest.fixture(scope="session")
def make_record() -> MakeRecord:
    """Make a record of rounds with the given accuracies; every field can be given."""

    def make(
        accuracies: Sequence[float | None] = (0.5,), rows: dict[str, float] | None = None, **fields: object
    ) -> RunRecord:
        record = RunRecord(
            scenario="digits", seed=1, backend="local", devices=3,
            rows=make_rows(accuracies, **rows or {}), device_rows=make_devices(),
            skipped={"memory_bytes": 4}, rejected={}, failed={"dropout": 2},
        )  # fmt: skip
        return replace(record, **fields)  # type: ignore[arg-type]

    return make
