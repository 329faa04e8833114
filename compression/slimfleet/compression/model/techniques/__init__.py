"""Techniques, one a file; `slimfleet.compression.model.toolbox` lists them."""
