"""Sweeps: many runs side by side, and what they come to beside each other."""
