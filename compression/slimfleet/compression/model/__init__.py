"""Model toolbox: a trained model becomes small, by techniques that are measured at every step. Needs torch."""
