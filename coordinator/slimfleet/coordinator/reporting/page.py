"""Report of a run: one HTML page."""

from __future__ import annotations

from collections.abc import Mapping

from slimfleet.compression.reporting.page import page, plots_possible, versions
from slimfleet.coordinator.reporting import sections
from slimfleet.coordinator.reporting.outcome import RunRecord
from slimfleet.coordinator.reporting.summary import summarise

__all__ = ["report_html"]


def report_html(
    record: RunRecord,
    baseline: RunRecord | None,
    settings_toml: str,
    made_with: Mapping[str, str] | None = None,
) -> str:
    """The page as text, without plots where matplotlib is missing.

    By default `made_with` (package -> version) are the versions installed.
    """
    summary = summarise(record, baseline)
    panels = _panels(record, baseline)
    body = "\n".join(
        [
            sections.headline(record, summary),
            sections.savings(summary),
            sections.curves(record, panels),
            sections.phases(summary),
            sections.device_evaluation(summary),
            sections.rounds(record.rows),
            sections.devices(record, panels),
            sections.left_out(record),
            sections.provenance(record, settings_toml, versions() if made_with is None else made_with),
        ]
    )
    return page(record.scenario, body)


def _panels(record: RunRecord, baseline: RunRecord | None) -> dict[str, str]:
    """The plots by name; none, and a warning, where matplotlib is missing."""
    if not plots_possible("coordinator"):
        return {}
    from slimfleet.coordinator.reporting.panels import page_panels  # loads matplotlib

    return page_panels(record, baseline)
