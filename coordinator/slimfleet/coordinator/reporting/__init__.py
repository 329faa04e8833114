"""Reporting: what a run leaves behind for people and scripts. The plots need matplotlib, everything else does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimfleet.compression.lazy import lazy_exports

if TYPE_CHECKING:
    from slimfleet.coordinator.reporting.outcome import DeviceRow, RunRecord, record_of
    from slimfleet.coordinator.reporting.outputs import write_outputs
    from slimfleet.coordinator.reporting.page import report_html
    from slimfleet.coordinator.reporting.panels import save_picture
    from slimfleet.coordinator.reporting.summary import summarise
else:
    __getattr__, __dir__ = lazy_exports(
        __name__,
        {
            "DeviceRow": "slimfleet.coordinator.reporting.outcome",
            "RunRecord": "slimfleet.coordinator.reporting.outcome",
            "record_of": "slimfleet.coordinator.reporting.outcome",
            "report_html": "slimfleet.coordinator.reporting.page",
            "save_picture": "slimfleet.coordinator.reporting.panels",
            "summarise": "slimfleet.coordinator.reporting.summary",
            "write_outputs": "slimfleet.coordinator.reporting.outputs",
        },
    )

__all__ = ["DeviceRow", "RunRecord", "record_of", "report_html", "save_picture", "summarise", "write_outputs"]
