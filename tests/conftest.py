"""Whole test run: one thread a process, long tests first, and property tests that a busy machine does not fail."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Before torch is imported, here and in the processes that tests start: two workers share the machine already.
os.environ["OMP_NUM_THREADS"] = "1"

hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests start first, so that the short ones fill the gaps beside them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
