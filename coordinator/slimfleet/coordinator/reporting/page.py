"""Report page: one HTML file that needs nothing else: no network, no fonts, no scripts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from platform import python_version

from slimfleet.coordinator.reporting import sections
from slimfleet.coordinator.reporting.markup import escape
from slimfleet.coordinator.reporting.outcome import RunRecord
from slimfleet.coordinator.reporting.summary import summarise

__all__ = ["report_html"]

MADE_WITH = ("slimfleet", "flwr", "torch", "numpy", "ray")

log = logging.getLogger(__name__)


def report_html(
    record: RunRecord,
    baseline: RunRecord | None,
    settings_toml: str,
    versions: Mapping[str, str] | None = None,
) -> str:
    """The page as text, without plots where matplotlib is missing.

    By default `versions` (package -> version) are those installed.
    """
    summary = summarise(record, baseline)
    panels = _panels(record, baseline)
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    body = "\n".join(
        [
            sections.headline(record, summary),
            sections.savings(summary),
            sections.curves(record, panels),
            sections.rounds(record.rows),
            sections.devices(record, panels),
            sections.left_out(record),
            sections.provenance(record, settings_toml, _versions() if versions is None else versions),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(record.scenario)} · slimfleet</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n<footer>Made by slimfleet. This page needs nothing but itself.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def _panels(record: RunRecord, baseline: RunRecord | None) -> dict[str, str]:
    """The plots by name; none, and a warning, where matplotlib is missing."""
    try:
        from slimfleet.coordinator.reporting.panels import page_panels  # loads matplotlib
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] != "matplotlib":
            raise
        log.warning(
            "the report has no plots, as matplotlib is not installed: pip install 'slimfleet[coordinator]'"
        )
        return {}
    return page_panels(record, baseline)


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in MADE_WITH:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
