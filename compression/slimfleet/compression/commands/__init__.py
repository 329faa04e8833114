"""Commands of `slimfleet-compress`. Each imports what it needs: help and mistakes wait for neither numpy nor torch."""
