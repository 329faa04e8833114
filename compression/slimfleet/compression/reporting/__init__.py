"""Reporting: what reports share: pages, pieces of markup, units, the look of plots. `figure` needs matplotlib."""
