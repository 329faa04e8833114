"""Calibration: what a device finds out about itself by doing rounds: its speed, its memory, its link."""
