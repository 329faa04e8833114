"""Report page: one HTML file that needs nothing else: no network, no fonts, no scripts."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from platform import python_version

from slimfleet.simulations.outcome import RunRecord
from slimfleet.simulations.report import sections
from slimfleet.simulations.report.markup import escape
from slimfleet.simulations.summary import summarise

MADE_WITH = ("slimfleet", "flwr", "torch", "numpy", "ray")


def report_html(
    record: RunRecord,
    baseline: RunRecord | None,
    scenario_toml: str,
    versions: Mapping[str, str] | None = None,
) -> str:
    """The page as text. By default `versions` (package -> version) are those installed."""
    summary = summarise(record, baseline)
    style = files("slimfleet.simulations.report").joinpath("style.css").read_text(encoding="utf-8")
    body = "\n".join(
        [
            sections.headline(record, summary),
            sections.savings(summary),
            sections.curves(record, baseline),
            sections.devices(record),
            sections.left_out(record),
            sections.provenance(record, scenario_toml, _versions() if versions is None else versions),
        ]
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(record.scenario)} · slimfleet</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n<footer>Made by slimfleet. This page needs nothing but itself.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def _versions() -> dict[str, str]:
    found = {"python": python_version()}
    for package in MADE_WITH:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
