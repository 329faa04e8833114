"""Report page: one HTML file that needs nothing else: no network, no fonts, no scripts."""

from __future__ import annotations

import logging
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.util import find_spec
from platform import python_version

from slimfleet.compression.reporting.markup import escape

__all__ = ["page", "plots_possible", "versions"]

MADE_WITH = ("slimfleet", "flwr", "torch", "numpy", "ray")

log = logging.getLogger(__name__)


def page(title: str, body: str) -> str:
    """The whole page; `body` is trusted markup."""
    style = files(__package__).joinpath("style.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)} · slimfleet</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n<footer>Made by slimfleet. This page needs nothing but itself.</footer>\n"
        "</main>\n</body>\n</html>\n"
    )


def plots_possible(extra: str) -> bool:
    """Whether matplotlib is there; where not, a warning names the extra that brings it."""
    if find_spec("matplotlib") is not None:
        return True
    log.warning("the report has no plots, as matplotlib is not installed: pip install 'slimfleet[%s]'", extra)
    return False


def versions() -> dict[str, str]:
    """Python and the installed packages that results depend on -> version."""
    found = {"python": python_version()}
    for package in MADE_WITH:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
