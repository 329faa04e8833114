"""Commands: what `slimfleet-simulate` does besides running one scenario."""
