"""Files of a comparison."""

from __future__ import annotations

from pathlib import Path

from slimfleet.compression.files import write_atomically
from slimfleet.simulations.sweeps.outcomes import Comparison
from slimfleet.simulations.sweeps.page import comparison_html
from slimfleet.simulations.sweeps.tables import comparison_csv

__all__ = ["write_comparison"]


def write_comparison(out: Path, csv_name: str, comparison: Comparison) -> None:
    """Write `report.html` and the CSV into `out`, each whole or not at all. Raises DiskError where the disk refuses."""
    write_atomically(out / csv_name, comparison_csv(comparison))
    write_atomically(out / "report.html", comparison_html(comparison).encode())
