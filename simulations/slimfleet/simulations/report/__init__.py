"""Report of a run: a page and a picture."""

from slimfleet.simulations.report.page import report_html
from slimfleet.simulations.report.panels import save_picture

__all__ = ["report_html", "save_picture"]
